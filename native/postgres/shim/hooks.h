/*
 * The hooks in the storage manager's table: stock md.c, with remote blocks brought first. They have
 * the form of the newest major's; hooks_N.c gives them that of major N, and takes the slots over.
 */
#ifndef PAGESTORE_HOOKS_H
#define PAGESTORE_HOOKS_H

#include "postgres.h"

#include "remote_map.h"
#include "version.h"

/* Takes the slots over. FATAL where this server is not as expected. */
extern void hooks_install(void);

/* These blocks are in the fork's file from now on, however long it takes to bring them. */
extern void hydrate_make_local(SMgrRelation reln, ForkNumber forknum, BlockNumber block,
                               BlockNumber nblocks);
/* The content of a remote block that came with the map; else NULL. */
extern const char *hydrate_hot_page(SMgrRelation reln, ForkNumber forknum, BlockNumber block);
/* Makes the fork's file, where anything of the fork was ever remote: then md.c can have it. */
extern const RemoteFork *hydrate_lay(SMgrRelation reln, ForkNumber forknum);

extern void hydrate_create(SMgrRelation reln, ForkNumber forknum, bool is_redo);
extern bool hydrate_exists(SMgrRelation reln, ForkNumber forknum);
extern void hydrate_unlink(RelFileLocatorBackend rlocator, ForkNumber forknum, bool is_redo);
extern void hydrate_extend(SMgrRelation reln, ForkNumber forknum, BlockNumber block,
                           const void *buffer, bool skip_fsync);
extern bool hydrate_prefetch(SMgrRelation reln, ForkNumber forknum, BlockNumber block,
                             int nblocks);
extern void hydrate_readv(SMgrRelation reln, ForkNumber forknum, BlockNumber block,
                          void **buffers, BlockNumber nblocks);
extern void hydrate_writev(SMgrRelation reln, ForkNumber forknum, BlockNumber block,
                           const void **buffers, BlockNumber nblocks, bool skip_fsync);
extern void hydrate_writeback(SMgrRelation reln, ForkNumber forknum, BlockNumber block,
                              BlockNumber nblocks);
extern BlockNumber hydrate_nblocks(SMgrRelation reln, ForkNumber forknum);
extern void hydrate_truncate(SMgrRelation reln, ForkNumber forknum, BlockNumber old_nblocks,
                             BlockNumber nblocks);
/* Of minors that are not told the old length. */
extern void hydrate_old_truncate(SMgrRelation reln, ForkNumber forknum, BlockNumber nblocks);

static inline const void *
hydrate_truncate_hook(void)
{
    return PAGESTORE_TRUNCATE_TELLS_OLD_LENGTH ? (const void *) hydrate_truncate
                                               : (const void *) hydrate_old_truncate;
}

#endif
