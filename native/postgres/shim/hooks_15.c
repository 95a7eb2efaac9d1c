/* Postgres 15: one block at a time. */
#include "postgres.h"

#include "hooks.h"
#include "smgr_table.h"

static void
extend(SMgrRelation reln, ForkNumber forknum, BlockNumber block, char *buffer, bool skip_fsync)
{
    hydrate_extend(reln, forknum, block, buffer, skip_fsync);
}

static bool
prefetch(SMgrRelation reln, ForkNumber forknum, BlockNumber block)
{
    return hydrate_prefetch(reln, forknum, block, 1);
}

static void
read_block(SMgrRelation reln, ForkNumber forknum, BlockNumber block, char *buffer)
{
    void *one = buffer;

    hydrate_readv(reln, forknum, block, &one, 1);
}

static void
write_block(SMgrRelation reln, ForkNumber forknum, BlockNumber block, char *buffer,
            bool skip_fsync)
{
    const void *one = buffer;

    hydrate_writev(reln, forknum, block, &one, 1, skip_fsync);
}

void
hooks_install(void)
{
    const SmgrHook hooks[] = {
        {mdcreate, hydrate_create},       {mdexists, hydrate_exists},
        {mdunlink, hydrate_unlink},       {mdextend, extend},
        {mdprefetch, prefetch},           {mdread, read_block},
        {mdwrite, write_block},           {mdwriteback, hydrate_writeback},
        {mdnblocks, hydrate_nblocks},     {mdtruncate, hydrate_truncate_hook()},
    };

    smgr_table_install(hooks, lengthof(hooks));
}
