#include "store/history.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/page_read.h"

/* What one survey has in its hands. */
typedef struct survey {
    ps_history *history;
    const ps_key *key;
    const char *path;
    ps_layer_cursor *cursors; /* one a layer, from the oldest value of the key on */
    size_t count;
    ps_arena arena;
    ps_redo_item *items; /* since the last whole page, oldest first */
    size_t item_count;
    size_t item_capacity;
    uint64_t weight;
    uint64_t bytes;
    uint64_t lsn;      /* of the last of them */
    int whole;         /* `page` is what they are applied to */
    int zeros;         /* it is a page of zeros */
    uint8_t page[PS_PAGE_SIZE];
} survey;

void
ps_history_init(ps_history *history, const ps_snapshot *snapshot, ps_redo_pool *redo,
                const ps_chain_bounds *bounds, const ps_pace *pace)
{
    *history = (ps_history){
        .snapshot = snapshot, .redo = redo, .pace = pace, .bounds = *bounds, .spool = -1};
}

void
ps_history_free(ps_history *history)
{
    if (history->spool >= 0)
        close(history->spool);
    free(history->lsns);
}

static int
spool_error(const survey *s, const char *what, ps_error *err)
{
    int code = errno == ENOSPC || errno == EDQUOT ? PS_ERR_NO_SPACE : PS_ERR_IO;
    return ps_fail(err, code, "%s: cannot %s images: %s", s->path, what, strerror(errno));
}

static int
open_spool(survey *s, ps_error *err)
{
    char name[4096];
    int length = snprintf(name, sizeof name, "%s.images", s->path);
    if (length < 0 || (size_t)length >= sizeof name)
        return ps_fail(err, PS_ERR_INVALID, "%s: too long a path", s->path);
    s->history->spool = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (s->history->spool < 0)
        return spool_error(s, "spool", err);
    unlink(name);
    return PS_OK;
}

/* Keeps `page` as what the page is at an LSN. */
static int
keep(survey *s, ps_error *err)
{
    ps_history *history = s->history;
    int rc = history->spool < 0 ? open_spool(s, err) : PS_OK;
    if (rc < 0)
        return rc;
    if (history->count == history->capacity) {
        size_t grown = history->capacity == 0 ? 64 : history->capacity * 2;
        uint64_t *lsns = realloc(history->lsns, grown * sizeof *lsns);
        if (lsns == NULL)
            return ps_fail(err, PS_ERR_NOMEM, "out of memory for a page's history");
        history->lsns = lsns;
        history->capacity = grown;
    }
    off_t at = (off_t)history->count * (off_t)PS_PAGE_SIZE;
    if (pwrite(history->spool, s->page, PS_PAGE_SIZE, at) != (ssize_t)PS_PAGE_SIZE)
        return spool_error(s, "spool", err);
    history->lsns[history->count++] = s->lsn;
    history->made++;
    return PS_OK;
}

static void
forget_items(survey *s)
{
    ps_arena_free(&s->arena);
    s->items = NULL;
    s->item_count = s->item_capacity = 0;
    s->weight = s->bytes = 0;
}

static int
has_record(const survey *s)
{
    for (size_t i = 0; i < s->item_count; i++)
        if (s->items[i].kind == PS_VALUE_RECORD)
            return 1;
    return 0;
}

/* Brings `page` to where the last item leads. */
static int
apply(survey *s, ps_error *err)
{
    ps_history *history = s->history;
    if (!s->whole) {
        uint8_t *out = s->page;
        return ps_snapshot_read_pages(history->snapshot, s->key, 1, s->lsn, &out, history->redo,
                                      err);
    }
    if (!has_record(s)) {
        int rc = PS_OK;
        for (size_t i = 0; rc == PS_OK && i < s->item_count; i++)
            rc = ps_patch_apply(s->page, s->items[i].data, s->items[i].length);
        return rc < 0 ? ps_fail(err, PS_ERR_CORRUPT, "%s: a patch leaves the page", s->path) : rc;
    }
    if (history->redo == NULL)
        return ps_fail(err, PS_ERR_NO_POSTGRES, "no redo helpers");
    ps_redo_request request = {.key = *s->key,
                               .base = s->zeros ? NULL : s->page,
                               .items = s->items,
                               .count = s->item_count,
                               .out = s->page};
    int rc = ps_page_redo_flags(history->snapshot, s->lsn, &request.flags, err);
    return rc < 0 ? rc : ps_redo_apply(history->redo, &request, 1, err);
}

/* Whether a page that cannot be made is the page's own matter. */
static int
is_refusal(int rc)
{
    return rc == PS_ERR_REDO || rc == PS_ERR_NO_POSTGRES || rc == PS_ERR_TIMEOUT ||
           rc == PS_ERR_NOT_FOUND || rc == PS_ERR_UNSUPPORTED;
}

/* An image of the page as it is behind the last item, if it is time for one. *refused: there is
 * nothing that later ones could be made from. */
static int
cut(survey *s, int *refused, ps_error *err)
{
    const ps_chain_bounds *bounds = &s->history->bounds;
    if (s->weight < (s->whole ? bounds->weight : bounds->open_weight) && s->bytes < bounds->bytes)
        return PS_OK;
    int rc = ps_pace_go_on(s->history->pace, err);
    if (rc == PS_OK)
        rc = apply(s, err);
    *refused = is_refusal(rc);
    if (*refused) {
        s->history->refused++;
        return PS_OK;
    }
    if (rc == PS_OK)
        rc = keep(s, err);
    forget_items(s);
    s->whole = 1;
    s->zeros = 0;
    return rc;
}

static int
add_item(survey *s, const ps_layer_value_header *header, const uint8_t *data, ps_error *err)
{
    if (s->item_count == s->item_capacity) {
        size_t grown = s->item_capacity == 0 ? 16 : s->item_capacity * 2;
        ps_redo_item *items = ps_arena_take(&s->arena, grown * sizeof *items);
        if (items == NULL)
            return ps_fail(err, PS_ERR_NOMEM, "out of memory for a page's history");
        if (s->item_count > 0)
            memcpy(items, s->items, s->item_count * sizeof *items);
        s->items = items;
        s->item_capacity = grown;
    }
    const uint8_t *kept = ps_arena_copy(&s->arena, data, header->length);
    if (kept == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a page's history");
    s->items[s->item_count++] = (ps_redo_item){.lsn = header->lsn,
                                               .kind = header->kind,
                                               .flags = header->flags,
                                               .length = header->length,
                                               .data = kept};
    s->weight += ps_value_weight(header->kind);
    s->bytes += header->length;
    return PS_OK;
}

static int
add(survey *s, const ps_layer_value_header *header, const uint8_t *data, ps_error *err)
{
    s->lsn = header->lsn;
    if (!ps_value_ends_chain(header->kind, header->flags))
        return add_item(s, header, data, err);
    forget_items(s);
    s->whole = 1;
    s->zeros = header->kind != PS_VALUE_IMAGE;
    memset(s->page, 0, PS_PAGE_SIZE);
    if (header->kind == PS_VALUE_RECORD)
        return add_item(s, header, data, err);
    if (header->kind == PS_VALUE_IMAGE && header->length != PS_PAGE_SIZE)
        return ps_fail(err, PS_ERR_CORRUPT, "%s: a page image of %u bytes", s->path,
                       header->length);
    if (header->kind == PS_VALUE_IMAGE)
        memcpy(s->page, data, PS_PAGE_SIZE);
    return PS_OK;
}

/* The cursor that stands at the oldest value; NULL at the end. `header` and `data` are its. */
static ps_layer_cursor *
oldest(const survey *s, ps_layer_value_header *header, const uint8_t **data)
{
    ps_layer_cursor *found = NULL;
    for (size_t i = 0; i < s->count; i++) {
        ps_layer_value_header value;
        const uint8_t *bytes;
        if (!s->cursors[i].valid)
            continue;
        ps_layer_cursor_value(&s->cursors[i], &value, &bytes);
        if (found == NULL || value.lsn < header->lsn) {
            found = &s->cursors[i];
            *header = value;
            *data = bytes;
        }
    }
    return found;
}

/* Leaves the cursor valid only while it stands at the key. */
static void
check_key(ps_layer_cursor *cursor, const ps_key *key)
{
    ps_layer_value_header header;
    const uint8_t *data;
    if (!cursor->valid)
        return;
    ps_layer_cursor_value(cursor, &header, &data);
    cursor->valid = ps_key_compare(&header.key, key) == 0;
}

static int
open_cursors(survey *s, ps_layer *const *layers, size_t count, ps_error *err)
{
    int rc = PS_OK;
    for (size_t i = 0; rc == PS_OK && i < count; i++) {
        const ps_layer_summary *known = ps_layer_known(layers[i]);
        if (ps_key_compare(s->key, &known->min_key) < 0 ||
            ps_key_compare(s->key, &known->max_key) > 0)
            continue;
        ps_layer_cursor *cursor = &s->cursors[s->count++];
        rc = ps_layer_cursor_open(cursor, layers[i], err);
        cursor->uncached = 1;
        if (rc == PS_OK)
            rc = ps_layer_cursor_seek(cursor, s->key, 0, 1, err);
        if (rc == PS_OK)
            check_key(cursor, s->key);
    }
    return rc;
}

static int
go_through(survey *s, ps_error *err)
{
    ps_layer_value_header header;
    const uint8_t *data;
    int rc = PS_OK, refused = 0;
    for (ps_layer_cursor *at; rc == PS_OK && (at = oldest(s, &header, &data)) != NULL;) {
        /* Values of one LSN belong together: an image at it stands for all of them. */
        if (header.lsn != s->lsn)
            rc = cut(s, &refused, err);
        if (refused)
            return PS_OK;
        if (rc == PS_OK)
            rc = add(s, &header, data, err);
        if (rc == PS_OK)
            rc = ps_layer_cursor_previous(at, err);
        if (rc == PS_OK)
            check_key(at, s->key);
    }
    return rc == PS_OK ? cut(s, &refused, err) : rc;
}

int
ps_history_survey(ps_history *history, const ps_key *key, ps_layer *const *layers, size_t count,
                  const char *path, ps_error *err)
{
    survey *s = calloc(1, sizeof *s);
    ps_layer_cursor *cursors = calloc(count + 1, sizeof *cursors);
    int rc = s == NULL || cursors == NULL
                 ? ps_fail(err, PS_ERR_NOMEM, "out of memory for a page's history")
                 : PS_OK;
    history->count = 0;
    if (rc == PS_OK) {
        *s = (survey){.history = history, .key = key, .path = path, .cursors = cursors};
        ps_arena_init(&s->arena);
        rc = open_cursors(s, layers, count, err);
        if (rc == PS_OK)
            rc = go_through(s, err);
        for (size_t i = 0; i < s->count; i++)
            ps_layer_cursor_close(&cursors[i]);
        ps_arena_free(&s->arena);
    }
    free(cursors);
    free(s);
    return rc;
}

int
ps_history_take(ps_history *history, uint64_t lsn, uint64_t *lsn_of, uint8_t *page, ps_error *err)
{
    *lsn_of = 0;
    if (history->count == 0 || history->lsns[history->count - 1] < lsn)
        return PS_OK;
    off_t at = (off_t)--history->count * (off_t)PS_PAGE_SIZE;
    if (pread(history->spool, page, PS_PAGE_SIZE, at) != (ssize_t)PS_PAGE_SIZE)
        return ps_fail(err, PS_ERR_IO, "cannot read a spooled image: %s", strerror(errno));
    *lsn_of = history->lsns[history->count];
    return PS_OK;
}
