/* Postgres 15: one block at a time. */
#include "postgres.h"

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
    XLOGShmemInit();
    InitBufferPool();
}

void
setup_process(PGPROC *self)
{
    MyProc = self;
    InitBufferPoolAccess();
}

void
setup_before_redo(XLogReaderState *record)
{
}

static void
read_block(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer)
{
    void *one = buffer;
    redo_readv(reln, fork, block, &one, 1);
}

static void
write_block(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer, bool skip_fsync)
{
    const void *one = buffer;
    redo_writev(reln, fork, block, &one, 1, skip_fsync);
}

static void
extend(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer, bool skip_fsync)
{
    redo_extend(reln, fork, block, buffer, skip_fsync);
}

static bool
prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber block)
{
    return redo_prefetch(reln, fork, block, 1);
}

void
setup_storage(void)
{
    const SmgrHook hooks[] = {
        {mdclose, redo_close},         {mdcreate, redo_create},     {mdexists, redo_exists},
        {mdunlink, redo_unlink},       {mdextend, extend},          {mdprefetch, prefetch},
        {mdread, read_block},          {mdwrite, write_block},      {mdwriteback, redo_writeback},
        {mdnblocks, redo_nblocks},     {mdtruncate, redo_truncate},
    };
    smgr_table_install(hooks, lengthof(hooks));
}
