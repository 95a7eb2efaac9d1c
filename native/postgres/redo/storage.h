/* The helper's storage manager: one target page, and for any other block a page to skip. */
#ifndef PAGESTORE_REDO_STORAGE_H
#define PAGESTORE_REDO_STORAGE_H

#include "storage/block.h"
#include "storage/buf.h"
#include "storage/smgr.h"
#include "version.h"

/* The block that the current request asks for. */
typedef struct RedoTarget {
    RelFileLocator rlocator;
    ForkNumber fork;
    BlockNumber block;
} RedoTarget;

#define REDO_PAGES 2

/* `pages`: memory of REDO_PAGES pages, which reading gives. */
extern void redo_storage_init(char *pages);

/* Puts `base` (or zeros, when NULL) into the buffer of `target`, and makes it the target. */
extern void redo_storage_begin(const RedoTarget *target, const char *base);
/* Copies the target's page out, and makes its buffer one to skip. */
extern void redo_storage_end(char *page);
/* The target's page, pinned; release with ReleaseBuffer. */
extern Buffer redo_storage_pin_target(void);
extern bool redo_storage_is_target(RelFileLocator rlocator, ForkNumber fork, BlockNumber block);
/* Makes a block's buffer one to skip again, after redo has initialised it. */
extern void redo_storage_skip(RelFileLocator rlocator, ForkNumber fork, BlockNumber block);
/* What reading a block gives: the target's page as it was evicted, or the one to skip. */
extern const char *redo_storage_page(SMgrRelation reln, ForkNumber fork, BlockNumber block);

/* What the storage manager is hooked with, in the form of the newest major's; setup_N.c gives it
 * that of major N. */
extern void redo_readv(SMgrRelation reln, ForkNumber fork, BlockNumber block, void **buffers,
                       BlockNumber n);
extern void redo_writev(SMgrRelation reln, ForkNumber fork, BlockNumber block,
                        const void **buffers, BlockNumber n, bool skip_fsync);
extern void redo_extend(SMgrRelation reln, ForkNumber fork, BlockNumber block,
                        const void *buffer, bool skip_fsync);
extern BlockNumber redo_nblocks(SMgrRelation reln, ForkNumber fork);
extern bool redo_exists(SMgrRelation reln, ForkNumber fork);
extern bool redo_prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber block, int n);
extern void redo_close(SMgrRelation reln, ForkNumber fork);
extern void redo_create(SMgrRelation reln, ForkNumber fork, bool is_redo);
extern void redo_unlink(RelFileLocatorBackend rlocator, ForkNumber fork, bool is_redo);
extern void redo_writeback(SMgrRelation reln, ForkNumber fork, BlockNumber block,
                           BlockNumber count);
extern void redo_truncate(SMgrRelation reln, ForkNumber fork, BlockNumber old_blocks,
                          BlockNumber blocks);

/* Forgets relations seen, so that a helper's memory stays bounded. */
extern void redo_storage_forget_relations(void);

#endif
