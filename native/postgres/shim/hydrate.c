/*
 * Hydration: a compute's relation files are sparse copies whose blocks arrive as they are read.
 *
 * Problem: stock Postgres keeps much in its files that no WAL holds (hint bits, the free space
 * map, pages of an unfinished index build, combo cids), so what a compute has written must be
 * read back from its own files. Only what nobody here has written yet may come from the page
 * server. The remote map has a bit for each such block.
 *
 * Invariants.
 *   1. A bit is only ever cleared, and only once the file holds the block's content (or the
 *      block is gone). Blocks that the compute adds never have one.
 *   2. A page from the page server is stored only while its bit is set, and both happen under
 *      the block's lock. "write" takes that lock too while the bit is set. So a page read ahead
 *      never overwrites what another backend has read, changed and written meanwhile.
 *   3. Once a bit is seen clear it stays clear: a read or write of such a block takes no lock and
 *      is a stock read or write.
 *   4. A file is cut or removed with all locks held or passed after the bits were cleared, so
 *      that no page is stored behind its new end.
 *   5. A fork's file is made when something is to be written to it, or asked of the file itself;
 *      until then the map answers whether it exists and how long it is. No hook passes a fork that
 *      is not made on to md.c, which would not find it.
 *
 * A *hot* page came with the map. It is read from there, its bit still set, until the block is
 * written; so what a start only reads makes no file.
 *
 * The lock is never held while waiting for the page server: fetch first, then lock and store.
 *
 * Reading ahead. A scan is a run of reads of block after block by this process. Its window grows
 * from 8 blocks to pagestore.readahead, and the next window is asked for as soon as the scan
 * enters the last one, so that one is always on its way. In a parallel query each process scans
 * a chunk, then jumps ahead to its next; there a window ends where the chunk does, for what
 * follows is another's. Blocks named by PrefetchBuffer are gathered and asked for together when
 * one of them is read or there are enough.
 *
 * Not here: who talks to the page server (page_client.c), what bypasses the storage manager
 * (bypass.c).
 */
#include "postgres.h"

#include <dlfcn.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogutils.h"
#include "hydrate.h"
#include "materialize.h"
#include "miscadmin.h"
#include "page_client.h"
#include "port/pg_bitutils.h"
#include "shim.h"
#include "smgr_table.h"
#include "storage/bufpage.h"
#include "storage/lwlock.h"
#include "storage/md.h"
#include "storage/smgr.h"
#include "version.h"

#define LOCKS 64
#define LOCK_TRANCHE "pagestore_hydrate"
#define SCANS 8
#define FIRST_WINDOW 8
#define SMALL_FORK 8      /* blocks: brought whole at the first read */
#define IDLE_WINDOWS 4    /* a scan that finds so many windows already here is left alone */
#define GATHERED_MAX 32

/* How a parallel scan deals out a table (heapam.c, tableam.c): so many chunks, if they are not
 * too large. */
#define PARALLEL_CHUNKS 2048
#define SMALLEST_CHUNK 4
#define LARGEST_CHUNK 8192

typedef struct Scan
{
    const RemoteFork *fork;
    BlockNumber last;    /* the block read last */
    BlockNumber marker;  /* where the last window begins: reading it asks for the next one */
    BlockNumber end;     /* all remote blocks before it have been asked for */
    int window;          /* 0: only one block was read so far */
    int idle_windows;
} Scan;

static LWLockPadded *locks;
static Scan scans[SCANS];
static int nscans;
static int next_victim;

static struct
{
    const RemoteFork *fork;
    int nblocks;
    BlockNumber blocks[GATHERED_MAX];
} gathered;

/* Locks */

LWLock *
hydrate_lock(const RemoteFork *fork, BlockNumber block)
{
    return &locks[(fork->first_bit + block) / 64 % LOCKS].lock;
}

static void
lock_all(void)
{
    for (int i = 0; i < LOCKS; i++)
        LWLockAcquire(&locks[i].lock, LW_EXCLUSIVE);
}

static void
unlock_all(void)
{
    for (int i = LOCKS - 1; i >= 0; i--)
        LWLockRelease(&locks[i].lock);
}

void
hydrate_request_shmem(void)
{
    RequestNamedLWLockTranche(LOCK_TRANCHE, LOCKS);
}

void
hydrate_init_shmem(void)
{
    locks = GetNamedLWLockTranche(LOCK_TRANCHE);
}

void
hydrate_store(const RemoteFork *fork, BlockNumber block, char *page)
{
    SMgrRelation reln;
    LWLock *lock = hydrate_lock(fork, block);

    /* Without the lock, since it stays clear (3): most that came too late ends here. */
    if (!remote_map_is_remote(fork, block))
        return;
    materialize_fork(fork);
    /* The page server has pages as redo makes them, and redo computes no checksums. */
    if (DataChecksumsEnabled())
        PageSetChecksumInplace((Page) page, block);
    reln = smgropen(remote_fork_node(fork), InvalidBackendId);
    LWLockAcquire(lock, LW_EXCLUSIVE);
    if (remote_map_is_remote(fork, block))
    {
        /* Not to be synced: when the machine crashes, the directory is thrown away. */
        mdwrite(reln, fork->fork, block, page, true);
        remote_map_clear(fork, block);
    }
    LWLockRelease(lock);
}

/* Reading ahead */

static const RemoteFork *
fork_of(SMgrRelation reln, ForkNumber fork)
{
    return SmgrIsTemp(reln) ? NULL : remote_map_find(reln->smgr_rnode.node, fork);
}

/* The remote blocks of [first, end) that are not on their way yet, at most PAGE_BATCH_MAX. */
static int
collect_remote(const RemoteFork *fork, BlockNumber first, BlockNumber end, BlockNumber *blocks)
{
    int n = 0;

    end = Min(end, fork->nblocks);
    for (BlockNumber block = first; block < end && n < PAGE_BATCH_MAX; block++)
        if (remote_map_is_remote(fork, block) && remote_map_hot_page(fork, block) == NULL &&
            !page_client_expects(fork, block))
            blocks[n++] = block;
    return n;
}

static int
ask_for(const RemoteFork *fork, BlockNumber first, BlockNumber end)
{
    BlockNumber blocks[PAGE_BATCH_MAX];
    int n = collect_remote(fork, first, end, blocks);

    if (n > 0)
        page_client_request(fork, blocks, n);
    return n;
}

static void
drop_scan(Scan *scan)
{
    *scan = scans[--nscans];
}

/* The blocks of a chunk of a parallel scan; 0 outside of parallel queries. */
static BlockNumber
chunk_size(const RemoteFork *fork)
{
    if (!IsInParallelMode())
        return 0;
    return Min(pg_nextpower2_32(Max(fork->nblocks / PARALLEL_CHUNKS, SMALLEST_CHUNK)),
               LARGEST_CHUNK);
}

/* Asks for the window after `end`. The scan may be dropped: it is done, or needs no help. */
static void
ask_next_window(Scan *scan, BlockNumber chunk)
{
    BlockNumber first = Max(scan->end, scan->last);
    BlockNumber limit = chunk == 0 ? scan->fork->nblocks : (scan->last / chunk + 1) * chunk;

    scan->window = Min(Max(scan->window * 2, FIRST_WINDOW), shim_settings.readahead);
    scan->marker = first;
    scan->end = Max(first, Min(first + scan->window, limit));
    if (ask_for(scan->fork, first, scan->end) > 0)
        scan->idle_windows = 0;
    else if (scan->end > first)
        scan->idle_windows++;
    if (scan->idle_windows > IDLE_WINDOWS || first >= scan->fork->nblocks)
        drop_scan(scan);
}

/* Whether a read continues a scan: the next block, or the first of a later chunk. */
static bool
continues(const Scan *scan, BlockNumber block, BlockNumber chunk)
{
    return block == scan->last + 1 ||
           (chunk > 0 && scan->window > 0 && block > scan->last && block % chunk == 0);
}

/* Notes a read; true when it belongs to a scan, whose next window is then on its way. */
static bool
note_read(const RemoteFork *fork, BlockNumber block)
{
    BlockNumber chunk = chunk_size(fork);

    for (int i = 0; i < nscans; i++)
    {
        Scan *scan = &scans[i];

        if (scan->fork != fork || !continues(scan, block, chunk))
            continue;
        scan->last = block;
        if (scan->window == 0 || block >= scan->marker)
            ask_next_window(scan, chunk);
        return true;
    }
    return false;
}

static void
begin_scan(const RemoteFork *fork, BlockNumber block)
{
    Scan *scan;

    if (nscans < SCANS)
        scan = &scans[nscans++];
    else
        scan = &scans[next_victim++ % SCANS];
    *scan = (Scan){.fork = fork, .last = block, .end = block + 1};
}

void
hydrate_forget_reading_ahead(void)
{
    nscans = 0;
    gathered.nblocks = 0;
}

/* Prefetching */

static void
ask_gathered(void)
{
    BlockNumber blocks[GATHERED_MAX];
    int n = 0;

    for (int i = 0; i < gathered.nblocks; i++)
        if (remote_map_is_remote(gathered.fork, gathered.blocks[i]))
            blocks[n++] = gathered.blocks[i];
    gathered.nblocks = 0;
    if (n > 0)
        page_client_request(gathered.fork, blocks, n);
    page_client_poll();
}

static bool
is_gathered(const RemoteFork *fork, BlockNumber block)
{
    for (int i = 0; i < gathered.nblocks; i++)
        if (gathered.blocks[i] == block && gathered.fork == fork)
            return true;
    return false;
}

static void
gather(const RemoteFork *fork, BlockNumber block)
{
    if (gathered.nblocks > 0 && gathered.fork != fork)
        ask_gathered();
    if (is_gathered(fork, block) || page_client_expects(fork, block))
        return;
    gathered.fork = fork;
    gathered.blocks[gathered.nblocks++] = block;
    if (gathered.nblocks == GATHERED_MAX)
        ask_gathered();
}

/* The hooks */

static void
read_remote(const RemoteFork *fork, BlockNumber block)
{
    /* Recovery locks nothing against removal: it asks for what it needs, and no more. */
    if (!InRecovery)
    {
        if (is_gathered(fork, block))
            ask_gathered();
        if (fork->nblocks <= SMALL_FORK)
            ask_for(fork, 0, fork->nblocks);
        else if (shim_settings.readahead > 0 && !note_read(fork, block))
            begin_scan(fork, block);
        else if (shim_settings.readahead > 0 && !page_client_expects(fork, block))
            /* its window was lost with a connection */
            ask_for(fork, block, block + Min(FIRST_WINDOW, shim_settings.readahead));
    }
    page_client_fetch(fork, &block, 1);
}

static void
shim_read(SMgrRelation reln, ForkNumber forknum, BlockNumber block, char *buffer)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    if (fork != NULL)
    {
        if (remote_map_is_remote(fork, block))
        {
            const char *page = remote_map_hot_page(fork, block);

            if (page != NULL)
            {
                memcpy(buffer, page, BLCKSZ);
                return;
            }
            read_remote(fork, block);
        }
        else if (nscans > 0)
            note_read(fork, block);
        materialize_fork(fork);
    }
    mdread(reln, forknum, block, buffer);
}

static bool
shim_prefetch(SMgrRelation reln, ForkNumber forknum, BlockNumber block)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    if (fork == NULL || !remote_map_is_remote(fork, block))
    {
        if (fork != NULL)
            materialize_fork(fork);
        return mdprefetch(reln, forknum, block);
    }
    if (!InRecovery && remote_map_hot_page(fork, block) == NULL)
        gather(fork, block);
    return true;
}

static void
shim_write(SMgrRelation reln, ForkNumber forknum, BlockNumber block, char *buffer,
           bool skip_fsync)
{
    const RemoteFork *fork = fork_of(reln, forknum);
    LWLock *lock;

    if (forknum == FSM_FORKNUM && !SmgrIsTemp(reln))
        fsm_log_note_write(reln->smgr_rnode.node, block);
    if (fork != NULL)
        materialize_fork(fork);
    if (fork == NULL || !remote_map_is_remote(fork, block))
    {
        mdwrite(reln, forknum, block, buffer, skip_fsync);
        return;
    }
    /* Else a page that another backend is just storing could overwrite this newer one (2). */
    lock = hydrate_lock(fork, block);
    LWLockAcquire(lock, LW_EXCLUSIVE);
    mdwrite(reln, forknum, block, buffer, skip_fsync);
    remote_map_clear(fork, block);
    LWLockRelease(lock);
}

static bool
any_remote(const RemoteFork *fork, BlockNumber first)
{
    for (BlockNumber block = first; block < fork->nblocks; block++)
        if (remote_map_is_remote(fork, block))
            return true;
    return false;
}

typedef void (*OldTruncate)(SMgrRelation reln, ForkNumber forknum, BlockNumber nblocks);

static void
shim_truncate(SMgrRelation reln, ForkNumber forknum, BlockNumber old_nblocks, BlockNumber nblocks)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    if (fork != NULL)
        materialize_fork(fork);
    if (fork == NULL || !any_remote(fork, nblocks))
    {
        mdtruncate(reln, forknum, old_nblocks, nblocks);
        return;
    }
    lock_all();
    mdtruncate(reln, forknum, old_nblocks, nblocks);
    remote_map_clear_from(fork, nblocks);
    unlock_all();
}

static void
shim_old_truncate(SMgrRelation reln, ForkNumber forknum, BlockNumber nblocks)
{
    const RemoteFork *fork = fork_of(reln, forknum);
    OldTruncate stock = (OldTruncate) (void *) mdtruncate;

    if (fork != NULL)
        materialize_fork(fork);
    if (fork == NULL || !any_remote(fork, nblocks))
    {
        stock(reln, forknum, nblocks);
        return;
    }
    lock_all();
    stock(reln, forknum, nblocks);
    remote_map_clear_from(fork, nblocks);
    unlock_all();
}

/* The fork's blocks are gone: nothing of it is remote, and nobody still stores any. */
static void
forget_fork(const RemoteFork *fork)
{
    if (!any_remote(fork, 0))
        return;
    remote_map_clear_from(fork, 0);
    /* Whoever saw a bit set before that is under some lock: who has had all, has waited for him. */
    lock_all();
    unlock_all();
}

/* The file is made only to be removed: what a removal leaves behind is Postgres's affair. */
static void
unlink_fork(RelFileNode node, ForkNumber forknum)
{
    const RemoteFork *fork = remote_map_find(node, forknum);

    if (fork == NULL)
        return;
    materialize_fork(fork);
    forget_fork(fork);
}

static void
shim_unlink(RelFileNodeBackend rnode, ForkNumber forknum, bool is_redo)
{
    if (!RelFileNodeBackendIsTemp(rnode))
    {
        if (forknum != InvalidForkNumber)
            unlink_fork(rnode.node, forknum);
        else
            for (ForkNumber each = 0; each <= MAX_FORKNUM; each++)
                unlink_fork(rnode.node, each);
    }
    mdunlink(rnode, forknum, is_redo);
}

/* DROP DATABASE removes files past us; much later their numbers may be used again. */
static void
shim_create(SMgrRelation reln, ForkNumber forknum, bool is_redo)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    if (fork != NULL)
        materialize_fork(fork);
    mdcreate(reln, forknum, is_redo);
    if (!is_redo && fork != NULL)
        forget_fork(fork);
}

static bool
shim_exists(SMgrRelation reln, ForkNumber forknum)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    return (fork != NULL && !remote_map_has_file(fork)) || mdexists(reln, forknum);
}

static BlockNumber
shim_nblocks(SMgrRelation reln, ForkNumber forknum)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    return fork != NULL && !remote_map_has_file(fork) ? fork->nblocks : mdnblocks(reln, forknum);
}

static void
shim_extend(SMgrRelation reln, ForkNumber forknum, BlockNumber block, char *buffer,
            bool skip_fsync)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    if (fork != NULL)
        materialize_fork(fork);
    mdextend(reln, forknum, block, buffer, skip_fsync);
}

static void
shim_writeback(SMgrRelation reln, ForkNumber forknum, BlockNumber block, BlockNumber nblocks)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    /* A file that is not there has nothing to be written back. */
    if (fork == NULL || remote_map_has_file(fork))
        mdwriteback(reln, forknum, block, nblocks);
}

void
hydrate_install(void)
{
    bool tells_old = dlsym(RTLD_DEFAULT, PAGESTORE_TRUNCATE_TELLS_OLD_LENGTH) != NULL;
    const SmgrHook hooks[] = {
        {PAGESTORE_SLOT_CREATE, mdcreate, shim_create},
        {PAGESTORE_SLOT_EXISTS, mdexists, shim_exists},
        {PAGESTORE_SLOT_UNLINK, mdunlink, shim_unlink},
        {PAGESTORE_SLOT_EXTEND, mdextend, shim_extend},
        {PAGESTORE_SLOT_PREFETCH, mdprefetch, shim_prefetch},
        {PAGESTORE_SLOT_READ, mdread, shim_read},
        {PAGESTORE_SLOT_WRITE, mdwrite, shim_write},
        {PAGESTORE_SLOT_WRITEBACK, mdwriteback, shim_writeback},
        {PAGESTORE_SLOT_NBLOCKS, mdnblocks, shim_nblocks},
        {PAGESTORE_SLOT_TRUNCATE, mdtruncate,
         tells_old ? (const void *) shim_truncate : (const void *) shim_old_truncate},
    };

    smgr_table_install(hooks, lengthof(hooks));
}

/* Whole databases */

static void
bring(const RemoteFork *fork, BlockNumber block)
{
    const char *hot = remote_map_hot_page(fork, block);
    PGAlignedBlock page;

    if (!remote_map_is_remote(fork, block))
        return;
    if (hot == NULL)
        page_client_fetch(fork, &block, 1);
    else
    {
        memcpy(page.data, hot, BLCKSZ);
        hydrate_store(fork, block, page.data);
    }
}

static void
hydrate_fork(const RemoteFork *fork)
{
    materialize_fork(fork);
    for (BlockNumber first = 0; first < fork->nblocks; first += PAGE_BATCH_MAX)
    {
        BlockNumber end = Min(first + PAGE_BATCH_MAX, fork->nblocks);

        ask_for(fork, first, end);
        ask_for(fork, end, end + PAGE_BATCH_MAX);
        for (BlockNumber block = first; block < end; block++)
            bring(fork, block);
    }
}

void
hydrate_database(Oid db)
{
    remote_map_each_of_database(db, hydrate_fork);
}
