/*
 * Whether the calling thread may wait for files while it reads: yes, unless it says otherwise.
 *
 * An event loop reads what is in memory by itself, which takes microseconds, and hands the rest
 * to a thread that may wait (store/readers.h). It cannot know beforehand which is which; so it
 * tries, and a read that would have to wait ends with PS_ERR_WOULD_WAIT instead. Blocks of files
 * that the system has in its cache count as memory, up to BLOCKS_AT_ONCE of them.
 */
#ifndef PS_LAYER_PATIENCE_H
#define PS_LAYER_PATIENCE_H

#include <stddef.h>
#include <sys/types.h>

typedef enum ps_patience { PS_PATIENCE_NONE, PS_PATIENCE_FILES } ps_patience;

/* For this thread, until it is set again. */
void ps_patience_set(ps_patience patience);
/* Whether it may wait for a file. */
int ps_patience_allows_files(void);

/* pread from the system's cache for a thread without patience: all of it, or -1. */
ssize_t ps_patience_read(int fd, void *out, size_t length, off_t offset);

#endif
