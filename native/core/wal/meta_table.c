#include "wal/meta_table.h"

#include <pthread.h>

typedef struct item {
    ps_key key;
    size_t length;
    uint8_t *value;
} item;

struct ps_meta_table {
    ps_meta_source source;
    pthread_mutex_t mutex;
    item *items; /* ascending */
    size_t count;
    size_t capacity;
};

/* The first item whose key is not below `key`. */
static size_t
lower_bound(const ps_meta_table *t, const ps_key *key)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ps_key_compare(&t->items[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int
holds(const ps_meta_table *t, size_t at, const ps_key *key)
{
    return at < t->count && ps_key_compare(&t->items[at].key, key) == 0;
}

static int
get(void *context, const ps_key *key, uint64_t lsn, uint8_t *out, size_t capacity,
    size_t *length, ps_error *err)
{
    ps_meta_table *t = context;
    int rc = PS_OK;
    (void)lsn;
    pthread_mutex_lock(&t->mutex);
    size_t at = lower_bound(t, key);
    if (!holds(t, at, key)) {
        rc = PS_ERR_NOT_FOUND;
    } else if (t->items[at].length > capacity) {
        rc = ps_fail(err, PS_ERR_INVALID, "the value has %zu bytes, %zu were expected",
                     t->items[at].length, capacity);
    } else {
        *length = t->items[at].length;
        if (*length > 0)
            memcpy(out, t->items[at].value, *length);
    }
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

static int
scan(void *context, const ps_key *low, const ps_key *high, uint64_t lsn,
     int (*visit)(void *arg, const ps_key *key, const uint8_t *value, size_t length), void *arg,
     ps_error *err)
{
    ps_meta_table *t = context;
    (void)lsn;
    (void)err;
    pthread_mutex_lock(&t->mutex);
    for (size_t at = lower_bound(t, low); at < t->count; at++) {
        const item *i = &t->items[at];
        if (ps_key_compare(&i->key, high) >= 0 || visit(arg, &i->key, i->value, i->length) != 0)
            break;
    }
    pthread_mutex_unlock(&t->mutex);
    return PS_OK;
}

ps_meta_table *
ps_meta_table_new(void)
{
    ps_meta_table *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    if (pthread_mutex_init(&t->mutex, NULL) != 0) {
        free(t);
        return NULL;
    }
    t->source = (ps_meta_source){.context = t, .get = get, .scan = scan};
    return t;
}

void
ps_meta_table_free(ps_meta_table *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->count; i++)
        free(t->items[i].value);
    free(t->items);
    pthread_mutex_destroy(&t->mutex);
    free(t);
}

const ps_meta_source *
ps_meta_table_source(ps_meta_table *t)
{
    return &t->source;
}

static int
make_room(ps_meta_table *t, size_t at, const ps_key *key)
{
    if (t->count == t->capacity) {
        size_t grown = t->capacity ? t->capacity * 2 : 64;
        item *moved = realloc(t->items, grown * sizeof *moved);
        if (moved == NULL)
            return PS_ERR_NOMEM;
        t->items = moved;
        t->capacity = grown;
    }
    memmove(t->items + at + 1, t->items + at, (t->count - at) * sizeof *t->items);
    t->items[at] = (item){.key = *key};
    t->count++;
    return PS_OK;
}

static int
put(ps_meta_table *t, const ps_key *key, const void *value, size_t length)
{
    size_t at = lower_bound(t, key);
    /* Copied first, so that a failure leaves the table as it was; malloc(0) may say NULL. */
    uint8_t *copy = malloc(length > 0 ? length : 1);
    if (copy == NULL)
        return PS_ERR_NOMEM;
    if (!holds(t, at, key) && make_room(t, at, key) != PS_OK) {
        free(copy);
        return PS_ERR_NOMEM;
    }
    if (length > 0)
        memcpy(copy, value, length);
    free(t->items[at].value);
    t->items[at].value = copy;
    t->items[at].length = length;
    return PS_OK;
}

static void
drop(ps_meta_table *t, const ps_key *key)
{
    size_t at = lower_bound(t, key);
    if (!holds(t, at, key))
        return;
    free(t->items[at].value);
    t->count--;
    memmove(t->items + at, t->items + at + 1, (t->count - at) * sizeof *t->items);
}

int
ps_meta_table_put(ps_meta_table *t, const ps_key *key, const void *value, size_t length)
{
    pthread_mutex_lock(&t->mutex);
    int rc = put(t, key, value, length);
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

int
ps_meta_table_remove(ps_meta_table *t, const ps_key *key)
{
    pthread_mutex_lock(&t->mutex);
    drop(t, key);
    pthread_mutex_unlock(&t->mutex);
    return PS_OK;
}

int
ps_meta_table_apply(ps_meta_table *t, const ps_batch *batch)
{
    int rc = PS_OK;
    pthread_mutex_lock(&t->mutex);
    for (size_t i = 0; rc == PS_OK && i < batch->count; i++) {
        const ps_entry *e = &batch->entries[i];
        if (ps_key_is_page(&e->key))
            continue;
        if (e->kind == PS_VALUE_TOMBSTONE)
            drop(t, &e->key);
        else
            rc = put(t, &e->key, batch->data + e->offset, e->length);
    }
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

size_t
ps_meta_table_count(ps_meta_table *t)
{
    pthread_mutex_lock(&t->mutex);
    size_t count = t->count;
    pthread_mutex_unlock(&t->mutex);
    return count;
}
