/*
 * Postgres 18: reads that are started, and complete later.
 *
 * The buffer manager reads by startreadv alone; an I/O worker opens the file itself and past us,
 * so all blocks must be in the file before the read is started. A hot page, which is in no file
 * of its relation, is read from the map's, at once and in this process whatever io_method says.
 *
 * An ERROR is safe here: handle and buffers are released by their resource owner.
 */
#include "postgres.h"

#include "hooks.h"
#include "smgr_table.h"
#include "storage/aio.h"

static void
zeroextend(SMgrRelation reln, ForkNumber forknum, BlockNumber block, int nblocks, bool skip_fsync)
{
    hydrate_lay(reln, forknum);
    mdzeroextend(reln, forknum, block, nblocks, skip_fsync);
}

static void
start_hot(PgAioHandle *ioh, SMgrRelation reln, ForkNumber forknum, BlockNumber block,
          void *buffer, const char *hot)
{
    struct iovec *iov;

    pgaio_io_get_iovec(ioh, &iov);
    iov[0] = (struct iovec) {.iov_base = buffer, .iov_len = BLCKSZ};
    pgaio_io_set_flag(ioh, PGAIO_HF_SYNCHRONOUS | PGAIO_HF_BUFFERED);
    pgaio_io_set_target_smgr(ioh, reln, forknum, block, 1, false);
    pgaio_io_register_callbacks(ioh, PGAIO_HCB_MD_READV, 0);
    pgaio_io_start_readv(ioh, remote_map_file, 1, remote_map_offset(hot));
}

static void
startreadv(PgAioHandle *ioh, SMgrRelation reln, ForkNumber forknum, BlockNumber block,
           void **buffers, BlockNumber nblocks)
{
    const char *hot = nblocks == 1 ? hydrate_hot_page(reln, forknum, block) : NULL;

    if (hot != NULL)
    {
        start_hot(ioh, reln, forknum, block, buffers[0], hot);
        return;
    }
    hydrate_make_local(reln, forknum, block, nblocks);
    mdstartreadv(ioh, reln, forknum, block, buffers, nblocks);
}

void
hooks_install(void)
{
    const SmgrHook hooks[] = {
        {mdcreate, hydrate_create},       {mdexists, hydrate_exists},
        {mdunlink, hydrate_unlink},       {mdextend, hydrate_extend},
        {mdzeroextend, zeroextend},       {mdprefetch, hydrate_prefetch},
        {mdreadv, hydrate_readv},         {mdstartreadv, startreadv},
        {mdwritev, hydrate_writev},       {mdwriteback, hydrate_writeback},
        {mdnblocks, hydrate_nblocks},     {mdtruncate, hydrate_truncate_hook()},
    };

    smgr_table_install(hooks, lengthof(hooks));
}
