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
 * The hooks here have the form that Postgres's own have in the newest major; hooks_N.c puts them
 * into the table of major N.
 *
 * Not here: what is asked for beforehand (readahead.c), who talks to the page server
 * (page_client.c), what bypasses the storage manager (bypass.c).
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogutils.h"
#include "hooks.h"
#include "hydrate.h"
#include "materialize.h"
#include "miscadmin.h"
#include "page_client.h"
#include "readahead.h"
#include "shim.h"
#include "storage/bufpage.h"
#include "storage/lwlock.h"
#include "storage/md.h"
#include "storage/smgr.h"
#include "version.h"

#define LOCKS 64
#define LOCK_TRANCHE "pagestore_hydrate"

static LWLockPadded *locks;

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
    reln = smgropen(remote_fork_node(fork), INVALID_PROC_NUMBER);
    LWLockAcquire(lock, LW_EXCLUSIVE);
    if (remote_map_is_remote(fork, block))
    {
        const void *one = page;

        /* Not to be synced: when the machine crashes, the directory is thrown away. */
        mdwritev(reln, fork->fork, block, &one, 1, true);
        remote_map_clear(fork, block);
    }
    LWLockRelease(lock);
}

/* The hooks */

static const RemoteFork *
fork_of(SMgrRelation reln, ForkNumber fork)
{
    return SmgrIsTemp(reln) ? NULL : remote_map_find(reln->smgr_rlocator.locator, fork);
}

const RemoteFork *
hydrate_lay(SMgrRelation reln, ForkNumber forknum)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    if (fork != NULL)
        materialize_fork(fork);
    return fork;
}

static bool
any_remote(const RemoteFork *fork, BlockNumber first, BlockNumber end)
{
    for (BlockNumber block = first; block < end; block++)
        if (remote_map_is_remote(fork, block))
            return true;
    return false;
}

/* Has the block in its file. */
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

const char *
hydrate_hot_page(SMgrRelation reln, ForkNumber forknum, BlockNumber block)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    return fork != NULL && remote_map_is_remote(fork, block) ? remote_map_hot_page(fork, block)
                                                             : NULL;
}

void
hydrate_make_local(SMgrRelation reln, ForkNumber forknum, BlockNumber block, BlockNumber nblocks)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    if (fork == NULL)
        return;
    if (!any_remote(fork, block, block + nblocks))
        readahead_local(fork, block, nblocks);
    else
    {
        pgaio_submit_staged(); /* others may wait for these while we wait for the page server */
        /* Recovery locks nothing against removal: it asks for what it needs, and no more. */
        if (!InRecovery)
            readahead_remote(fork, block, nblocks);
        for (BlockNumber each = block; each < block + nblocks; each++)
            bring(fork, each);
    }
    materialize_fork(fork);
}

void
hydrate_readv(SMgrRelation reln, ForkNumber forknum, BlockNumber block, void **buffers,
              BlockNumber nblocks)
{
    const char *hot = nblocks == 1 ? hydrate_hot_page(reln, forknum, block) : NULL;

    if (hot != NULL)
    {
        memcpy(buffers[0], hot, BLCKSZ);
        return;
    }
    hydrate_make_local(reln, forknum, block, nblocks);
    mdreadv(reln, forknum, block, buffers, nblocks);
}

bool
hydrate_prefetch(SMgrRelation reln, ForkNumber forknum, BlockNumber block, int nblocks)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    if (fork == NULL || !any_remote(fork, block, block + nblocks))
    {
        if (fork != NULL)
            materialize_fork(fork);
        return mdprefetch(reln, forknum, block, nblocks);
    }
    for (BlockNumber each = block; each < block + nblocks && !InRecovery; each++)
        if (remote_map_is_remote(fork, each) && remote_map_hot_page(fork, each) == NULL)
            readahead_gather(fork, each);
    return true;
}

static void
write_remote(SMgrRelation reln, const RemoteFork *fork, BlockNumber block, const void **buffer,
             bool skip_fsync)
{
    LWLock *lock = hydrate_lock(fork, block);

    LWLockAcquire(lock, LW_EXCLUSIVE);
    mdwritev(reln, fork->fork, block, buffer, 1, skip_fsync);
    remote_map_clear(fork, block);
    LWLockRelease(lock);
}

void
hydrate_writev(SMgrRelation reln, ForkNumber forknum, BlockNumber block, const void **buffers,
               BlockNumber nblocks, bool skip_fsync)
{
    const RemoteFork *fork = hydrate_lay(reln, forknum);

    if (forknum == FSM_FORKNUM && !SmgrIsTemp(reln))
        for (BlockNumber i = 0; i < nblocks; i++)
            fsm_log_note_write(reln->smgr_rlocator.locator, block + i);
    if (fork == NULL || !any_remote(fork, block, block + nblocks))
    {
        mdwritev(reln, forknum, block, buffers, nblocks, skip_fsync);
        return;
    }
    for (BlockNumber i = 0; i < nblocks; i++)
        if (remote_map_is_remote(fork, block + i))
            write_remote(reln, fork, block + i, &buffers[i], skip_fsync);
        else
            mdwritev(reln, forknum, block + i, &buffers[i], 1, skip_fsync);
}

void
hydrate_truncate(SMgrRelation reln, ForkNumber forknum, BlockNumber old_nblocks,
                 BlockNumber nblocks)
{
    const RemoteFork *fork = hydrate_lay(reln, forknum);

    if (fork == NULL || !any_remote(fork, nblocks, fork->nblocks))
    {
        mdtruncate(reln, forknum, old_nblocks, nblocks);
        return;
    }
    lock_all();
    mdtruncate(reln, forknum, old_nblocks, nblocks);
    remote_map_clear_from(fork, nblocks);
    unlock_all();
}

typedef void (*OldTruncate)(SMgrRelation reln, ForkNumber forknum, BlockNumber nblocks);

void
hydrate_old_truncate(SMgrRelation reln, ForkNumber forknum, BlockNumber nblocks)
{
    const RemoteFork *fork = hydrate_lay(reln, forknum);
    OldTruncate stock = (OldTruncate) (void *) mdtruncate;

    if (fork == NULL || !any_remote(fork, nblocks, fork->nblocks))
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
    if (!any_remote(fork, 0, fork->nblocks))
        return;
    remote_map_clear_from(fork, 0);
    lock_all();
    unlock_all();
}

/* The file is made only to be removed: what a removal leaves behind is Postgres's affair. */
static void
unlink_fork(RelFileLocator locator, ForkNumber forknum)
{
    const RemoteFork *fork = remote_map_find(locator, forknum);

    if (fork == NULL)
        return;
    materialize_fork(fork);
    forget_fork(fork);
}

void
hydrate_unlink(RelFileLocatorBackend rlocator, ForkNumber forknum, bool is_redo)
{
    if (!RelFileLocatorBackendIsTemp(rlocator))
    {
        if (forknum != InvalidForkNumber)
            unlink_fork(rlocator.locator, forknum);
        else
            for (ForkNumber each = 0; each <= MAX_FORKNUM; each++)
                unlink_fork(rlocator.locator, each);
    }
    mdunlink(rlocator, forknum, is_redo);
}

/* DROP DATABASE removes files past us; much later their numbers may be used again. */
void
hydrate_create(SMgrRelation reln, ForkNumber forknum, bool is_redo)
{
    const RemoteFork *fork = hydrate_lay(reln, forknum);

    mdcreate(reln, forknum, is_redo);
    if (!is_redo && fork != NULL)
        forget_fork(fork);
}

bool
hydrate_exists(SMgrRelation reln, ForkNumber forknum)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    return (fork != NULL && !remote_map_has_file(fork)) || mdexists(reln, forknum);
}

BlockNumber
hydrate_nblocks(SMgrRelation reln, ForkNumber forknum)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    return fork != NULL && !remote_map_has_file(fork) ? fork->nblocks : mdnblocks(reln, forknum);
}

void
hydrate_extend(SMgrRelation reln, ForkNumber forknum, BlockNumber block, const void *buffer,
               bool skip_fsync)
{
    hydrate_lay(reln, forknum);
    mdextend(reln, forknum, block, buffer, skip_fsync);
}

void
hydrate_writeback(SMgrRelation reln, ForkNumber forknum, BlockNumber block, BlockNumber nblocks)
{
    const RemoteFork *fork = fork_of(reln, forknum);

    if (fork == NULL || remote_map_has_file(fork))
        mdwriteback(reln, forknum, block, nblocks);
}

/* Whole databases */

static void
hydrate_fork(const RemoteFork *fork)
{
    materialize_fork(fork);
    for (BlockNumber first = 0; first < fork->nblocks; first += PAGE_BATCH_MAX)
    {
        BlockNumber end = Min(first + PAGE_BATCH_MAX, fork->nblocks);

        readahead_ask(fork, first, end);
        readahead_ask(fork, end, end + PAGE_BATCH_MAX);
        for (BlockNumber block = first; block < end; block++)
            bring(fork, block);
    }
}

void
hydrate_database(Oid db)
{
    remote_map_each_of_database(db, hydrate_fork);
}
