/*
 * Decompressed blocks of layer files, shared by all readers of the process and bounded in
 * bytes: the least recently used go first. A block in use stays until it is released, so the
 * bound may be passed by what readers hold at the moment.
 */
#ifndef PS_LAYER_BLOCK_CACHE_H
#define PS_LAYER_BLOCK_CACHE_H

#include <stddef.h>
#include <stdint.h>

#define PS_CACHE_DEFAULT_BYTES ((size_t)32 << 20)

typedef struct ps_block {
    struct ps_block *next; /* in its bucket */
    struct ps_block *newer;
    struct ps_block *older;
    uint64_t layer; /* of this process: never used again for another layer */
    uint32_t number;
    uint32_t length;
    uint32_t refs;
    int listed;
    int held; /* by its layer, as long as that is pinned: nobody counts who uses it */
    uint32_t values;
    uint8_t data[];
} ps_block;

/* An unlisted block to be filled; freed by release. NULL when memory is out. */
ps_block *ps_block_make(uint64_t layer, uint32_t number, uint32_t length);
void ps_block_release(ps_block *block);

/* The block if it is there, held for the caller; else NULL. */
ps_block *ps_cache_get(uint64_t layer, uint32_t number);
/* Lists a filled block for others; the caller still holds it. */
void ps_cache_add(ps_block *block);
void ps_cache_limit(size_t bytes);

typedef struct ps_cache_stats {
    uint64_t hits;
    uint64_t misses;
    uint64_t bytes;
} ps_cache_stats;

ps_cache_stats ps_cache_read_stats(void);

#endif
