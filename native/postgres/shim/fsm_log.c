/*
 * Free space maps across a stop.
 *
 * Problem: Postgres logs no change of a free space map; vacuum makes it anew after a crash. A
 * compute starts from the WAL alone, so without help every start would forget free space and
 * its tables would grow. So before a clean stop the changed pages are logged as full images,
 * which the page server keeps as it keeps any image.
 *
 * Who: a background worker of its own, on SIGTERM. The postmaster ends backends and workers
 * first and lets the checkpointer write the shutdown record only when all are gone, so what the
 * worker logs comes before it. (WAL written inside the checkpointer would be a PANIC.)
 *
 * Which pages: those written to a file since the start (noted by the write hook in a bounded
 * table in shared memory) and those still dirty in the buffer pool. A note too many for the
 * table is dropped, and an ERROR ends the worker: the maps are hints, and vacuum mends them.
 *
 * Not here: unlogged relations, which begin empty at the next start anyway.
 */
#include "postgres.h"

#include <dlfcn.h>
#include <unistd.h>

#include "access/xloginsert.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "shim.h"
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/smgr.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#define MAX_PAGES 4096
#define MAX_LOG_MS 1000
#define SLOTS_MS 10000 /* between looks at what replication slots hold back */
#define LOCK_TRANCHE "pagestore_fsm"
#define LIBRARY_LINK "./pagestore_shim.so"

typedef struct FsmPage
{
    RelFileLocator node;
    BlockNumber block;
} FsmPage;

static HTAB *written; /* of FsmPage, in shared memory */
static LWLock *written_lock;

Size
fsm_log_shmem_size(void)
{
    RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
    return hash_estimate_size(MAX_PAGES, sizeof(FsmPage));
}

void
fsm_log_shmem_init(void)
{
    HASHCTL control = {.keysize = sizeof(FsmPage), .entrysize = sizeof(FsmPage)};

    written_lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
    written = ShmemInitHash("pagestore written fsm pages", MAX_PAGES, MAX_PAGES, &control,
                            HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

void
fsm_log_note_write(RelFileLocator node, BlockNumber block)
{
    FsmPage page = {node, block};

    LWLockAcquire(written_lock, LW_EXCLUSIVE);
    hash_search(written, &page, HASH_ENTER_NULL, NULL);
    LWLockRelease(written_lock);
}

/* The pages to log, in `pages`, which has room for 2 * MAX_PAGES. */
static int
collect_pages(FsmPage *pages)
{
    HASH_SEQ_STATUS walk;
    FsmPage *entry;
    int n = 0;

    LWLockAcquire(written_lock, LW_SHARED);
    hash_seq_init(&walk, written);
    while ((entry = hash_seq_search(&walk)) != NULL)
        pages[n++] = *entry;
    LWLockRelease(written_lock);
    for (int i = 0; i < NBuffers && n < 2 * MAX_PAGES; i++)
    {
        BufferDesc *buffer = GetBufferDescriptor(i);
        uint32 state;

        if (buffer->tag.forkNum != FSM_FORKNUM) /* looked at again under the lock */
            continue;
        state = LockBufHdr(buffer);
        if ((state & BM_VALID) && (state & BM_DIRTY) && (state & BM_PERMANENT) &&
            buffer->tag.forkNum == FSM_FORKNUM)
            pages[n++] = (FsmPage){BufTagGetRelFileLocator(&buffer->tag), buffer->tag.blockNum};
        UnlockBufHdr(buffer, state);
    }
    return n;
}

static int
compare_pages(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(FsmPage));
}

static void
log_page(const FsmPage *page)
{
    SMgrRelation reln = smgropen(page->node, INVALID_PROC_NUMBER);
    PGAlignedBlock copy;
    RelFileLocator node = page->node;
    Buffer buffer;

    if (!smgrexists(reln, MAIN_FORKNUM) || smgrexists(reln, INIT_FORKNUM) ||
        !smgrexists(reln, FSM_FORKNUM) || smgrnblocks(reln, FSM_FORKNUM) <= page->block)
        return;
    buffer = ReadBufferWithoutRelcache(node, FSM_FORKNUM, page->block, RBM_NORMAL, NULL, true);
    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    memcpy(copy.data, BufferGetPage(buffer), BLCKSZ);
    UnlockReleaseBuffer(buffer);
    if (!PageIsNew((Page) copy.data))
        log_newpage(&node, FSM_FORKNUM, page->block, (Page) copy.data, false);
}

static void
log_changed_pages(void)
{
    FsmPage *pages = palloc(2 * MAX_PAGES * sizeof(FsmPage));
    int n = collect_pages(pages);
    instr_time begin;
    instr_time now;

    qsort(pages, n, sizeof(FsmPage), compare_pages);
    INSTR_TIME_SET_CURRENT(begin);
    for (int i = 0; i < n; i++)
    {
        if (i > 0 && compare_pages(&pages[i - 1], &pages[i]) == 0)
            continue;
        log_page(&pages[i]);
        INSTR_TIME_SET_CURRENT(now);
        INSTR_TIME_SUBTRACT(now, begin);
        if (INSTR_TIME_GET_MILLISEC(now) > MAX_LOG_MS)
        {
            ereport(LOG, (errmsg("pagestore: logged %d of %d changed pages of free space maps",
                                 i + 1, n)));
            break;
        }
    }
}

void
pagestore_fsm_main(Datum arg)
{
    pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
    BackgroundWorkerUnblockSignals();
    CurrentResourceOwner = ResourceOwnerCreate(NULL, "pagestore fsm");
    start_tell_when_attached();
    while (!ShutdownRequestPending)
    {
        (void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, SLOTS_MS,
                         PG_WAIT_EXTENSION);
        ResetLatch(MyLatch);
        CHECK_FOR_INTERRUPTS();
        if (!ShutdownRequestPending)
            slots_check_bound();
    }
    slots_save();
    log_changed_pages();
    proc_exit(0);
}

/* Where the worker finds this library; by a link in the data directory where that is long. */
static const char *
library_path(void)
{
    Dl_info info;

    if (dladdr((void *) pagestore_fsm_main, &info) == 0)
        elog(FATAL, "pagestore: could not find out where pagestore_shim was loaded from");
    if (strlen(info.dli_fname) < BGW_MAXLEN)
        return info.dli_fname;
    unlink(LIBRARY_LINK);
    if (symlink(info.dli_fname, LIBRARY_LINK) != 0)
        ereport(FATAL,
                (errcode_for_file_access(), errmsg("could not create \"%s\": %m", LIBRARY_LINK)));
    return LIBRARY_LINK;
}

void
fsm_log_register_worker(void)
{
    BackgroundWorker worker = {
        .bgw_flags = BGWORKER_SHMEM_ACCESS,
        .bgw_start_time = BgWorkerStart_RecoveryFinished,
        .bgw_restart_time = 1,
        .bgw_name = "pagestore free space map logger",
        .bgw_type = "pagestore free space map logger",
        .bgw_function_name = "pagestore_fsm_main",
    };

    strlcpy(worker.bgw_library_name, library_path(), BGW_MAXLEN);
    RegisterBackgroundWorker(&worker);
}
