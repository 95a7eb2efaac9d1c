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
static list lists[PS_KEEPS];
static size_t index_bytes;
static unsigned max_open = PS_LAYERS_DEFAULT_OPEN;
static size_t max_index_bytes = PS_LAYERS_DEFAULT_INDEX_BYTES;

static void
unlink_layer(ps_layer *layer, int keep)
{
    ps_layer_links *links = &layer->kept[keep];
    if (links->newer != NULL)
        links->newer->kept[keep].older = links->older;
    else
        lists[keep].newest = links->older;
    if (links->older != NULL)
        links->older->kept[keep].newer = links->newer;
    else
        lists[keep].oldest = links->newer;
    links->newer = links->older = NULL;
}

static void
link_newest(ps_layer *layer, int keep)
{
    ps_layer_links *links = &layer->kept[keep];
    links->newer = NULL;
    links->older = lists[keep].newest;
    if (lists[keep].newest != NULL)
        lists[keep].newest->kept[keep].newer = layer;
    else
        lists[keep].oldest = layer;
    lists[keep].newest = layer;
}

static void
drop(ps_layer *layer, int keep)
{
    unlink_layer(layer, keep);
    lists[keep].count--;
    layer->kept[keep].there = 0;
    if (keep == PS_KEEP_FILE) {
        close(layer->fd);
        layer->fd = -1;
        return;
    }
    index_bytes -= layer->memory;
    free(layer->index);
    free(layer->filter);
    layer->index = NULL;
    layer->filter = NULL;
}

static int
exceeded(int keep)
{
    return keep == PS_KEEP_FILE ? lists[keep].count > max_open : index_bytes > max_index_bytes;
}

static void
drop_surplus(int keep)
{
    for (ps_layer *at = lists[keep].oldest; at != NULL && exceeded(keep);) {
        ps_layer *newer = at->kept[keep].newer;
        if (at->kept[keep].pins == 0)
            drop(at, keep);
        at = newer;
    }
}

/* 1 if it was there and is pinned now. */
static int
pin_if_there(ps_layer *layer, int keep)
{
    pthread_mutex_lock(&lock);
    int there = layer->kept[keep].there;
    if (there) {
        layer->kept[keep].pins++;
        if (lists[keep].newest != layer) {
            unlink_layer(layer, keep);
            link_newest(layer, keep);
        }
    }
    pthread_mutex_unlock(&lock);
    return there;
}

static void
pin_new(ps_layer *layer, int keep)
{
    pthread_mutex_lock(&lock);
    layer->kept[keep].there = 1;
    layer->kept[keep].pins = 1;
    link_newest(layer, keep);
    lists[keep].count++;
    if (keep == PS_KEEP_INDEX)
        index_bytes += layer->memory;
    drop_surplus(keep);
    pthread_mutex_unlock(&lock);
}

static void
unpin(ps_layer *layer, int keep)
{
    pthread_mutex_lock(&lock);
    layer->kept[keep].pins--;
    drop_surplus(keep);
    pthread_mutex_unlock(&lock);
}

/* With layer->loading held. */
static int
pin_file_locked(ps_layer *layer, ps_error *err)
{
    if (pin_if_there(layer, PS_KEEP_FILE))
        return PS_OK;
    int rc = ps_layer_open_file(layer, &layer->fd, err);
    if (rc == PS_OK)
        pin_new(layer, PS_KEEP_FILE);
    return rc;
}

int
ps_layer_pin_file(ps_layer *layer, ps_error *err)
{
    if (pin_if_there(layer, PS_KEEP_FILE))
        return PS_OK;
    if (!ps_patience_allows(PS_PATIENCE_DISK))
        return ps_fail(err, PS_ERR_WOULD_WAIT, "%s is to be opened", layer->path);
    pthread_mutex_lock(&layer->loading);
    int rc = pin_file_locked(layer, err);
    pthread_mutex_unlock(&layer->loading);
    return rc;
}

void
ps_layer_unpin_file(ps_layer *layer)
{
    unpin(layer, PS_KEEP_FILE);
}

static int
pin_index_locked(ps_layer *layer, ps_error *err)
{
    if (pin_if_there(layer, PS_KEEP_INDEX))
        return PS_OK;
    int rc = pin_file_locked(layer, err);
    if (rc < 0)
        return rc;
    rc = ps_layer_load(layer, layer->fd, err);
    unpin(layer, PS_KEEP_FILE);
    if (rc == PS_OK)
        pin_new(layer, PS_KEEP_INDEX);
    return rc;
}

int
ps_layer_pin(ps_layer *layer, ps_error *err)
{
    if (pin_if_there(layer, PS_KEEP_INDEX))
        return PS_OK;
    if (!ps_patience_allows(PS_PATIENCE_DISK))
        return ps_fail(err, PS_ERR_WOULD_WAIT, "the index of %s is to be read", layer->path);
    pthread_mutex_lock(&layer->loading);
    int rc = pin_index_locked(layer, err);
    pthread_mutex_unlock(&layer->loading);
    return rc;
}

void
ps_layer_unpin(ps_layer *layer)
{
    unpin(layer, PS_KEEP_INDEX);
}

void
ps_layer_forget(ps_layer *layer)
{
    pthread_mutex_lock(&lock);
    for (int keep = 0; keep < PS_KEEPS; keep++)
        if (layer->kept[keep].there)
            drop(layer, keep);
    pthread_mutex_unlock(&lock);
}

void
ps_layers_limit(unsigned open_files, size_t index_limit)
{
    pthread_mutex_lock(&lock);
    max_open = open_files;
    max_index_bytes = index_limit;
    for (int keep = 0; keep < PS_KEEPS; keep++)
        drop_surplus(keep);
    pthread_mutex_unlock(&lock);
}

ps_layers_stats
ps_layers_read_stats(void)
{
    pthread_mutex_lock(&lock);
    ps_layers_stats stats = {.open_files = lists[PS_KEEP_FILE].count,
                             .loaded = lists[PS_KEEP_INDEX].count,
                             .index_bytes = index_bytes};
    pthread_mutex_unlock(&lock);
    return stats;
}
