/* Inside of the layer reader: what file.c (checks), lru.c (limits), block.c (reads) share. */
#ifndef PS_LAYER_READING_H
#define PS_LAYER_READING_H

#include <pthread.h>

#include "layer/file.h"

/* A file of at most so many bytes is held whole, with its index, if its blocks are no more than
 * the second in memory. */
#define PS_LAYER_HELD_FILE ((size_t)64 << 10)
#define PS_LAYER_HELD_BYTES ((size_t)128 << 10)

/* A layer stands in two LRU lists: while its index is loaded, while its file is open. */
enum ps_lru { PS_LRU_INDEXES, PS_LRU_FILES, PS_LRUS };

typedef struct ps_lru_links {
    ps_layer *newer;
    ps_layer *older;
    unsigned pins;
    int there;
} ps_lru_links;

struct ps_layer {
    unsigned refs;
    int discarded; /* its file goes when it does */
    char *path;
    ps_layer_id id;
    ps_layer_summary known;
    ps_ordered_key min;
    ps_ordered_key max;
    uint32_t seed;
    uint64_t uid; /* its name in the block cache */
    pthread_mutex_t loading;
    ps_remote *remote; /* or NULL */
    ps_lru_links lru[PS_LRUS]; /* guarded by the lists' lock */
    uint32_t used;             /* so is this */

    /* Stable while the file is pinned, but that what is cached comes in the place of a damaged
     * file, once: `cached` is set before `fd`. The damaged file stays open for who reads it. */
    int fd;
    ps_cached *cached;
    int damaged_fd; /* -1, or the damaged file's */
    int damaged;

    /* Stable while the index is pinned. */
    ps_layer_index_entry *index;
    uint32_t blocks;
    uint8_t *filter;
    uint32_t filter_bytes;
    ps_block **held; /* of a small file all blocks, or NULL */
    size_t memory;
};

/* Loads the index if need be, and keeps it until unpinned. */
int ps_layer_pin(ps_layer *layer, ps_error *err);
void ps_layer_unpin(ps_layer *layer);
/* The same for the open file, layer->fd. */
int ps_layer_pin_file(ps_layer *layer, ps_error *err);
void ps_layer_unpin_file(ps_layer *layer);
/* How much may be held of small files: half of what indexes may take. */
size_t ps_layers_hold_most(void);
/* Drops both; nobody holds a pin. */
void ps_layer_forget(ps_layer *layer);

/* Sets `fd`, and `cached` where the file is not here. */
int ps_layer_open_file(ps_layer *layer, ps_error *err);
void ps_layer_close_file(ps_layer *layer);
int ps_layer_load(ps_layer *layer, ps_error *err);
/* Keeps the blocks of a small file with its index, if there is room: to find that small a file's
 * block in the cache, or to read it, costs more than its index. While it is being loaded. */
void ps_layer_hold(ps_layer *layer);
void ps_layer_let_blocks_go(ps_layer *layer);
int ps_layer_read_at(const ps_layer *layer, void *out, size_t length, uint64_t offset,
                     ps_error *err);
/* Whether what failed so may be had from the object store: it does not hold, or cannot be read. */
static inline int
ps_layer_may_mend(int code)
{
    return code == PS_ERR_CORRUPT || code == PS_ERR_IO;
}

/* A range of the open file does not hold, as `err` says; 1 when it is worth another try, for
 * which its bytes come from the object store. Not without patience. */
int ps_layer_mend(ps_layer *layer, uint64_t offset, uint64_t length, const ps_error *err);

#endif
