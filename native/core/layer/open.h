/*
 * The open layer: where values land before they are files. In memory, bounded by its owner.
 *
 * One writer puts batches in LSN order; any number of readers look up meanwhile. A reader
 * names the LSN it reads at, so values that are being put are simply beyond it. Once frozen
 * it takes no more and can be flushed: sorted into a delta layer file.
 *
 * Keys stand in a hash table; each key's values stand in runs, side by side in the order in
 * which they came, a new run having twice the room of the one before it. So an old LSN is
 * found in logarithmic time, and to put a value or to flush a chain touches little memory
 * that is not in the processor's cache already. Keys of a kind are linked, since scans are
 * always of metadata kinds, of which there are few keys among millions of pages.
 */
#ifndef PS_LAYER_OPEN_H
#define PS_LAYER_OPEN_H

#include "layer/chain.h"
#include "layer/format.h"

typedef struct ps_open_layer ps_open_layer;
typedef struct ps_open_stats {
    uint64_t bytes; /* memory held */
    uint64_t entries;
    uint64_t keys;
    uint64_t first_lsn; /* 0 while empty */
    uint64_t last_lsn;
    uint64_t depth; /* the most that one read had to apply of it, by ps_value_weight */
} ps_open_stats;

int ps_open_layer_make(ps_open_layer **layer, ps_error *err);
/* One more, or one fewer, who uses it. With the last it is freed. */
ps_open_layer *ps_open_layer_retain(ps_open_layer *layer);
void ps_open_layer_release(ps_open_layer *layer);
/* All of a batch or, when it is not valid, nothing. PS_ERR_CLOSED once frozen. */
int ps_open_layer_put(ps_open_layer *layer, const ps_batch *batch, ps_error *err);
void ps_open_layer_freeze(ps_open_layer *layer);
ps_open_stats ps_open_layer_stats(ps_open_layer *layer);
/* The LSNs of its first and its last value, without the lock; PS_ERR_NOT_FOUND while empty. Who
 * asks after an LSN was said to be readable has everything up to it within them. */
int ps_open_layer_bounds(const ps_open_layer *layer, uint64_t *first, uint64_t *last);

/* Adds what the layer has of each key at or below `lsn`. chains[order[i]] belongs to
 * keys[order[i]]; complete chains are passed over. */
int ps_open_layer_collect(ps_open_layer *layer, const ps_key *keys, const uint32_t *order,
                          size_t count, uint64_t lsn, ps_chain *chains, ps_error *err);

/* The newest value at or below an LSN of each key in [low, high), ascending by key. The
 * items' payloads belong to the layer; *items is the caller's to free. */
typedef struct ps_open_item {
    ps_key key;
    uint64_t lsn;
    uint8_t kind;
    uint32_t length;
    const uint8_t *data;
} ps_open_item;

int ps_open_layer_range(ps_open_layer *layer, const ps_key *low, const ps_key *high, uint64_t lsn,
                        ps_open_item **items, size_t *count, ps_error *err);
/* The greatest key in [low, high) with a value at or below `lsn`. PS_OK or NOT_FOUND. */
int ps_open_layer_last(ps_open_layer *layer, const ps_key *low, const ps_key *high, uint64_t lsn,
                       ps_key *found);

/* Freezes, and writes everything as a delta layer to a new file, synced. The file is removed
 * again when it cannot be finished. An empty layer is PS_ERR_INVALID. */
int ps_open_layer_flush(ps_open_layer *layer, const char *path, const ps_layer_id *id, int level,
                        ps_layer_summary *summary, ps_error *err);

#endif
