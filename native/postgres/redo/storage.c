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

#include "smgr_table.h"
#include "storage.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/md.h"
#include "storage/smgr.h"
#include "version.h"

static RedoTarget target;
static PGAlignedBlock target_page; /* where an evicted target is kept */
static PGAlignedBlock skip_page;

bool
redo_storage_is_target(RelFileNode rnode, ForkNumber fork, BlockNumber block)
{
    return block == target.block && fork == target.fork && RelFileNodeEquals(rnode, target.rnode);
}

static void
redo_read(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer)
{
    bool wanted = redo_storage_is_target(reln->smgr_rnode.node, fork, block);
    memcpy(buffer, wanted ? target_page.data : skip_page.data, BLCKSZ);
}

static void
redo_write(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer, bool skip_fsync)
{
    if (redo_storage_is_target(reln->smgr_rnode.node, fork, block))
        memcpy(target_page.data, buffer, BLCKSZ);
}

static void
redo_extend(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer, bool skip_fsync)
{
    elog(ERROR, "redo tried to extend a relation");
}

static BlockNumber
redo_nblocks(SMgrRelation reln, ForkNumber fork)
{
    return MaxBlockNumber;
}

static bool
redo_exists(SMgrRelation reln, ForkNumber fork)
{
    return true;
}

static bool
redo_prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber block)
{
    return true;
}

static void
redo_close(SMgrRelation reln, ForkNumber fork)
{
}

static void
redo_create(SMgrRelation reln, ForkNumber fork, bool is_redo)
{
}

static void
redo_unlink(RelFileNodeBackend rnode, ForkNumber fork, bool is_redo)
{
}

static void
redo_writeback(SMgrRelation reln, ForkNumber fork, BlockNumber block, BlockNumber count)
{
}

static void
redo_truncate(SMgrRelation reln, ForkNumber fork, BlockNumber old_blocks, BlockNumber blocks)
{
}

static const SmgrHook hooks[] = {
    {PAGESTORE_SLOT_CLOSE, mdclose, redo_close},
    {PAGESTORE_SLOT_CREATE, mdcreate, redo_create},
    {PAGESTORE_SLOT_EXISTS, mdexists, redo_exists},
    {PAGESTORE_SLOT_UNLINK, mdunlink, redo_unlink},
    {PAGESTORE_SLOT_EXTEND, mdextend, redo_extend},
    {PAGESTORE_SLOT_PREFETCH, mdprefetch, redo_prefetch},
    {PAGESTORE_SLOT_READ, mdread, redo_read},
    {PAGESTORE_SLOT_WRITE, mdwrite, redo_write},
    {PAGESTORE_SLOT_WRITEBACK, mdwriteback, redo_writeback},
    {PAGESTORE_SLOT_NBLOCKS, mdnblocks, redo_nblocks},
    {PAGESTORE_SLOT_TRUNCATE, mdtruncate, redo_truncate},
};

void
redo_storage_install(void)
{
    smgr_table_install(hooks, lengthof(hooks));
    PageInit(skip_page.data, BLCKSZ, 0);
    PageSetLSN(skip_page.data, PG_UINT64_MAX);
}

/* Pinned and locked; its content is whatever the caller then puts there. */
static Buffer
buffer_to_fill(RelFileNode rnode, ForkNumber fork, BlockNumber block)
{
    return ReadBufferWithoutRelcache(rnode, fork, block, RBM_ZERO_AND_LOCK, NULL, true);
}

void
redo_storage_begin(const RedoTarget *new_target, const char *base)
{
    target = *new_target;
    Buffer buffer = buffer_to_fill(target.rnode, target.fork, target.block);
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
    return ReadBufferWithoutRelcache(target.rnode, target.fork, target.block, RBM_NORMAL, NULL,
                                     true);
}

void
redo_storage_end(char *page)
{
    Buffer buffer = redo_storage_pin_target();
    memcpy(page, BufferGetPage(buffer), BLCKSZ);
    memcpy(BufferGetPage(buffer), skip_page.data, BLCKSZ);
    ReleaseBuffer(buffer);
    target.block = InvalidBlockNumber;
}

void
redo_storage_skip(RelFileNode rnode, ForkNumber fork, BlockNumber block)
{
    Buffer buffer = buffer_to_fill(rnode, fork, block);
    memcpy(BufferGetPage(buffer), skip_page.data, BLCKSZ);
    UnlockReleaseBuffer(buffer);
}

void
redo_storage_forget_relations(void)
{
    smgrcloseall();
}
