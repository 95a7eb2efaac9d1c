#include "layer/open.h"

#include <pthread.h>
#include <stdlib.h>

#include "layer/writer.h"

#define FIRST_SLOTS ((size_t)64)
#define KINDS 64
/* How many values are put under one hold of the lock, so that readers are not kept long. */
#define PUT_STRIDE 256
#define FIRST_ROOM 2u
#define LARGEST_ROOM (1u << 15)

typedef struct value {
    const uint8_t *data;
    uint64_t lsn;
    uint32_t length;
    uint8_t kind;
    uint8_t flags;
} value;

typedef struct run {
    struct run *older;
    uint32_t count;
    uint32_t room;
    value values[]; /* of one key, the newest last */
} run;

/* A place in a key's runs; `in` is NULL beyond the oldest value. */
typedef struct place {
    const run *in;
    uint32_t at;
} place;

typedef struct node {
    struct node *next_of_kind;
    run *newest;
    ps_key key;
    uint32_t weight; /* of the values that a read at its newest applies */
} node;

/* A key's place in the table is the first free one at or after the one its hash names. */
typedef struct slot {
    node *at; /* NULL: free */
    uint32_t hash;
} slot;

struct ps_open_layer {
    unsigned refs;
    pthread_rwlock_t lock; /* everything below; values never change once they are linked */
    slot *slots;
    size_t slot_mask; /* slots - 1; at most half of them are taken */
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
    made->slots = calloc(FIRST_SLOTS, sizeof *made->slots);
    if (made->slots == NULL) {
        free(made);
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for an open layer");
    }
    made->refs = 1;
    made->slot_mask = FIRST_SLOTS - 1;
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

ps_open_layer *
ps_open_layer_retain(ps_open_layer *layer)
{
    __atomic_add_fetch(&layer->refs, 1, __ATOMIC_RELAXED);
    return layer;
}

void
ps_open_layer_release(ps_open_layer *layer)
{
    if (layer == NULL || __atomic_sub_fetch(&layer->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    pthread_rwlock_destroy(&layer->lock);
    ps_arena_free(&layer->arena);
    free(layer->slots);
    free(layer);
}

static uint32_t
key_hash(const ps_key *key)
{
    ps_ordered_key ordered = ps_key_order(key);
    return (uint32_t)ps_ordered_hash(&ordered);
}

/* The slot that holds the key, or the free one where it belongs. */
static slot *
probe(const ps_open_layer *layer, const ps_key *key, uint32_t hash)
{
    size_t i = hash & layer->slot_mask;
    for (;; i = (i + 1) & layer->slot_mask) {
        slot *at = &layer->slots[i];
        if (at->at == NULL || (at->hash == hash && ps_key_compare(&at->at->key, key) == 0))
            return at;
    }
}

static node *
find(const ps_open_layer *layer, const ps_key *key)
{
    return probe(layer, key, key_hash(key))->at;
}

/* The newest value at or below `lsn`. */
static place
visible(const node *found, uint64_t lsn)
{
    const run *in = found->newest;
    while (in != NULL && in->values[0].lsn > lsn)
        in = in->older;
    uint32_t low = 0, high = in == NULL ? 0 : in->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (in->values[middle].lsn <= lsn)
            low = middle + 1;
        else
            high = middle;
    }
    return (place){.in = in, .at = low - 1};
}

static const value *
value_at(place at)
{
    return at.in == NULL ? NULL : &at.in->values[at.at];
}

static place
older(place at)
{
    if (at.at > 0)
        return (place){.in = at.in, .at = at.at - 1};
    const run *in = at.in->older;
    return (place){.in = in, .at = in == NULL ? 0 : in->count - 1};
}

static int
grow_table(ps_open_layer *layer)
{
    size_t mask = layer->slot_mask * 2 + 1;
    slot *slots = calloc(mask + 1, sizeof *slots);
    if (slots == NULL)
        return PS_ERR_NOMEM;
    for (size_t i = 0; i <= layer->slot_mask; i++) {
        const slot *from = &layer->slots[i];
        size_t to = from->hash & mask;
        while (from->at != NULL && slots[to].at != NULL)
            to = (to + 1) & mask;
        if (from->at != NULL)
            slots[to] = *from;
    }
    free(layer->slots);
    layer->slots = slots;
    layer->slot_mask = mask;
    return PS_OK;
}

static node *
find_or_add(ps_open_layer *layer, const ps_key *key, uint32_t hash)
{
    slot *at = probe(layer, key, hash);
    if (at->at != NULL)
        return at->at;
    if (layer->stats.keys * 2 >= layer->slot_mask) {
        if (grow_table(layer) < 0)
            return NULL;
        at = probe(layer, key, hash);
    }
    node *made = ps_arena_take(&layer->arena, sizeof *made);
    if (made == NULL)
        return NULL;
    node **of_kind = &layer->kinds[ps_key_kind(key)];
    *made = (node){.next_of_kind = *of_kind, .key = *key};
    *of_kind = made;
    *at = (slot){.at = made, .hash = hash}; /* with the hash, most keys need no look */
    layer->stats.keys++;
    return made;
}

/* The run that has room for the next value of a key. */
static run *
run_with_room(ps_open_layer *layer, node *of)
{
    run *newest = of->newest;
    if (newest != NULL && newest->count < newest->room)
        return newest;
    uint32_t room = newest == NULL ? FIRST_ROOM : newest->room * 2;
    if (room > LARGEST_ROOM)
        room = LARGEST_ROOM;
    run *made = ps_arena_take(&layer->arena, sizeof *made + room * sizeof *made->values);
    if (made == NULL)
        return NULL;
    *made = (run){.older = newest, .room = room};
    of->newest = made;
    return made;
}

static int
put_one(ps_open_layer *layer, const ps_entry *entry, uint32_t hash, const uint8_t *data)
{
    node *of = find_or_add(layer, &entry->key, hash);
    run *to = of == NULL ? NULL : run_with_room(layer, of);
    if (to == NULL)
        return PS_ERR_NOMEM;
    to->values[to->count++] = (value){.data = data,
                                      .lsn = entry->lsn,
                                      .length = entry->length,
                                      .kind = entry->kind,
                                      .flags = entry->flags};
    if (ps_value_ends_chain(entry->kind, entry->flags))
        of->weight = 0;
    of->weight += ps_value_weight(entry->kind);
    if (of->weight > layer->stats.depth)
        layer->stats.depth = of->weight;
    /* Whoever sees that there is a first one sees a last one too. */
    __atomic_store_n(&layer->stats.last_lsn, entry->lsn, __ATOMIC_RELAXED);
    if (layer->stats.entries++ == 0)
        __atomic_store_n(&layer->stats.first_lsn, entry->lsn, __ATOMIC_RELEASE);
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

/* Of the keys that come next, begins to load what will be looked at: the slot of the one that
 * is farthest, the node of a nearer one, the run of a nearer one still. Must be inlined: of a
 * call that only prefetches gcc sees no effect, and drops it. */
static inline __attribute__((always_inline)) void
prefetch(const ps_open_layer *layer, const uint32_t *hashes, size_t at, size_t end)
{
    enum { RUN_AHEAD = 4, NODE_AHEAD = 8, SLOT_AHEAD = 16 };
    if (at + SLOT_AHEAD < end)
        __builtin_prefetch(&layer->slots[hashes[at + SLOT_AHEAD] & layer->slot_mask]);
    if (at + NODE_AHEAD < end)
        __builtin_prefetch(layer->slots[hashes[at + NODE_AHEAD] & layer->slot_mask].at);
    if (at + RUN_AHEAD >= end)
        return;
    const node *near = layer->slots[hashes[at + RUN_AHEAD] & layer->slot_mask].at;
    if (near != NULL && near->newest != NULL)
        __builtin_prefetch(&near->newest->values[near->newest->count], 1);
}

/* Entries [from, end) of a batch, with the lock held. *data is the payload put last. */
static int
put_some(ps_open_layer *layer, const ps_batch *batch, size_t from, size_t end,
         const uint8_t **data, ps_error *err)
{
    uint32_t hashes[PUT_STRIDE];
    for (size_t i = from; i < end; i++)
        hashes[i - from] = key_hash(&batch->entries[i].key);
    for (size_t i = from; i < end; i++) {
        const ps_entry *entry = &batch->entries[i];
        prefetch(layer, hashes, i - from, end - from);
        /* A record that changes several blocks stands in the batch once, and once here. */
        if (i == 0 || entry->offset != entry[-1].offset || entry->length != entry[-1].length)
            *data = ps_arena_copy(&layer->arena, batch->data + entry->offset, entry->length);
        int rc = *data == NULL ? PS_ERR_NOMEM : put_one(layer, entry, hashes[i - from], *data);
        if (rc < 0)
            return ps_fail(err, rc, "out of memory in the open layer");
    }
    return PS_OK;
}

int
ps_open_layer_put(ps_open_layer *layer, const ps_batch *batch, ps_error *err)
{
    /* Only the one writer changes last_lsn and frozen's owner orders freeze after put. */
    int rc = check_batch(batch, layer->stats.last_lsn, err);
    const uint8_t *data = NULL;
    /* In strides, so that readers wait for some of a batch and not for all of it. */
    for (size_t i = 0; rc == PS_OK && i < batch->count;) {
        size_t end = batch->count - i > PUT_STRIDE ? i + PUT_STRIDE : batch->count;
        pthread_rwlock_wrlock(&layer->lock);
        rc = layer->frozen ? ps_fail(err, PS_ERR_CLOSED, "the layer is frozen")
                           : put_some(layer, batch, i, end, &data, err);
        layer->stats.bytes = layer->arena.reserved + (layer->slot_mask + 1) * sizeof(slot);
        pthread_rwlock_unlock(&layer->lock);
        i = end;
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
ps_open_layer_bounds(const ps_open_layer *layer, uint64_t *first, uint64_t *last)
{
    *first = __atomic_load_n(&layer->stats.first_lsn, __ATOMIC_ACQUIRE);
    *last = __atomic_load_n(&layer->stats.last_lsn, __ATOMIC_RELAXED);
    return *first == 0 ? PS_ERR_NOT_FOUND : PS_OK;
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
        const node *found = chain->complete ? NULL : find(layer, key);
        place at = found == NULL ? (place){0} : visible(found, lsn);
        for (; rc == PS_OK && at.in != NULL && !chain->complete; at = older(at)) {
            const value *v = value_at(at);
            rc = ps_chain_add(chain, v->lsn, v->kind, v->flags, v->data, v->length, err);
        }
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
            const value *seen =
                in_range(&at->key, low, high) ? value_at(visible(at, lsn)) : NULL;
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
                .key = at->key,
                .lsn = seen->lsn,
                .kind = seen->kind,
                .length = seen->length,
                .data = seen->data};
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
                (rc == PS_OK && ps_key_compare(&at->key, found) <= 0) ||
                visible(at, lsn).in == NULL)
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

/* Begins to load the node, run, newest value and payload of keys that come soon, one by one. */
static inline __attribute__((always_inline)) void
prefetch_chains(const sorted_node *nodes, uint64_t at, uint64_t keys)
{
    enum { PAYLOAD_AHEAD = 2, VALUE_AHEAD = 4, RUN_AHEAD = 6, NODE_AHEAD = 8 };
    if (at + NODE_AHEAD >= keys)
        return;
    const run *near = nodes[at + PAYLOAD_AHEAD].at->newest;
    const run *next = nodes[at + VALUE_AHEAD].at->newest;
    __builtin_prefetch(near->values[near->count - 1].data);
    __builtin_prefetch(&next->values[next->count - 1]);
    __builtin_prefetch(nodes[at + RUN_AHEAD].at->newest);
    __builtin_prefetch(nodes[at + NODE_AHEAD].at);
}

static int
write_chain(ps_layer_writer *writer, const node *from, ps_error *err)
{
    enum { PAYLOAD_AHEAD = 6 };
    int rc = PS_OK;
    for (const run *in = from->newest; in != NULL; in = in->older) {
        for (uint32_t i = in->count; rc == PS_OK && i > 0; i--) {
            const value *v = &in->values[i - 1];
            if (i > PAYLOAD_AHEAD)
                __builtin_prefetch(v[-PAYLOAD_AHEAD].data);
            rc = ps_layer_writer_add(writer, &from->key, v->lsn, v->kind, v->flags, v->data,
                                     v->length, err);
        }
    }
    return rc;
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
    uint64_t keys = layer->stats.keys;
    for (uint64_t i = 0; rc == PS_OK && i < keys; i++) {
        prefetch_chains(nodes, i, keys);
        rc = write_chain(writer, nodes[i].at, err);
    }
    free(nodes);
    if (rc == PS_OK)
        rc = ps_layer_writer_finish(writer, summary, err);
    ps_layer_writer_free(writer);
    return rc;
}
