/* Ordered walks over a snapshot: a merge of one cursor a source. */
#include <stdlib.h>

#include "store/candidates.h"

/* A source's position: its next key in range that has a value at or below the bound. */
typedef struct walk {
    uint64_t upto;
    int image; /* the source is an image layer */
    int valid;
    ps_key key;
    uint64_t lsn;
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
            w->lsn = header.lsn;
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
    w->lsn = item->lsn;
    w->kind = item->kind;
    w->length = item->length;
    w->data = item->data;
}

static int
walk_begin(walk *w, const ps_candidate *from, const ps_key *low, const ps_key *high, ps_error *err)
{
    w->upto = from->upper;
    w->image = from->image;
    if (from->source->open != NULL) {
        int rc = ps_open_layer_range(from->source->open, low, high, w->upto, &w->items,
                                     &w->item_count, err);
        take_item(w);
        return rc;
    }
    int rc = ps_layer_cursor_open(&w->cursor, from->source->file, err);
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

/* Whether a walk stands at a lesser key than another, or has a newer value of the same. Those
 * that are equal in all come as candidates do. */
static int
is_ahead(const walk *a, const walk *b)
{
    int order = ps_key_compare(&a->key, &b->key);
    if (order != 0)
        return order < 0;
    if (a->lsn != b->lsn)
        return a->lsn > b->lsn;
    return a->image && !b->image;
}

static walk *
foremost(walk *walks, size_t count)
{
    walk *found = NULL;
    for (size_t i = 0; i < count; i++)
        if (walks[i].valid && (found == NULL || is_ahead(&walks[i], found)))
            found = &walks[i];
    return found;
}

/*
 * Whether a key was changed beyond an LSN, by its newest value. A page in an image layer may
 * be older than the layer: its first eight bytes are the LSN of its last change, as Postgres writes
 * it (the high half first); none is 0 but one that was never logged.
 */
static int
is_changed(const walk *w, uint64_t after)
{
    if (w->lsn <= after || !w->image || w->length != PS_PAGE_SIZE)
        return w->lsn > after;
    uint32_t high, low;
    memcpy(&high, w->data, sizeof high);
    memcpy(&low, w->data + sizeof high, sizeof low);
    uint64_t changed = (uint64_t)high << 32 | low;
    return changed == 0 || changed > after;
}

/* With `after`, of keys that were changed beyond it, be it that there is nothing any more. */
static int
merge(walk *walks, size_t count, const ps_key *high, uint64_t after, ps_visit visit, void *arg,
      ps_error *err)
{
    for (walk *newest; (newest = foremost(walks, count)) != NULL;) {
        int wanted = after > 0 ? is_changed(newest, after) : newest->kind != PS_VALUE_TOMBSTONE;
        if (wanted && visit(arg, &newest->key, newest->data, newest->length) != 0)
            return PS_OK;
        ps_key key = newest->key;
        for (walk *w = walks; w < walks + count; w++) { /* past the older values, too */
            if (!w->valid || ps_key_compare(&w->key, &key) != 0)
                continue;
            int rc = walk_next(w, high, err);
            if (rc < 0)
                return rc;
        }
    }
    return PS_OK;
}

static int
scan_candidates(const ps_candidates *found, const ps_key *low, const ps_key *high, uint64_t after,
                ps_visit visit, void *arg, ps_error *err)
{
    walk *walks = calloc(found->count + 1, sizeof *walks);
    if (walks == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a scan");
    int rc = PS_OK;
    size_t begun = 0;
    for (size_t i = 0; rc == PS_OK && i < found->count; i++) {
        if (found->items[i].upper <= after)
            continue; /* all of it is older */
        rc = walk_begin(&walks[begun], &found->items[i], low, high, err);
        begun++;
    }
    if (rc == PS_OK)
        rc = merge(walks, begun, high, after, visit, arg, err);
    for (size_t i = 0; i < begun; i++)
        walk_end(&walks[i]);
    free(walks);
    return rc;
}

static int
scan(const ps_snapshot *snapshot, const ps_key *low, const ps_key *high, uint64_t after,
     uint64_t lsn, ps_visit visit, void *arg, ps_error *err)
{
    if (ps_key_compare(low, high) >= 0)
        return PS_OK;
    ps_candidates found;
    ps_candidates_init(&found);
    int rc = ps_candidates_within(&found, snapshot, low, high, lsn);
    rc = rc < 0 ? ps_fail(err, rc, "out of memory for a scan")
                : scan_candidates(&found, low, high, after, visit, arg, err);
    ps_candidates_free(&found);
    return rc;
}

int
ps_snapshot_scan(const ps_snapshot *snapshot, const ps_key *low, const ps_key *high, uint64_t lsn,
                 ps_visit visit, void *arg, ps_error *err)
{
    return scan(snapshot, low, high, 0, lsn, visit, arg, err);
}

int
ps_snapshot_changed(const ps_snapshot *snapshot, const ps_key *low, const ps_key *high,
                    uint64_t after, uint64_t lsn, ps_visit visit, void *arg, ps_error *err)
{
    return after < lsn ? scan(snapshot, low, high, after, lsn, visit, arg, err) : PS_OK;
}

static int
last_in_file(ps_layer *layer, const ps_key *low, const ps_key *high, uint64_t upto, ps_key *found,
             ps_error *err)
{
    const ps_layer_summary *known = ps_layer_known(layer);
    if (ps_key_compare(&known->max_key, low) < 0) /* `low` rises with what is found */
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
last_candidate(const ps_candidates *among, const ps_key *low, const ps_key *high, ps_key *found,
               ps_error *err)
{
    int answer = PS_ERR_NOT_FOUND;
    for (size_t i = 0; i < among->count; i++) {
        const ps_candidate *from = &among->items[i];
        const ps_key *above = answer == PS_OK ? found : low; /* only greater ones matter */
        ps_key key;
        int rc = from->source->open != NULL
                     ? ps_open_layer_last(from->source->open, above, high, from->upper, &key)
                     : last_in_file(from->source->file, above, high, from->upper, &key, err);
        if (rc == PS_OK) {
            *found = key;
            answer = PS_OK;
        } else if (rc != PS_ERR_NOT_FOUND) {
            return rc;
        }
    }
    return answer;
}

static int
is_alive(const ps_snapshot *snapshot, const ps_key *key, uint64_t lsn, int *alive, ps_error *err)
{
    ps_arena arena;
    ps_arena_init(&arena);
    ps_chain chain = {.arena = &arena, .newest_only = 1};
    int rc = ps_snapshot_collect(snapshot, key, &(uint32_t){0}, 1, lsn, &chain, err);
    *alive = rc == PS_OK && chain.count > 0 && chain.items[0].kind != PS_VALUE_TOMBSTONE;
    ps_arena_free(&arena);
    return rc;
}

int
ps_snapshot_last(const ps_snapshot *snapshot, const ps_key *low, const ps_key *high, uint64_t lsn,
                 ps_key *found, ps_error *err)
{
    ps_candidates among;
    ps_candidates_init(&among);
    ps_key end = *high;
    int alive = 0;
    int rc = ps_candidates_within(&among, snapshot, low, high, lsn);
    if (rc < 0)
        ps_fail(err, rc, "out of memory for a scan");
    while (rc == PS_OK && !alive) {
        rc = last_candidate(&among, low, &end, found, err);
        if (rc == PS_OK)
            rc = is_alive(snapshot, found, lsn, &alive, err);
        end = *found; /* if it was deleted by then: look below it */
    }
    ps_candidates_free(&among);
    return rc;
}
