/*
 * Everything that differs between major versions of Postgres, for all modules. Their code is
 * written in the names of the newest one, and looks at no version; here an older one is given
 * these names. What is no matter of names has a file a major: shim/hooks_N.c, redo/setup_N.c.
 *
 * A module is built for one major and refuses to load into another; every minor of it will do.
 * A new major: a block here with its table, and whatever the compiler then asks for
 * (docs/postgres.md).
 *
 * Include it last: it renames what other headers declare.
 */
#ifndef PAGESTORE_VERSION_H
#define PAGESTORE_VERSION_H

#include "postgres.h"

#include <dlfcn.h>

#include "replication/slot.h"
#include "storage/buf_internals.h"
#include "storage/latch.h"
#include "storage/md.h"
#include "storage/smgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#define PAGESTORE_MAJOR (PG_VERSION_NUM / 10000)

/* Minors from 15.11 and 17.3 on tell the storage manager the old length when a fork is cut, and
 * export a function of this name besides. */
#define PAGESTORE_EXPORTS_SMGRTRUNCATE2 (dlsym(RTLD_DEFAULT, "smgrtruncate2") != NULL)

/*
 * PAGESTORE_SMGR_TABLE: the storage manager's table, md.c's row of it (smgrsw in smgr.c).
 */
#if PAGESTORE_MAJOR == 15

#define PAGESTORE_SMGR_TABLE                                                                     \
    mdinit, NULL, mdopen, mdclose, mdcreate, mdexists, mdunlink, mdextend, mdprefetch, mdread,   \
        mdwrite, mdwriteback, mdnblocks, mdtruncate, mdimmedsync

#define PAGESTORE_TRUNCATE_TELLS_OLD_LENGTH PAGESTORE_EXPORTS_SMGRTRUNCATE2

#define RelFileLocator RelFileNode
#define RelFileLocatorBackend RelFileNodeBackend
#define RelFileLocatorEquals RelFileNodeEquals
#define RelFileLocatorBackendIsTemp RelFileNodeBackendIsTemp
#define smgr_rlocator smgr_rnode
#define rlocator rnode
#define locator node
#define spcOid spcNode
#define dbOid dbNode
#define relNumber relNode
#define rd_locator rd_node
#define INVALID_PROC_NUMBER InvalidBackendId
#define smgrreadv smgrread
#define smgrwritev smgrwrite
#define smgrdestroyall smgrcloseall
#define SuperuserReservedConnections ReservedBackends

/* No connections are kept for roles of pg_use_reserved_connections. */
#define ReservedConnections 0

/* One block at a time. */
#define mdreadv(reln, fork, block, buffers, n) mdread(reln, fork, block, (buffers)[0])
#define mdwritev(reln, fork, block, buffers, n, skip_fsync)                                      \
    mdwrite(reln, fork, block, unconstify(void *, (buffers)[0]), skip_fsync)
#define mdextend(reln, fork, block, buffer, skip_fsync)                                          \
    (mdextend)(reln, fork, block, unconstify(void *, buffer), skip_fsync)
#define mdprefetch(reln, fork, block, n) (mdprefetch)(reln, fork, block)

#define get_guc_variables(count) (*(count) = GetNumConfigOptions(), (get_guc_variables)())
#define CreateWaitEventSet(owner, n) (CreateWaitEventSet)(TopMemoryContext, n)
#define CheckPointReplicationSlots(is_shutdown) (CheckPointReplicationSlots)()
#define InvalidateObsoleteReplicationSlots(causes, segment, db, xid)                             \
    (InvalidateObsoleteReplicationSlots)(segment)

static inline RelFileLocator
BufTagGetRelFileLocator(const BufferTag *tag)
{
    return tag->rnode;
}

#elif PAGESTORE_MAJOR == 17

#define PAGESTORE_SMGR_TABLE                                                                     \
    mdinit, NULL, mdopen, mdclose, mdcreate, mdexists, mdunlink, mdextend, mdzeroextend,         \
        mdprefetch, mdreadv, mdwritev, mdwriteback, mdnblocks, mdtruncate, mdimmedsync,          \
        mdregistersync

#define PAGESTORE_TRUNCATE_TELLS_OLD_LENGTH PAGESTORE_EXPORTS_SMGRTRUNCATE2

#elif PAGESTORE_MAJOR == 18

#include "storage/aio.h"

#define PAGESTORE_SMGR_TABLE                                                                     \
    mdinit, NULL, mdopen, mdclose, mdcreate, mdexists, mdunlink, mdextend, mdzeroextend,         \
        mdprefetch, mdmaxcombine, mdreadv, mdstartreadv, mdwritev, mdwriteback, mdnblocks,       \
        mdtruncate, mdimmedsync, mdregistersync, mdfd

#define PAGESTORE_TRUNCATE_TELLS_OLD_LENGTH true

#else
#error "pagestore knows PostgreSQL 15, 17 and 18: point PG_CONFIG at the pg_config of one"
#endif

#if PAGESTORE_MAJOR < 18

/* Nothing is read asynchronously. */
#define pgaio_submit_staged() ((void) 0)

typedef struct RelPathStr
{
    char str[MAXPGPATH];
} RelPathStr;

static inline RelPathStr
pagestore_relpathperm(RelFileLocator of, ForkNumber fork)
{
    char *path = relpathperm(of, fork);
    RelPathStr result;

    strlcpy(result.str, path, sizeof result.str);
    pfree(path);
    return result;
}

#undef relpathperm
#define relpathperm(of, fork) pagestore_relpathperm(of, fork)

#endif

#endif
