#include "layer/block_cache.h"

#include <pthread.h>
#include <stdlib.h>

#define SHARDS 8
#define BUCKETS 1024

typedef struct shard {
    pthread_mutex_t lock;
    ps_block *buckets[BUCKETS];
    ps_block *newest;
    ps_block *oldest;
    size_t bytes;
    uint64_t hits;
    uint64_t misses;
} shard;

static shard shards[SHARDS];
static size_t shard_limit = PS_CACHE_DEFAULT_BYTES / SHARDS;
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

static void
prepare(void)
{
    for (int i = 0; i < SHARDS; i++)
        pthread_mutex_init(&shards[i].lock, NULL);
}

static uint64_t
place(uint64_t layer, uint32_t number)
{
    uint64_t h = (layer << 32 ^ number) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

static shard *
shard_of(uint64_t h)
{
    pthread_once(&prepared, prepare);
    return &shards[h >> 48 & (SHARDS - 1)];
}

ps_block *
ps_block_make(uint64_t layer, uint32_t number, uint32_t length)
{
    ps_block *block = malloc(sizeof *block + length);
    if (block != NULL)
        *block = (ps_block){.layer = layer, .number = number, .length = length, .refs = 1};
    return block;
}

static void
unlink_block(shard *in, ps_block *block)
{
    if (block->newer != NULL)
        block->newer->older = block->older;
    else
        in->newest = block->older;
    if (block->older != NULL)
        block->older->newer = block->newer;
    else
        in->oldest = block->newer;
}

static void
link_newest(shard *in, ps_block *block)
{
    block->newer = NULL;
    block->older = in->newest;
    if (in->newest != NULL)
        in->newest->newer = block;
    else
        in->oldest = block;
    in->newest = block;
}

static void
drop(shard *in, ps_block *block)
{
    ps_block **at = &in->buckets[place(block->layer, block->number) & (BUCKETS - 1)];
    while (*at != block)
        at = &(*at)->next;
    *at = block->next;
    unlink_block(in, block);
    in->bytes -= block->length;
    block->listed = 0;
    if (block->refs == 0)
        free(block);
}

static void
shrink(shard *in)
{
    size_t limit = __atomic_load_n(&shard_limit, __ATOMIC_RELAXED);
    while (in->bytes > limit && in->oldest != NULL)
        drop(in, in->oldest);
}

void
ps_block_release(ps_block *block)
{
    if (block == NULL || block->held)
        return;
    shard *in = shard_of(place(block->layer, block->number));
    pthread_mutex_lock(&in->lock);
    int last = --block->refs == 0 && !block->listed;
    pthread_mutex_unlock(&in->lock);
    if (last)
        free(block);
}

static ps_block *
find(shard *in, uint64_t h, uint64_t layer, uint32_t number)
{
    ps_block *at = in->buckets[h & (BUCKETS - 1)];
    while (at != NULL && (at->layer != layer || at->number != number))
        at = at->next;
    return at;
}

ps_block *
ps_cache_get(uint64_t layer, uint32_t number)
{
    uint64_t h = place(layer, number);
    shard *in = shard_of(h);
    pthread_mutex_lock(&in->lock);
    ps_block *block = find(in, h, layer, number);
    if (block != NULL) {
        block->refs++;
        in->hits++;
        unlink_block(in, block);
        link_newest(in, block);
    } else {
        in->misses++;
    }
    pthread_mutex_unlock(&in->lock);
    return block;
}

void
ps_cache_add(ps_block *block)
{
    uint64_t h = place(block->layer, block->number);
    shard *in = shard_of(h);
    pthread_mutex_lock(&in->lock);
    if (find(in, h, block->layer, block->number) == NULL) { /* else another reader was first */
        block->next = in->buckets[h & (BUCKETS - 1)];
        in->buckets[h & (BUCKETS - 1)] = block;
        block->listed = 1;
        in->bytes += block->length;
        link_newest(in, block);
        shrink(in);
    }
    pthread_mutex_unlock(&in->lock);
}

void
ps_cache_limit(size_t bytes)
{
    __atomic_store_n(&shard_limit, bytes / SHARDS, __ATOMIC_RELAXED);
    for (int i = 0; i < SHARDS; i++) {
        shard *in = shard_of((uint64_t)i << 48);
        pthread_mutex_lock(&in->lock);
        shrink(in);
        pthread_mutex_unlock(&in->lock);
    }
}

ps_cache_stats
ps_cache_read_stats(void)
{
    ps_cache_stats stats = {0};
    for (int i = 0; i < SHARDS; i++) {
        shard *in = shard_of((uint64_t)i << 48);
        pthread_mutex_lock(&in->lock);
        stats.hits += in->hits;
        stats.misses += in->misses;
        stats.bytes += in->bytes;
        pthread_mutex_unlock(&in->lock);
    }
    return stats;
}
