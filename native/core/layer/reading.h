/* Inside of the layer reader: what file.c (open and close) and block.c (read) share. */
#ifndef PS_LAYER_READING_H
#define PS_LAYER_READING_H

#include <pthread.h>

#include "layer/file.h"

struct ps_layer {
    char *path;
    ps_layer_id id;
    ps_layer_summary known;
    ps_ordered_key min;
    ps_ordered_key max;
    uint32_t seed;
    uint64_t uid; /* its name in the block cache */
    pthread_mutex_t loading;

    /* Guarded by the list's lock; the rest of this part is stable while pins > 0. */
    ps_layer *newer;
    ps_layer *older;
    unsigned pins;
    int loaded;
    int fd;
    ps_layer_index_entry *index;
    uint32_t blocks;
    uint8_t *filter;
    uint32_t filter_bytes;
    size_t memory;
};

/* Opens the layer if need be, and keeps it open until unpinned. */
int ps_layer_pin(ps_layer *layer, ps_error *err);
void ps_layer_unpin(ps_layer *layer);
int ps_layer_read_at(const ps_layer *layer, int fd, void *out, size_t length, uint64_t offset,
                     ps_error *err);

#endif
