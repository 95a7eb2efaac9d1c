/*
 * Postgres 18: reads that are started, and complete later.
 *
 * Blocks are read by startreadv, which wants a descriptor: the pages that reading gives lie in a
 * memory file. Each read first makes a statistics entry of its block's database, in shared memory
 * that would grow by files; so there is a place of our own for these.
 */
#include "postgres.h"

#include <sys/mman.h>
#include <unistd.h>

#include "access/heapam_xlog.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlogreader.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "setup.h"
#include "smgr_table.h"
#include "storage.h"
#include "storage/aio.h"
#include "storage/aio_subsys.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "utils/pgstat_internal.h"
#include "version.h"

#define STATISTICS_BYTES (8 * 1024 * 1024)

static int pages_file = -1;
static char *pages;

char *
setup_pages(void)
{
    pages_file = memfd_create("pagestore_redo", MFD_CLOEXEC);
    if (pages_file < 0 || ftruncate(pages_file, REDO_PAGES * BLCKSZ) != 0)
        ereport(FATAL, (errmsg("pagestore_redo: could not make its memory file: %m")));
    pages = mmap(NULL, REDO_PAGES * BLCKSZ, PROT_READ | PROT_WRITE, MAP_SHARED, pages_file, 0);
    if (pages == MAP_FAILED)
        ereport(FATAL, (errmsg("pagestore_redo: could not map its memory file: %m")));
    return pages;
}

Size
setup_size(int *semaphores)
{
    InitializeMaxBackends();
    InitPostmasterChildSlots();
    InitializeFastPathLocks();
    return CalculateShmemSize(semaphores);
}

void
setup_shared_memory(void)
{
    VarsupShmemInit();
    XLOGShmemInit();
    BufferManagerShmemInit();
    AioShmemInit();
    StatsShmemInit();
}

static void
set_up_statistics(void)
{
    const dshash_parameters parameters = {
        .key_size = sizeof(PgStat_HashKey),
        .entry_size = sizeof(PgStatShared_HashEntry),
        .compare_function = pgstat_cmp_hash_key,
        .hash_function = pgstat_hash_hash_key,
        .copy_function = dshash_memcpy,
        .tranche_id = LWTRANCHE_PGSTATS_HASH,
    };
    void *place = mmap(NULL, STATISTICS_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED)
        ereport(FATAL, (errmsg("pagestore_redo: no memory for statistics: %m")));
    MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
    pgStatLocal.dsa = dsa_create_in_place(place, STATISTICS_BYTES, LWTRANCHE_PGSTATS_DSA, NULL);
    dsa_set_size_limit(pgStatLocal.dsa, STATISTICS_BYTES);
    pgStatLocal.shared_hash = dshash_create(pgStatLocal.dsa, &parameters, NULL);
    MemoryContextSwitchTo(caller);
}

void
setup_process(PGPROC *self)
{
    MyProc = self;
    MyProcNumber = 0;
    InitBufferManagerAccess();
    pgaio_init_backend();
    set_up_statistics();
}

/* Redo of an update in place tells caches to forget, and may remove files; here are neither. */
void
setup_before_redo(XLogReaderState *record)
{
    if (XLogRecGetRmid(record) == RM_HEAP_ID &&
        (XLogRecGetInfo(record) & XLOG_HEAP_OPMASK) == XLOG_HEAP_INPLACE)
        ((xl_heap_inplace *) XLogRecGetData(record))->nmsgs = 0;
}

static void
startreadv(PgAioHandle *ioh, SMgrRelation reln, ForkNumber fork, BlockNumber block,
           void **buffers, BlockNumber n)
{
    struct iovec *iov;
    if (n != 1)
        elog(ERROR, "redo tried to read %u blocks at once", n);
    pgaio_io_get_iovec(ioh, &iov);
    iov[0] = (struct iovec) {.iov_base = buffers[0], .iov_len = BLCKSZ};
    pgaio_io_set_flag(ioh, PGAIO_HF_SYNCHRONOUS | PGAIO_HF_BUFFERED);
    pgaio_io_set_target_smgr(ioh, reln, fork, block, 1, false);
    pgaio_io_register_callbacks(ioh, PGAIO_HCB_MD_READV, 0);
    pgaio_io_start_readv(ioh, pages_file, 1, redo_storage_page(reln, fork, block) - pages);
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
        {mdprefetch, redo_prefetch},   {mdreadv, redo_readv},       {mdstartreadv, startreadv},
        {mdwritev, redo_writev},       {mdwriteback, redo_writeback},
        {mdnblocks, redo_nblocks},     {mdtruncate, redo_truncate},
    };
    smgr_table_install(hooks, lengthof(hooks));
}
