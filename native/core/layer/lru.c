/* Which layers have their index in memory and their file open: least recently used goes. */
#include <stdlib.h>
#include <unistd.h>

#include "layer/patience.h"
#include "layer/reading.h"

typedef struct list {
    ps_layer *newest;
    ps_layer *oldest;
    unsigned count;
} list;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all of this file's state */
static list lists[PS_LRUS];
static size_t index_bytes;
static unsigned max_open = PS_LAYERS_DEFAULT_OPEN;
static uint32_t now;
static size_t max_index_bytes = PS_LAYERS_DEFAULT_INDEX_BYTES;

static void
unlink_layer(ps_layer *layer, int which)
{
    ps_lru_links *links = &layer->lru[which];
    if (links->newer != NULL)
        links->newer->lru[which].older = links->older;
    else
        lists[which].newest = links->older;
    if (links->older != NULL)
        links->older->lru[which].newer = links->newer;
    else
        lists[which].oldest = links->newer;
    links->newer = links->older = NULL;
}

static void
link_newest(ps_layer *layer, int which)
{
    ps_lru_links *links = &layer->lru[which];
    links->newer = NULL;
    links->older = lists[which].newest;
    if (lists[which].newest != NULL)
        lists[which].newest->lru[which].newer = layer;
    else
        lists[which].oldest = layer;
    lists[which].newest = layer;
}

static void
drop(ps_layer *layer, int which)
{
    unlink_layer(layer, which);
    lists[which].count--;
    layer->lru[which].there = 0;
    if (which == PS_LRU_FILES) {
        ps_layer_close_file(layer);
        return;
    }
    index_bytes -= layer->memory;
    ps_layer_let_blocks_go(layer);
    free(layer->index);
    free(layer->filter);
    layer->index = NULL;
    layer->filter = NULL;
}

static int
exceeded(int which)
{
    return which == PS_LRU_FILES ? lists[which].count > max_open : index_bytes > max_index_bytes;
}

static void
drop_surplus(int which)
{
    for (ps_layer *at = lists[which].oldest; at != NULL && exceeded(which);) {
        ps_layer *newer = at->lru[which].newer;
        if (at->lru[which].pins == 0)
            drop(at, which);
        at = newer;
    }
}

/* 1 if it was there and is pinned now. */
static int
pin_if_there(ps_layer *layer, int which)
{
    pthread_mutex_lock(&lock);
    int there = layer->lru[which].there;
    if (there) {
        layer->lru[which].pins++;
        __atomic_store_n(&layer->used, now, __ATOMIC_RELAXED);
        if (lists[which].newest != layer) { /* most hits are of the one that was hit last */
            unlink_layer(layer, which);
            link_newest(layer, which);
        }
    }
    pthread_mutex_unlock(&lock);
    return there;
}

static void
pin_new(ps_layer *layer, int which)
{
    pthread_mutex_lock(&lock);
    layer->lru[which].there = 1;
    layer->lru[which].pins = 1;
    __atomic_store_n(&layer->used, now, __ATOMIC_RELAXED);
    link_newest(layer, which);
    lists[which].count++;
    if (which == PS_LRU_INDEXES)
        index_bytes += layer->memory;
    drop_surplus(which);
    pthread_mutex_unlock(&lock);
}

static void
unpin(ps_layer *layer, int which)
{
    pthread_mutex_lock(&lock);
    layer->lru[which].pins--;
    drop_surplus(which);
    pthread_mutex_unlock(&lock);
}

/* With layer->loading held. */
static int
pin_file_locked(ps_layer *layer, ps_error *err)
{
    if (pin_if_there(layer, PS_LRU_FILES))
        return PS_OK;
    int rc = ps_layer_open_file(layer, err);
    if (rc == PS_OK)
        pin_new(layer, PS_LRU_FILES);
    return rc;
}

int
ps_layer_pin_file(ps_layer *layer, ps_error *err)
{
    if (pin_if_there(layer, PS_LRU_FILES))
        return PS_OK;
    if (!ps_patience_allows_files())
        return ps_fail(err, PS_ERR_WOULD_WAIT, "%s is to be opened", layer->path);
    pthread_mutex_lock(&layer->loading);
    int rc = pin_file_locked(layer, err);
    pthread_mutex_unlock(&layer->loading);
    return rc;
}

void
ps_layer_unpin_file(ps_layer *layer)
{
    unpin(layer, PS_LRU_FILES);
}

static int
pin_index_locked(ps_layer *layer, ps_error *err)
{
    if (pin_if_there(layer, PS_LRU_INDEXES))
        return PS_OK;
    /* The file only while its index is read: descriptors are scarcer than memory. */
    int rc = pin_file_locked(layer, err);
    if (rc < 0)
        return rc;
    rc = ps_layer_load(layer, err);
    unpin(layer, PS_LRU_FILES);
    if (rc == PS_OK)
        pin_new(layer, PS_LRU_INDEXES);
    return rc;
}

int
ps_layer_pin(ps_layer *layer, ps_error *err)
{
    if (pin_if_there(layer, PS_LRU_INDEXES))
        return PS_OK;
    if (!ps_patience_allows_files())
        return ps_fail(err, PS_ERR_WOULD_WAIT, "the index of %s is to be read", layer->path);
    /* The layer's own lock: while its index is read, others are found by the lists' one. */
    pthread_mutex_lock(&layer->loading);
    int rc = pin_index_locked(layer, err);
    pthread_mutex_unlock(&layer->loading);
    return rc;
}

void
ps_layer_unpin(ps_layer *layer)
{
    unpin(layer, PS_LRU_INDEXES);
}

void
ps_layer_forget(ps_layer *layer)
{
    pthread_mutex_lock(&lock);
    for (int which = 0; which < PS_LRUS; which++)
        if (layer->lru[which].there)
            drop(layer, which);
    pthread_mutex_unlock(&lock);
}

void
ps_layer_let_go(ps_layer *layer)
{
    pthread_mutex_lock(&lock);
    if (layer->lru[PS_LRU_FILES].there && layer->lru[PS_LRU_FILES].pins == 0)
        drop(layer, PS_LRU_FILES);
    pthread_mutex_unlock(&lock);
}

uint32_t
ps_layer_used(const ps_layer *layer)
{
    return __atomic_load_n(&layer->used, __ATOMIC_RELAXED);
}

void
ps_layers_now(uint32_t second)
{
    __atomic_store_n(&now, second, __ATOMIC_RELAXED);
}

void
ps_layers_limit(unsigned open_files, size_t index_limit)
{
    pthread_mutex_lock(&lock);
    max_open = open_files;
    __atomic_store_n(&max_index_bytes, index_limit, __ATOMIC_RELAXED);
    for (int which = 0; which < PS_LRUS; which++)
        drop_surplus(which);
    pthread_mutex_unlock(&lock);
}

size_t
ps_layers_hold_most(void)
{
    return __atomic_load_n(&max_index_bytes, __ATOMIC_RELAXED) / 2;
}

ps_layers_stats
ps_layers_read_stats(void)
{
    pthread_mutex_lock(&lock);
    ps_layers_stats stats = {.open_files = lists[PS_LRU_FILES].count,
                             .loaded = lists[PS_LRU_INDEXES].count,
                             .index_bytes = index_bytes};
    pthread_mutex_unlock(&lock);
    return stats;
}
