/* The helper's storage manager: one target page, and for any other block a page to skip. */
#ifndef PAGESTORE_REDO_STORAGE_H
#define PAGESTORE_REDO_STORAGE_H

#include "storage/block.h"
#include "storage/buf.h"
#include "storage/relfilenode.h"

/* The block that the current request asks for. */
typedef struct RedoTarget {
    RelFileNode rnode;
    ForkNumber fork;
    BlockNumber block;
} RedoTarget;

/* Replaces the server's table of storage manager functions; FATAL when it is not as expected. */
extern void redo_storage_install(void);

/* Puts `base` (or zeros, when NULL) into the buffer of `target`, and makes it the target. */
extern void redo_storage_begin(const RedoTarget *target, const char *base);
/* Copies the target's page out, and makes its buffer one to skip. */
extern void redo_storage_end(char *page);
/* The target's page, pinned; release with ReleaseBuffer. */
extern Buffer redo_storage_pin_target(void);
extern bool redo_storage_is_target(RelFileNode rnode, ForkNumber fork, BlockNumber block);
/* Makes a block's buffer one to skip again, after redo has initialised it. */
extern void redo_storage_skip(RelFileNode rnode, ForkNumber fork, BlockNumber block);
/* Forgets relations seen, so that a helper's memory stays bounded. */
extern void redo_storage_forget_relations(void);

#endif
