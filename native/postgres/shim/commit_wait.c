/*
 * A commit is acknowledged when the WAL service has it, also when its wait was cancelled.
 *
 * Problem: stock Postgres lets a cancel (statement_timeout, a client's cancel request) end the
 * wait for synchronous standbys. It warns, and answers COMMIT, although the commit is durable
 * nowhere but in a directory that may be thrown away. Here, behind that wait and before the
 * answer, we wait again, and only the end of the session ends this wait; then no answer is sent.
 *
 * What stays as in stock Postgres: other sessions may see a commit that its own client was never
 * told of, for as long as the WAL service is away.
 *
 * When to wait: at the end of a transaction that had an id, up to the end of its commit record;
 * after PREPARE and the PREPARED statements, until the last record that this backend wrote is
 * safe. Standbys report the ends of records, so a position above a record's start is behind its
 * end. Nearly always the position is there already, and nothing is waited for.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "shim.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/wait_event.h"

#define POLL_MS 10

static bool had_xid;

static bool
wants_standbys(void)
{
    return SyncRepRequested() && SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0';
}

static bool
is_safe(XLogRecPtr lsn)
{
    int mode = synchronous_commit == SYNCHRONOUS_COMMIT_REMOTE_WRITE ? SYNC_REP_WAIT_WRITE
                                                                      : SYNC_REP_WAIT_FLUSH;

    return *(volatile XLogRecPtr *) &WalSndCtl->lsn[mode] >= lsn;
}

static bool
wait_until_safe(XLogRecPtr lsn, int timeout_ms)
{
    for (int waited = 0; wants_standbys() && !is_safe(lsn); waited += POLL_MS)
    {
        if (timeout_ms >= 0 && waited >= timeout_ms)
            return false;
        if (ProcDiePending)
        {
            whereToSendOutput = DestNone;
            return false;
        }
        (void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_MS,
                         WAIT_EVENT_SYNC_REP);
        ResetLatch(MyLatch);
    }
    return true;
}

bool
commit_wait_for_own_records(int timeout_ms)
{
    return wait_until_safe(ProcLastRecPtr + 1, timeout_ms);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
    switch (event)
    {
        case XACT_EVENT_PRE_COMMIT:
            had_xid = TransactionIdIsValid(GetTopTransactionIdIfAny());
            break;
        case XACT_EVENT_COMMIT:
            if (had_xid)
                (void) wait_until_safe(XactLastCommitEnd, -1);
            break;
        case XACT_EVENT_PREPARE:
            (void) commit_wait_for_own_records(-1);
            break;
        default:
            break;
    }
}

void
commit_wait_install(void)
{
    RegisterXactCallback(at_transaction_end, NULL);
}
