/*
 * Pages from the page server: one connection a process, opened on first use, requests
 * pipelined on it. Pages that arrive are given to hydrate_store, whoever asked for them.
 */
#ifndef PAGESTORE_PAGE_CLIENT_H
#define PAGESTORE_PAGE_CLIENT_H

#include "postgres.h"

#include "remote_map.h"

#define PAGE_BATCH_MAX 128

/* Sends a request and does not wait. False, with nothing sent, when that cannot be done now. */
extern bool page_client_request(const RemoteFork *fork, const BlockNumber *blocks, int nblocks);

/*
 * Waits until blocks[0] is no longer remote; the other blocks are asked for with it. Raises
 * an ERROR when the page server refuses, or stays away for pagestore.timeout.
 */
extern void page_client_fetch(const RemoteFork *fork, const BlockNumber *blocks, int nblocks);

/* Whether an answer that holds the block is on its way. */
extern bool page_client_expects(const RemoteFork *fork, BlockNumber block);

/* Takes what has arrived, without waiting. */
extern void page_client_poll(void);

#endif
