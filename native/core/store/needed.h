/*
 * Whether a layer file may go from a history that is read at some LSNs only.
 *
 * It may when every such read is the same without it. So nothing has to be believed of what other
 * layers cover: each key that the file has is looked up with it and without it. The first that
 * differs ends the search, which of a file that is needed is nearly always the first block's.
 *
 * Two things are read in a way of their own. A block at or beyond its relation's length there is
 * not read at all: no chain crosses a truncation. And of the times of commits below a kept LSN
 * only the last is ever an answer.
 */
#ifndef PS_STORE_NEEDED_H
#define PS_STORE_NEEDED_H

#include "store/snapshot.h"

/* 1 or 0, or an error. `snapshot` shows the file; `lsns` ascend. */
int ps_layer_is_needed(const ps_snapshot *snapshot, ps_layer *layer, const uint64_t *lsns,
                       size_t count, ps_error *err);

#endif
