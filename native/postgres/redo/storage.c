/*
 * Storage for redo without files.
 *
 * A redo routine reads every block its record refers to. We have one of them, the target.
 * For any other, "read" gives a *skip page*: an initialised page whose LSN is the largest
 * there is, so that the routine finds its change already applied and leaves the page alone.
 *
 * Pages live in the server's own small buffer pool. A buffer may be evicted in the middle of
 * a chain: "write" keeps the target's page and "read" gives it back; others are dropped. So:
 *
 *   - outside a request, every valid buffer holds a skip page (or the like: bits of a free
 *     space map set on one do no harm);
 *   - during a request, that holds for every buffer but the target's, except between a record
 *     that initialises a block (WILL_INIT, or an image) and the redo_storage_skip after it.
 */
#include "postgres.h"

#include "storage.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/md.h"
#include "storage/smgr.h"
#include "version.h"

static RedoTarget target;
static char *target_page; /* where an evicted target is kept */
static char *skip_page;

bool
redo_storage_is_target(RelFileLocator rlocator, ForkNumber fork, BlockNumber block)
{
    return block == target.block && fork == target.fork &&
           RelFileLocatorEquals(rlocator, target.rlocator);
}

const char *
redo_storage_page(SMgrRelation reln, ForkNumber fork, BlockNumber block)
{
    bool wanted = redo_storage_is_target(reln->smgr_rlocator.locator, fork, block);
    return wanted ? target_page : skip_page;
}

void
redo_readv(SMgrRelation reln, ForkNumber fork, BlockNumber block, void **buffers, BlockNumber n)
{
    for (BlockNumber i = 0; i < n; i++)
        memcpy(buffers[i], redo_storage_page(reln, fork, block + i), BLCKSZ);
}

void
redo_writev(SMgrRelation reln, ForkNumber fork, BlockNumber block, const void **buffers,
            BlockNumber n, bool skip_fsync)
{
    for (BlockNumber i = 0; i < n; i++)
        if (redo_storage_is_target(reln->smgr_rlocator.locator, fork, block + i))
            memcpy(target_page, buffers[i], BLCKSZ);
}

void
redo_extend(SMgrRelation reln, ForkNumber fork, BlockNumber block, const void *buffer,
            bool skip_fsync)
{
    elog(ERROR, "redo tried to extend a relation");
}

BlockNumber
redo_nblocks(SMgrRelation reln, ForkNumber fork)
{
    return MaxBlockNumber;
}

bool
redo_exists(SMgrRelation reln, ForkNumber fork)
{
    return true;
}

bool
redo_prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber block, int n)
{
    return true;
}

void
redo_close(SMgrRelation reln, ForkNumber fork)
{
}

void
redo_create(SMgrRelation reln, ForkNumber fork, bool is_redo)
{
}

void
redo_unlink(RelFileLocatorBackend rlocator, ForkNumber fork, bool is_redo)
{
}

void
redo_writeback(SMgrRelation reln, ForkNumber fork, BlockNumber block, BlockNumber count)
{
}

void
redo_truncate(SMgrRelation reln, ForkNumber fork, BlockNumber old_blocks, BlockNumber blocks)
{
}

void
redo_storage_init(char *pages)
{
    target_page = pages;
    skip_page = pages + BLCKSZ;
    PageInit(skip_page, BLCKSZ, 0);
    PageSetLSN(skip_page, PG_UINT64_MAX);
}

/* Pinned and locked; its content is whatever the caller then puts there. */
static Buffer
buffer_to_fill(RelFileLocator rlocator, ForkNumber fork, BlockNumber block)
{
    return ReadBufferWithoutRelcache(rlocator, fork, block, RBM_ZERO_AND_LOCK, NULL, true);
}

void
redo_storage_begin(const RedoTarget *new_target, const char *base)
{
    target = *new_target;
    Buffer buffer = buffer_to_fill(target.rlocator, target.fork, target.block);
    if (base != NULL)
        memcpy(BufferGetPage(buffer), base, BLCKSZ);
    else
        memset(BufferGetPage(buffer), 0, BLCKSZ);
    MarkBufferDirty(buffer);
    UnlockReleaseBuffer(buffer);
}

Buffer
redo_storage_pin_target(void)
{
    return ReadBufferWithoutRelcache(target.rlocator, target.fork, target.block, RBM_NORMAL, NULL,
                                     true);
}

void
redo_storage_end(char *page)
{
    Buffer buffer = redo_storage_pin_target();
    memcpy(page, BufferGetPage(buffer), BLCKSZ);
    memcpy(BufferGetPage(buffer), skip_page, BLCKSZ);
    ReleaseBuffer(buffer);
    target.block = InvalidBlockNumber;
}

void
redo_storage_skip(RelFileLocator rlocator, ForkNumber fork, BlockNumber block)
{
    Buffer buffer = buffer_to_fill(rlocator, fork, block);
    memcpy(BufferGetPage(buffer), skip_page, BLCKSZ);
    UnlockReleaseBuffer(buffer);
}

void
redo_storage_forget_relations(void)
{
    smgrdestroyall();
}
