/* Postgres 17: several blocks at a time, and forks that grow by zeros. */
#include "postgres.h"

#include "hooks.h"
#include "smgr_table.h"

static void
zeroextend(SMgrRelation reln, ForkNumber forknum, BlockNumber block, int nblocks, bool skip_fsync)
{
    hydrate_lay(reln, forknum);
    mdzeroextend(reln, forknum, block, nblocks, skip_fsync);
}

void
hooks_install(void)
{
    const SmgrHook hooks[] = {
        {mdcreate, hydrate_create},       {mdexists, hydrate_exists},
        {mdunlink, hydrate_unlink},       {mdextend, hydrate_extend},
        {mdzeroextend, zeroextend},       {mdprefetch, hydrate_prefetch},
        {mdreadv, hydrate_readv},         {mdwritev, hydrate_writev},
        {mdwriteback, hydrate_writeback}, {mdnblocks, hydrate_nblocks},
        {mdtruncate, hydrate_truncate_hook()},
    };

    smgr_table_install(hooks, lengthof(hooks));
}
