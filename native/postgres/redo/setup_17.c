/* Postgres 17: several blocks at a time. */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlogreader.h"
#include "miscadmin.h"
#include "setup.h"
#include "smgr_table.h"
#include "storage.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "version.h"

char *
setup_pages(void)
{
    static PGAlignedBlock pages[REDO_PAGES];
    return pages[0].data;
}

Size
setup_size(int *semaphores)
{
    InitializeMaxBackends();
    return CalculateShmemSize(semaphores);
}

void
setup_shared_memory(void)
{
    VarsupShmemInit();
    XLOGShmemInit();
    InitBufferPool();
}

void
setup_process(PGPROC *self)
{
    MyProc = self;
    MyProcNumber = 0;
    InitBufferPoolAccess();
}

void
setup_before_redo(XLogReaderState *record)
{
}

static void
zeroextend(SMgrRelation reln, ForkNumber fork, BlockNumber block, int n, bool skip_fsync)
{
    redo_extend(reln, fork, block, NULL, skip_fsync);
}

void
setup_storage(void)
{
    const SmgrHook hooks[] = {
        {mdclose, redo_close},         {mdcreate, redo_create},     {mdexists, redo_exists},
        {mdunlink, redo_unlink},       {mdextend, redo_extend},     {mdzeroextend, zeroextend},
        {mdprefetch, redo_prefetch},   {mdreadv, redo_readv},       {mdwritev, redo_writev},
        {mdwriteback, redo_writeback}, {mdnblocks, redo_nblocks},   {mdtruncate, redo_truncate},
    };
    smgr_table_install(hooks, lengthof(hooks));
}
