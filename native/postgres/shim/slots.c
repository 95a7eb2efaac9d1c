/*
 * Replication slots that outlive their compute.
 *
 * Problem: a slot is a file of the data directory, and a compute's directory is thrown away. So
 * every state of a slot that Postgres makes durable is also logged, as a record that the page
 * server keeps under the slot's name as of that LSN, and the next directory has it again. A
 * logged state is the file itself, and for a logical slot the snapshot of running transactions
 * at its restart_lsn, without which decoding could not begin there.
 *
 * The record: a logical message of no database. Decoding hands messages to the slots of their
 * own database only, so no output plugin sees it; and no session can write one, since a
 * session's message names its database.
 *
 * When: Postgres makes a state durable by renaming a file, so we hook rename(). The record is
 * thereby in the WAL before the state is acted upon: catalog rows that an older state still
 * needs are removed by later records only. What was logged last is what the next compute
 * begins with, and as in stock Postgres that may be older than what a consumer has
 * confirmed, never newer.
 *
 * When not: WAL written by the checkpointer at shutdown would be a PANIC. So dirty slots are saved
 * before, by the worker of fsm_log.c. Temporary slots, and those that safekeepers use, end with
 * their compute.
 *
 * The bound: slots hold back WAL, here and at the safekeepers. One that holds back more than
 * pagestore.slot_wal_keep_size is invalidated as by max_slot_wal_keep_size, but never on account
 * of a safekeeper that lags behind itself.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "imports.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "replication/message.h"
#include "replication/slot.h"
#include "replication/walsender_private.h"
#include "shim.h"
#include "storage/fd.h"
#include "utils/builtins.h"

#define DIRECTORY "pg_replslot/"
#define OUR_SLOTS "_pagestore_" /* native/core/receiver/receiver.h */
#define RESERVED 8              /* slots of safekeepers, beyond those that a user asked for */
#define MAX_STATE 4096
#define MAX_SNAPSHOT (16 << 20)
#define DURABLE_MS 10000

/* Postgres's file, but for what stands behind the persistent data (slot.c). */
typedef struct StateFile
{
    uint32 magic;
    pg_crc32c checksum;
    uint32 version;
    uint32 length;
    ReplicationSlotPersistentData data;
} StateFile;

typedef struct Message
{
    NameData name;
    uint32 state_length; /* 0: the slot was dropped */
    uint32 snapshot_length;
} Message;

static char prefix[] = "pagestore.slot";
static NameData newborn; /* a slot of this process's making that is not persistent yet */

static bool
may_log(void)
{
    if (!XLogInsertAllowed())
        return false;
    if (MyBackendType == B_CHECKPOINTER && ShutdownRequestPending)
        return false;
    return MyWalSnd == NULL || MyWalSnd->state != WALSNDSTATE_STOPPING;
}

/* What a file holds, at most `limit` bytes of it; NULL where there is none. */
static char *
read_whole(const char *path, size_t limit, uint32 *length)
{
    int fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
    struct stat status;
    char *content;

    *length = 0;
    if (fd < 0 && errno == ENOENT)
        return NULL;
    if (fd < 0 || fstat(fd, &status) != 0)
        ereport(ERROR, (errcode_for_file_access(), errmsg("could not read file \"%s\": %m", path)));
    if ((size_t) status.st_size > limit)
        ereport(ERROR,
                (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                 errmsg("the file \"%s\" is too large to be kept over a stop", path)));
    content = palloc(status.st_size + 1);
    if (read(fd, content, status.st_size) != status.st_size)
        ereport(ERROR, (errcode_for_file_access(), errmsg("could not read file \"%s\": %m", path)));
    CloseTransientFile(fd);
    *length = status.st_size;
    return content;
}

static XLogRecPtr
log_message(Message *message, char *state, char *snapshot)
{
    xl_logical_message head = {.dbId = InvalidOid,
                               .transactional = false,
                               .prefix_size = sizeof prefix,
                               .message_size = sizeof *message + message->state_length +
                                               message->snapshot_length};

    XLogBeginInsert();
    XLogRegisterData((char *) &head, SizeOfLogicalMessage);
    XLogRegisterData(prefix, sizeof prefix);
    XLogRegisterData((char *) message, sizeof *message);
    if (message->state_length > 0)
        XLogRegisterData(state, message->state_length);
    if (message->snapshot_length > 0)
        XLogRegisterData(snapshot, message->snapshot_length);
    return XLogInsert(RM_LOGICALMSG_ID, XLOG_LOGICAL_MESSAGE);
}

/* The state file in a slot's directory; NULL for a slot that is not to be kept. */
static char *
read_state(const char *directory, uint32 *length)
{
    char path[MAXPGPATH];
    char *state;

    snprintf(path, sizeof path, "%s/state", directory);
    state = read_whole(path, MAX_STATE, length);
    if (state == NULL || *length < sizeof(StateFile) ||
        ((StateFile *) state)->data.persistency != RS_PERSISTENT)
        return NULL;
    return state;
}

static char *
read_snapshot(const ReplicationSlotPersistentData *slot, uint32 *length)
{
    char path[MAXPGPATH];

    *length = 0;
    if (!OidIsValid(slot->database) || slot->restart_lsn == InvalidXLogRecPtr)
        return NULL;
    snprintf(path, sizeof path, "pg_logical/snapshots/%X-%X.snap",
             LSN_FORMAT_ARGS(slot->restart_lsn));
    return read_whole(path, MAX_SNAPSHOT, length);
}

/* Whoever makes a logical slot may rely on it when it is told of it. A physical one is made under
 * a lock that safekeepers need, too, so nobody waits for it. */
static void
make_durable(const Message *message, XLogRecPtr lsn)
{
    if (strcmp(NameStr(newborn), NameStr(message->name)) != 0)
    {
        XLogSetAsyncXactLSN(lsn);
        return;
    }
    NameStr(newborn)[0] = '\0';
    XLogFlush(lsn);
    if (!commit_wait_for_own_records(DURABLE_MS))
        ereport(WARNING,
                (errmsg("the replication slot \"%s\" is not durable yet", NameStr(message->name)),
                 errdetail("The safekeepers have not confirmed it within %d seconds.",
                           DURABLE_MS / 1000)));
}

/* Whether there was something to log. */
static bool
log_changed(const char *name, const char *directory)
{
    Message message = {0};
    char *state = read_state(directory, &message.state_length);
    char *snapshot;
    XLogRecPtr lsn;

    if (state == NULL)
        return false;
    namestrcpy(&message.name, name);
    snapshot = read_snapshot(&((StateFile *) state)->data, &message.snapshot_length);
    lsn = log_message(&message, state, snapshot);
    make_durable(&message, lsn);
    pfree(state);
    if (snapshot != NULL)
        pfree(snapshot);
    return true;
}

static void
log_dropped(const char *name, const char *directory)
{
    Message message = {0};
    uint32 length;

    if (read_state(directory, &length) == NULL)
        return;
    namestrcpy(&message.name, name);
    XLogSetAsyncXactLSN(log_message(&message, NULL, NULL));
}

/* "N" of "pg_replslot/N<ending>", where that is a path of this form; else false. */
static bool
slot_of(const char *path, const char *ending, char *name)
{
    size_t length = strlen(path), end = strlen(ending), begin = sizeof DIRECTORY - 1;

    if (length <= begin + end || length - begin - end >= NAMEDATALEN ||
        strncmp(path, DIRECTORY, begin) != 0 || strcmp(path + length - end, ending) != 0)
        return false;
    memcpy(name, path + begin, length - begin - end);
    name[length - begin - end] = '\0';
    return strpbrk(name, "./") == NULL;
}

static void
renamed(const char *from, const char *to)
{
    char name[NAMEDATALEN], directory[MAXPGPATH];

    if (slot_of(to, "/state", name))
    {
        snprintf(directory, sizeof directory, DIRECTORY "%s", name);
        (void) log_changed(name, directory);
    }
    else if (slot_of(from, ".tmp", name) && slot_of(to, "", name))
    {
        if (!log_changed(name, to))
            namestrcpy(&newborn, name);
    }
    else if (slot_of(from, "", name) && slot_of(to, ".tmp", name))
        log_dropped(name, to);
}

static bool
is_ours(const char *name)
{
    return strncmp(name, OUR_SLOTS, sizeof OUR_SLOTS - 1) == 0;
}

static int
shim_rename(const char *from, const char *to)
{
    size_t begin = sizeof DIRECTORY - 1;
    int result = rename(from, to);

    if (result == 0 && strncmp(to, DIRECTORY, begin) == 0 && !is_ours(to + begin) && may_log())
        renamed(from, to);
    return result;
}

void
slots_save(void)
{
    CheckPointReplicationSlots(false);
}

/* The oldest WAL that slots of one kind need; UINT64_MAX where none does. */
static XLogRecPtr
oldest_needed(bool ours)
{
    XLogRecPtr oldest = PG_UINT64_MAX;

    LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
    for (int i = 0; i < max_replication_slots; i++)
    {
        ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
        XLogRecPtr needed;

        if (!slot->in_use || is_ours(NameStr(slot->data.name)) != ours)
            continue;
        SpinLockAcquire(&slot->mutex);
        needed = slot->data.restart_lsn;
        SpinLockRelease(&slot->mutex);
        if (needed != InvalidXLogRecPtr)
            oldest = Min(oldest, needed);
    }
    LWLockRelease(ReplicationSlotControlLock);
    return oldest;
}

void
slots_check_bound(void)
{
    XLogRecPtr end = GetXLogInsertRecPtr();
    XLogRecPtr kept = (XLogRecPtr) shim_settings.slot_wal_keep_mb << 20;
    XLogRecPtr bound;
    XLogSegNo segment;

    if (end <= kept || oldest_needed(false) >= end - kept)
        return;
    bound = Min(end - kept, oldest_needed(true));
    XLByteToSeg(bound, segment, wal_segment_size);
    InvalidateObsoleteReplicationSlots(RS_INVAL_WAL_REMOVED, segment, InvalidOid,
                                       InvalidTransactionId);
}

void
slots_install(void)
{
    import_take_over("rename", rename, shim_rename);
    max_replication_slots += RESERVED;
}
