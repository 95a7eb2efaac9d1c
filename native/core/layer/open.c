#include "layer/open.h"

#include <pthread.h>
#include <stdlib.h>

#include "layer/writer.h"

#define FIRST_BUCKETS ((size_t)64)
#define KINDS 64
/* How many values are put under one hold of the lock, so that readers are not kept long. */
#define PUT_STRIDE 256

typedef struct value {
    const struct value *older;
    const struct value *jump;
    const uint8_t *data;
    uint64_t lsn;
    uint32_t depth;
    uint32_t length;
    uint8_t kind;
    uint8_t flags;
} value;

typedef struct node {
    struct node *next;         /* in its bucket */
    struct node *next_of_kind;
    const value *newest;
    uint64_t hash;
    ps_key key;
} node;

struct ps_open_layer {
    pthread_rwlock_t lock; /* everything below; values never change once they are linked */
    node **buckets;
    size_t bucket_count;
    node *kinds[KINDS];
    ps_arena arena;
    int frozen;
    ps_open_stats stats;
};

int
ps_open_layer_make(ps_open_layer **layer, ps_error *err)
{
    ps_open_layer *made = calloc(1, sizeof *made);
    if (made == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for an open layer");
    made->buckets = calloc(FIRST_BUCKETS, sizeof *made->buckets);
    if (made->buckets == NULL) {
        free(made);
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for an open layer");
    }
    made->bucket_count = FIRST_BUCKETS;
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    /* Else a stream of readers keeps ingest waiting for ever. */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&made->lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    ps_arena_init(&made->arena);
    *layer = made;
    return PS_OK;
}

void
ps_open_layer_free(ps_open_layer *layer)
{
    if (layer == NULL)
        return;
    pthread_rwlock_destroy(&layer->lock);
    ps_arena_free(&layer->arena);
    free(layer->buckets);
    free(layer);
}

static uint64_t
key_hash(const ps_key *key)
{
    ps_ordered_key ordered = ps_key_order(key);
    return ps_ordered_hash(&ordered);
}

static node *
find(const ps_open_layer *layer, const ps_key *key, uint64_t hash)
{
    node *at = layer->buckets[hash & (layer->bucket_count - 1)];
    while (at != NULL && (at->hash != hash || ps_key_compare(&at->key, key) != 0))
        at = at->next;
    return at;
}

/* The newest value at or below `lsn`. */
static const value *
visible(const node *found, uint64_t lsn)
{
    const value *at = found->newest;
    while (at != NULL && at->lsn > lsn)
        at = at->jump != NULL && at->jump->lsn > lsn ? at->jump : at->older;
    return at;
}

/* Doubling the table is optional: when memory is short the buckets just grow longer. */
static void
grow_table(ps_open_layer *layer)
{
    size_t grown = layer->bucket_count * 2;
    node **buckets = calloc(grown, sizeof *buckets);
    if (buckets == NULL)
        return;
    for (size_t i = 0; i < layer->bucket_count; i++) {
        for (node *at = layer->buckets[i]; at != NULL;) {
            node *next = at->next;
            at->next = buckets[at->hash & (grown - 1)];
            buckets[at->hash & (grown - 1)] = at;
            at = next;
        }
    }
    free(layer->buckets);
    layer->buckets = buckets;
    layer->bucket_count = grown;
}

static node *
find_or_add(ps_open_layer *layer, const ps_key *key)
{
    uint64_t hash = key_hash(key);
    node *found = find(layer, key, hash);
    if (found != NULL)
        return found;
    found = ps_arena_take(&layer->arena, sizeof *found);
    if (found == NULL)
        return NULL;
    if (layer->stats.keys >= layer->bucket_count)
        grow_table(layer);
    node **bucket = &layer->buckets[hash & (layer->bucket_count - 1)];
    node **of_kind = &layer->kinds[ps_key_kind(key)];
    *found = (node){.next = *bucket, .next_of_kind = *of_kind, .hash = hash, .key = *key};
    *bucket = found;
    *of_kind = found;
    layer->stats.keys++;
    return found;
}

static int
put_one(ps_open_layer *layer, const ps_entry *entry, const uint8_t *data)
{
    node *to = find_or_add(layer, &entry->key);
    value *made = to == NULL ? NULL : ps_arena_take(&layer->arena, sizeof *made);
    if (made == NULL)
        return PS_ERR_NOMEM;
    const value *older = to->newest;
    const value *jump = older;
    if (older != NULL && older->jump != NULL && older->jump->jump != NULL &&
        older->depth - older->jump->depth == older->jump->depth - older->jump->jump->depth)
        jump = older->jump->jump;
    *made = (value){.older = older,
                    .jump = jump,
                    .data = data,
                    .lsn = entry->lsn,
                    .depth = older == NULL ? 0 : older->depth + 1,
                    .length = entry->length,
                    .kind = entry->kind,
                    .flags = entry->flags};
    to->newest = made;
    if (layer->stats.entries++ == 0)
        layer->stats.first_lsn = entry->lsn;
    layer->stats.last_lsn = entry->lsn;
    return PS_OK;
}

static int
check_batch(const ps_batch *batch, uint64_t last_lsn, ps_error *err)
{
    for (size_t i = 0; i < batch->count; i++) {
        const ps_entry *entry = &batch->entries[i];
        if (entry->lsn < last_lsn || entry->lsn == 0)
            return ps_fail(err, PS_ERR_INVALID, "entry %zu: LSN %llX comes after %llX", i,
                           (unsigned long long)entry->lsn, (unsigned long long)last_lsn);
        last_lsn = entry->lsn;
        if (entry->offset > batch->data_length ||
            entry->length > batch->data_length - entry->offset ||
            entry->length > PS_LAYER_MAX_VALUE)
            return ps_fail(err, PS_ERR_INVALID, "entry %zu: its payload leaves the batch", i);
        if (entry->kind < PS_VALUE_IMAGE || entry->kind > PS_VALUE_TOMBSTONE ||
            ps_key_kind(&entry->key) >= KINDS)
            return ps_fail(err, PS_ERR_INVALID, "entry %zu: value kind %u of key kind %u", i,
                           entry->kind, ps_key_kind(&entry->key));
        if (entry->kind == PS_VALUE_IMAGE && ps_key_is_page(&entry->key) &&
            entry->length != PS_PAGE_SIZE)
            return ps_fail(err, PS_ERR_INVALID, "entry %zu: a page image of %u bytes", i,
                           entry->length);
    }
    return PS_OK;
}

int
ps_open_layer_put(ps_open_layer *layer, const ps_batch *batch, ps_error *err)
{
    /* Only the one writer changes last_lsn and frozen's owner orders freeze after put. */
    int rc = check_batch(batch, layer->stats.last_lsn, err);
    const ps_entry *before = NULL;
    const uint8_t *data = NULL;
    for (size_t i = 0; rc == PS_OK && i < batch->count;) {
        size_t end = batch->count - i > PUT_STRIDE ? i + PUT_STRIDE : batch->count;
        pthread_rwlock_wrlock(&layer->lock);
        if (layer->frozen)
            rc = ps_fail(err, PS_ERR_CLOSED, "the layer is frozen");
        for (; rc == PS_OK && i < end; i++) {
            const ps_entry *entry = &batch->entries[i];
            if (before == NULL || entry->offset != before->offset ||
                entry->length != before->length)
                data = ps_arena_copy(&layer->arena, batch->data + entry->offset, entry->length);
            before = entry;
            rc = data == NULL ? PS_ERR_NOMEM : put_one(layer, entry, data);
            if (rc == PS_ERR_NOMEM)
                ps_fail(err, rc, "out of memory in the open layer");
        }
        layer->stats.bytes = layer->arena.reserved + layer->bucket_count * sizeof(node *);
        pthread_rwlock_unlock(&layer->lock);
    }
    return rc;
}

void
ps_open_layer_freeze(ps_open_layer *layer)
{
    pthread_rwlock_wrlock(&layer->lock);
    layer->frozen = 1;
    pthread_rwlock_unlock(&layer->lock);
}

ps_open_stats
ps_open_layer_stats(ps_open_layer *layer)
{
    pthread_rwlock_rdlock(&layer->lock);
    ps_open_stats stats = layer->stats;
    pthread_rwlock_unlock(&layer->lock);
    return stats;
}

int
ps_open_layer_collect(ps_open_layer *layer, const ps_key *keys, const uint32_t *order,
                      size_t count, uint64_t lsn, ps_chain *chains, ps_error *err)
{
    int rc = PS_OK;
    pthread_rwlock_rdlock(&layer->lock);
    if (layer->stats.entries == 0 || layer->stats.first_lsn > lsn)
        count = 0;
    for (size_t i = 0; rc == PS_OK && i < count; i++) {
        ps_chain *chain = &chains[order[i]];
        const ps_key *key = &keys[order[i]];
        const node *found = chain->complete ? NULL : find(layer, key, key_hash(key));
        const value *at = found == NULL ? NULL : visible(found, lsn);
        for (; rc == PS_OK && at != NULL && !chain->complete; at = at->older)
            rc = ps_chain_add(chain, at->lsn, at->kind, at->flags, at->data, at->length, err);
    }
    pthread_rwlock_unlock(&layer->lock);
    return rc;
}

static int
in_range(const ps_key *key, const ps_key *low, const ps_key *high)
{
    return ps_key_compare(key, low) >= 0 && ps_key_compare(key, high) < 0;
}

static int
item_compare(const void *a, const void *b)
{
    return ps_key_compare(&((const ps_open_item *)a)->key, &((const ps_open_item *)b)->key);
}

static int
range_locked(ps_open_layer *layer, const ps_key *low, const ps_key *high, uint64_t lsn,
             ps_open_item **items, size_t *count)
{
    size_t capacity = 0;
    int last_kind = ps_key_kind(high) < KINDS ? ps_key_kind(high) : KINDS - 1;
    for (int kind = ps_key_kind(low); kind <= last_kind; kind++) {
        for (const node *at = layer->kinds[kind]; at != NULL; at = at->next_of_kind) {
            const value *seen = in_range(&at->key, low, high) ? visible(at, lsn) : NULL;
            if (seen == NULL)
                continue;
            if (*count == capacity) {
                capacity = capacity == 0 ? 64 : capacity * 2;
                ps_open_item *grown = realloc(*items, capacity * sizeof **items);
                if (grown == NULL)
                    return PS_ERR_NOMEM;
                *items = grown;
            }
            (*items)[(*count)++] = (ps_open_item){
                .key = at->key, .kind = seen->kind, .length = seen->length, .data = seen->data};
        }
    }
    return PS_OK;
}

int
ps_open_layer_range(ps_open_layer *layer, const ps_key *low, const ps_key *high, uint64_t lsn,
                    ps_open_item **items, size_t *count, ps_error *err)
{
    *items = NULL;
    *count = 0;
    pthread_rwlock_rdlock(&layer->lock);
    int rc = range_locked(layer, low, high, lsn, items, count);
    pthread_rwlock_unlock(&layer->lock);
    if (rc < 0) {
        free(*items);
        *items = NULL;
        return ps_fail(err, rc, "out of memory while scanning the open layer");
    }
    if (*count > 1)
        qsort(*items, *count, sizeof **items, item_compare);
    return PS_OK;
}

int
ps_open_layer_last(ps_open_layer *layer, const ps_key *low, const ps_key *high, uint64_t lsn,
                   ps_key *found)
{
    int rc = PS_ERR_NOT_FOUND;
    pthread_rwlock_rdlock(&layer->lock);
    int last_kind = ps_key_kind(high) < KINDS ? ps_key_kind(high) : KINDS - 1;
    for (int kind = ps_key_kind(low); kind <= last_kind; kind++) {
        for (const node *at = layer->kinds[kind]; at != NULL; at = at->next_of_kind) {
            if (!in_range(&at->key, low, high) ||
                (rc == PS_OK && ps_key_compare(&at->key, found) <= 0) || visible(at, lsn) == NULL)
                continue;
            *found = at->key;
            rc = PS_OK;
        }
    }
    pthread_rwlock_unlock(&layer->lock);
    return rc;
}

typedef struct sorted_node {
    ps_ordered_key key;
    const node *at;
} sorted_node;

static int
sorted_compare(const void *a, const void *b)
{
    return ps_ordered_compare(&((const sorted_node *)a)->key, &((const sorted_node *)b)->key);
}

static sorted_node *
sorted_nodes(const ps_open_layer *layer)
{
    sorted_node *nodes = malloc(layer->stats.keys * sizeof *nodes);
    if (nodes == NULL)
        return NULL;
    size_t count = 0;
    for (int kind = 0; kind < KINDS; kind++)
        for (const node *at = layer->kinds[kind]; at != NULL; at = at->next_of_kind)
            nodes[count++] = (sorted_node){.key = ps_key_order(&at->key), .at = at};
    qsort(nodes, count, sizeof *nodes, sorted_compare);
    return nodes;
}

int
ps_open_layer_flush(ps_open_layer *layer, const char *path, const ps_layer_id *id, int level,
                    ps_layer_summary *summary, ps_error *err)
{
    ps_open_layer_freeze(layer); /* from here on nothing changes, so no lock is held */
    if (layer->stats.entries == 0)
        return ps_fail(err, PS_ERR_INVALID, "an empty layer is not flushed");
    sorted_node *nodes = sorted_nodes(layer);
    if (nodes == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory to sort a layer");
    ps_layer_writer *writer;
    int rc = ps_layer_writer_make(&writer, path, id, PS_LAYER_DELTA, level, err);
    for (uint64_t i = 0; rc == PS_OK && i < layer->stats.keys; i++) {
        const node *from = nodes[i].at;
        for (const value *at = from->newest; rc == PS_OK && at != NULL; at = at->older)
            rc = ps_layer_writer_add(writer, &from->key, at->lsn, at->kind, at->flags, at->data,
                                     at->length, err);
    }
    free(nodes);
    if (rc == PS_OK)
        rc = ps_layer_writer_finish(writer, summary, err);
    ps_layer_writer_free(writer);
    return rc;
}
