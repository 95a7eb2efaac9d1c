/* Asking the page server for blocks before they are read. */
#ifndef PAGESTORE_READAHEAD_H
#define PAGESTORE_READAHEAD_H

#include "postgres.h"

#include "remote_map.h"

/* Asks for the remote blocks of [first, end) that are not on their way yet, a batch of them at
 * most, and does not wait. How many those were. */
extern int readahead_ask(const RemoteFork *fork, BlockNumber first, BlockNumber end);

/* These blocks are about to be read, and some are remote, or none is. */
extern void readahead_remote(const RemoteFork *fork, BlockNumber block, BlockNumber nblocks);
extern void readahead_local(const RemoteFork *fork, BlockNumber block, BlockNumber nblocks);

/* The remote block will be read soon. */
extern void readahead_gather(const RemoteFork *fork, BlockNumber block);

/* The transaction ended: its scans are over, and what it gathered nobody will read. */
extern void readahead_forget(void);

#endif
