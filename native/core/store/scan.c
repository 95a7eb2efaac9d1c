/* Ordered walks over a snapshot: a merge of one cursor a source, newest source first. */
#include <stdlib.h>

#include "store/snapshot.h"

/* A source's position: its next key in range that has a value at or below the cap. */
typedef struct walk {
    uint64_t upto;
    int valid;
    ps_key key;
    uint8_t kind;
    uint32_t length;
    const uint8_t *data;
    ps_open_item *items; /* of an open layer */
    size_t item_count;
    size_t item;
    ps_layer_cursor cursor; /* of a file */
} walk;

/* From the cursor's place to the first value that is not too new. */
static int
settle(walk *w, const ps_key *high, ps_error *err)
{
    int rc = PS_OK;
    w->valid = 0;
    while (rc == PS_OK && w->cursor.valid) {
        ps_layer_value_header header;
        const uint8_t *data;
        ps_layer_cursor_value(&w->cursor, &header, &data);
        if (ps_key_compare(&header.key, high) >= 0)
            return PS_OK;
        if (header.lsn <= w->upto) {
            w->valid = 1;
            w->key = header.key;
            w->kind = header.kind;
            w->length = header.length;
            w->data = data;
            return PS_OK;
        }
        /* Its values lie newest first: to the first that is not too new, or to the next key. */
        rc = ps_layer_cursor_seek(&w->cursor, &header.key, w->upto, 0, err);
    }
    return rc;
}

static void
take_item(walk *w)
{
    w->valid = w->item < w->item_count;
    if (!w->valid)
        return;
    const ps_open_item *item = &w->items[w->item];
    w->key = item->key;
    w->kind = item->kind;
    w->length = item->length;
    w->data = item->data;
}

static int
walk_begin(walk *w, const ps_source *source, const ps_key *low, const ps_key *high, uint64_t lsn,
           ps_error *err)
{
    w->upto = source->max_lsn < lsn ? source->max_lsn : lsn;
    if (source->open != NULL) {
        int rc = ps_open_layer_range(source->open, low, high, w->upto, &w->items, &w->item_count,
                                     err);
        take_item(w);
        return rc;
    }
    const ps_layer_summary *known = ps_layer_known(source->file);
    if (known->first_lsn > w->upto || ps_key_compare(&known->max_key, low) < 0 ||
        ps_key_compare(&known->min_key, high) >= 0)
        return PS_OK;
    int rc = ps_layer_cursor_open(&w->cursor, source->file, err);
    if (rc == PS_OK)
        rc = ps_layer_cursor_seek(&w->cursor, low, UINT64_MAX, 0, err);
    return rc == PS_OK ? settle(w, high, err) : rc;
}

static int
walk_next(walk *w, const ps_key *high, ps_error *err)
{
    if (w->items != NULL) {
        w->item++;
        take_item(w);
        return PS_OK;
    }
    /* Behind the oldest value of this key: chains of metadata are short, pages' are not. */
    ps_key key = w->key;
    int rc = ps_layer_cursor_next(&w->cursor, err);
    if (rc == PS_OK && w->cursor.valid) {
        ps_layer_value_header header;
        const uint8_t *data;
        ps_layer_cursor_value(&w->cursor, &header, &data);
        if (ps_key_compare(&header.key, &key) == 0) {
            rc = ps_layer_cursor_seek(&w->cursor, &key, 0, 0, err);
            while (rc == PS_OK && w->cursor.valid) {
                ps_layer_cursor_value(&w->cursor, &header, &data);
                if (ps_key_compare(&header.key, &key) != 0)
                    break;
                rc = ps_layer_cursor_next(&w->cursor, err);
            }
        }
    }
    return rc == PS_OK ? settle(w, high, err) : rc;
}

static void
walk_end(walk *w)
{
    free(w->items);
    ps_layer_cursor_close(&w->cursor);
}

/* Of the sources that stand at the least key, the first: its value is the newest. */
static walk *
least(walk *walks, size_t count)
{
    walk *found = NULL;
    for (size_t i = 0; i < count; i++)
        if (walks[i].valid && (found == NULL || ps_key_compare(&walks[i].key, &found->key) < 0))
            found = &walks[i];
    return found;
}

static int
merge(walk *walks, size_t count, const ps_key *high, ps_visit visit, void *arg, ps_error *err)
{
    for (walk *newest; (newest = least(walks, count)) != NULL;) {
        if (newest->kind != PS_VALUE_TOMBSTONE &&
            visit(arg, &newest->key, newest->data, newest->length) != 0)
            return PS_OK;
        ps_key key = newest->key;
        /* The older sources' values of this key; those before stand at greater ones. */
        for (walk *w = newest; w < walks + count; w++) {
            if (!w->valid || ps_key_compare(&w->key, &key) != 0)
                continue;
            int rc = walk_next(w, high, err);
            if (rc < 0)
                return rc;
        }
    }
    return PS_OK;
}

int
ps_snapshot_scan(const ps_snapshot *snapshot, const ps_key *low, const ps_key *high, uint64_t lsn,
                 ps_visit visit, void *arg, ps_error *err)
{
    if (snapshot->count == 0 || ps_key_compare(low, high) >= 0)
        return PS_OK;
    walk *walks = calloc(snapshot->count, sizeof *walks);
    if (walks == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a scan");
    int rc = PS_OK;
    size_t begun = 0;
    while (rc == PS_OK && begun < snapshot->count) {
        rc = walk_begin(&walks[begun], &snapshot->sources[begun], low, high, lsn, err);
        begun++;
    }
    if (rc == PS_OK)
        rc = merge(walks, snapshot->count, high, visit, arg, err);
    for (size_t i = 0; i < begun; i++)
        walk_end(&walks[i]);
    free(walks);
    return rc;
}

static int
last_in_file(ps_layer *layer, const ps_key *low, const ps_key *high, uint64_t upto, ps_key *found,
             ps_error *err)
{
    const ps_layer_summary *known = ps_layer_known(layer);
    if (known->first_lsn > upto || ps_key_compare(&known->max_key, low) < 0 ||
        ps_key_compare(&known->min_key, high) >= 0)
        return PS_ERR_NOT_FOUND;
    ps_layer_cursor cursor;
    int rc = ps_layer_cursor_open(&cursor, layer, err);
    if (rc == PS_OK)
        rc = ps_layer_cursor_seek(&cursor, high, UINT64_MAX, 1, err);
    int answer = PS_ERR_NOT_FOUND;
    while (rc == PS_OK && cursor.valid) {
        ps_layer_value_header header;
        const uint8_t *data;
        ps_layer_cursor_value(&cursor, &header, &data);
        if (ps_key_compare(&header.key, low) < 0)
            break;
        if (header.lsn <= upto) {
            *found = header.key;
            answer = PS_OK;
            break;
        }
        rc = ps_layer_cursor_previous(&cursor, err);
    }
    ps_layer_cursor_close(&cursor);
    return rc < 0 ? rc : answer;
}

/* The greatest key below `high` of which any source has a value, tombstones included. */
static int
last_candidate(const ps_snapshot *snapshot, const ps_key *low, const ps_key *high, uint64_t lsn,
               ps_key *found, ps_error *err)
{
    int answer = PS_ERR_NOT_FOUND;
    for (size_t i = 0; i < snapshot->count; i++) {
        const ps_source *source = &snapshot->sources[i];
        uint64_t upto = source->max_lsn < lsn ? source->max_lsn : lsn;
        const ps_key *from = answer == PS_OK ? found : low; /* only greater ones matter */
        ps_key key;
        int rc = source->open != NULL
                     ? ps_open_layer_last(source->open, from, high, upto, &key)
                     : last_in_file(source->file, from, high, upto, &key, err);
        if (rc == PS_OK) {
            *found = key;
            answer = PS_OK;
        } else if (rc != PS_ERR_NOT_FOUND) {
            return rc;
        }
    }
    return answer;
}

int
ps_snapshot_last(const ps_snapshot *snapshot, const ps_key *low, const ps_key *high, uint64_t lsn,
                 ps_key *found, ps_error *err)
{
    ps_key end = *high;
    for (;;) {
        int rc = last_candidate(snapshot, low, &end, lsn, found, err);
        if (rc != PS_OK)
            return rc;
        ps_arena arena;
        ps_arena_init(&arena);
        ps_chain chain = {.arena = &arena, .newest_only = 1};
        rc = ps_snapshot_collect(snapshot, found, &(uint32_t){0}, 1, lsn, &chain, err);
        int alive = rc == PS_OK && chain.count > 0 && chain.items[0].kind != PS_VALUE_TOMBSTONE;
        ps_arena_free(&arena);
        if (rc < 0 || alive)
            return rc;
        end = *found; /* it was deleted by then: look below it */
    }
}
