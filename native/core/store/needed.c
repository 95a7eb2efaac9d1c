#include "store/needed.h"

#define KEYS_AT_ONCE 64u

/* A search for a read that differs without a layer. */
typedef struct search {
    const ps_snapshot *with;
    const ps_snapshot *without;
    uint64_t lsn;
    ps_key rel;       /* whose length is known, as a REL_SIZE key */
    int has_rel;
    uint32_t length;  /* in blocks */
    ps_error *err;
} search;

/* Whether a block lies within its relation; 1 of any other key. */
static int
is_read(search *s, const ps_key *key)
{
    if (ps_key_kind(key) != PS_KIND_REL_BLOCK)
        return 1;
    ps_key rel = ps_key_make(PS_KIND_REL_SIZE, ps_key_spc(key), ps_key_db(key), ps_key_rel(key),
                             ps_key_fork(key), 0);
    if (!s->has_rel || ps_key_compare(&rel, &s->rel) != 0) {
        ps_arena arena;
        ps_arena_init(&arena);
        const uint8_t *data = NULL;
        uint32_t length = 0;
        int rc = ps_snapshot_get(s->with, &rel, s->lsn, &arena, &data, &length, s->err);
        s->length = 0;
        if (rc == PS_OK && length == sizeof s->length)
            memcpy(&s->length, data, sizeof s->length);
        ps_arena_free(&arena);
        if (rc < 0 && rc != PS_ERR_NOT_FOUND)
            return rc;
        s->rel = rel;
        s->has_rel = 1;
    }
    return ps_key_block(key) < s->length;
}

/* Where a chain says no more than that there is nothing, it might as well be empty. */
static uint32_t
values_of(const ps_chain *chain)
{
    return chain->count == 1 && chain->items[0].kind == PS_VALUE_TOMBSTONE ? 0 : chain->count;
}

static int
is_same(const ps_chain *a, const ps_chain *b)
{
    if (values_of(a) != values_of(b))
        return 0;
    for (uint32_t i = 0; i < values_of(a); i++) {
        const ps_chain_item *x = &a->items[i], *y = &b->items[i];
        if (x->lsn != y->lsn || x->kind != y->kind || x->flags != y->flags ||
            x->length != y->length || memcmp(x->data, y->data, x->length) != 0)
            return 0;
    }
    return 1;
}

/* 1 when a read of one of the keys differs. */
static int
differ(search *s, const ps_key *keys, size_t count)
{
    uint32_t order[KEYS_AT_ONCE];
    ps_chain with[KEYS_AT_ONCE], without[KEYS_AT_ONCE];
    ps_arena arena;
    ps_arena_init(&arena);
    for (uint32_t i = 0; i < count; i++) {
        order[i] = i;
        with[i] = without[i] = (ps_chain){.arena = &arena};
    }
    int rc = ps_snapshot_collect(s->with, keys, order, count, s->lsn, with, s->err);
    if (rc >= 0)
        rc = ps_snapshot_collect(s->without, keys, order, count, s->lsn, without, s->err);
    for (size_t i = 0; rc == PS_OK && i < count; i++)
        rc = !is_same(&with[i], &without[i]);
    ps_arena_free(&arena);
    return rc;
}

/* The next key of the layer behind the cursor's, and the cursor on it. */
static int
next_key(ps_layer_cursor *cursor, ps_key *key, ps_error *err)
{
    ps_layer_value_header header;
    const uint8_t *data;
    ps_layer_cursor_value(cursor, &header, &data);
    *key = header.key;
    return ps_layer_cursor_seek(cursor, &header.key, 0, 0, err);
}

/* The values of one key at one LSN lie side by side, so LSN 0 is behind the last of a key. */
static int
search_keys(search *s, ps_layer *layer)
{
    ps_layer_cursor cursor;
    ps_key first, keys[KEYS_AT_ONCE];
    memset(&first, 0, sizeof first);
    int rc = ps_layer_cursor_open(&cursor, layer, s->err);
    if (rc < 0)
        return rc;
    rc = ps_layer_cursor_seek(&cursor, &first, UINT64_MAX, 0, s->err);
    while (rc == PS_OK && cursor.valid) {
        size_t count = 0;
        while (rc == PS_OK && cursor.valid && count < KEYS_AT_ONCE) {
            rc = next_key(&cursor, &keys[count], s->err);
            int wanted = rc < 0 ? rc
                         : ps_key_kind(&keys[count]) == PS_KIND_COMMIT_TIME
                             ? 0
                             : is_read(s, &keys[count]);
            if (wanted < 0)
                rc = wanted;
            else
                count += (size_t)wanted;
        }
        if (rc == PS_OK && count > 0)
            rc = differ(s, keys, count);
    }
    ps_layer_cursor_close(&cursor);
    return rc;
}

/* 1 when another commit would be the last, or none. */
static int
search_times(const search *s)
{
    ps_key low = ps_key_make(PS_KIND_COMMIT_TIME, 0, 0, 0, 0, 0);
    ps_key high = ps_key_make(PS_KIND_COMMIT_TIME + 1, 0, 0, 0, 0, 0);
    ps_key with, without;
    int rc = ps_snapshot_last(s->with, &low, &high, s->lsn, &with, s->err);
    if (rc == PS_ERR_NOT_FOUND)
        return 0;
    if (rc < 0)
        return rc;
    rc = ps_snapshot_last(s->without, &low, &high, s->lsn, &without, s->err);
    if (rc == PS_ERR_NOT_FOUND)
        return 1;
    return rc < 0 ? rc : ps_key_compare(&with, &without) != 0;
}

int
ps_layer_is_needed(const ps_snapshot *snapshot, ps_layer *layer, const uint64_t *lsns,
                   size_t count, ps_error *err)
{
    ps_source source = ps_source_of_file(layer);
    ps_snapshot *without = ps_snapshot_replace(snapshot, &source, 1, NULL, 0);
    if (without == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a snapshot");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (lsns[i] < source.lower)
            continue;
        search s = {.with = snapshot, .without = without, .lsn = lsns[i], .err = err};
        rc = search_times(&s);
        if (rc == 0)
            rc = search_keys(&s, layer);
    }
    ps_snapshot_release(without);
    return rc;
}
