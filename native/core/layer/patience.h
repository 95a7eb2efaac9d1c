/*
 * What the calling thread may wait for while it reads: everything, unless it says otherwise.
 *
 * An event loop reads what is in memory by itself, which takes microseconds, and hands the rest
 * to a thread that may wait. It cannot know beforehand which is which; so it tries, and a read
 * that would have to wait ends with PS_ERR_WOULD_WAIT instead. Blocks of files that the system
 * has in its cache count as memory, up to BLOCKS_AT_ONCE of them.
 */
#ifndef PS_LAYER_PATIENCE_H
#define PS_LAYER_PATIENCE_H

#include <stddef.h>
#include <sys/types.h>

typedef enum ps_patience {
    PS_PATIENCE_NONE,
    PS_PATIENCE_DISK, /* for files */
    PS_PATIENCE_REDO  /* for redo helpers, too */
} ps_patience;

/* For this thread, until it is set again. */
void ps_patience_set(ps_patience patience);
/* Whether it may wait for this; if not, what it needs is noted. */
int ps_patience_allows(ps_patience needed);
/* What was noted since it was set. */
ps_patience ps_patience_needed(void);

/* pread from the system's cache for a thread without patience: all of it, or -1. */
ssize_t ps_patience_read(int fd, void *out, size_t length, off_t offset);

#endif
