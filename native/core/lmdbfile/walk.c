#include "lmdbfile/walk.h"

#include <stdlib.h>
#include <string.h>

#define NO_PAGE UINT64_MAX
#define INTEGER_KEYS 0x0008u
#define PAGE_HEAD 16u

typedef struct walk {
    const ps_lmdb_file *file;
    const ps_lmdb_tree *tree;
    ps_lmdb_used *used;
    uint64_t last_page;
    uint64_t branch_pages;
    uint64_t leaf_pages;
    uint64_t overflow_pages;
    uint64_t entries;
    uint8_t *levels; /* a page for each */
    uint8_t *last;   /* the key that was visited last */
    size_t last_length;
    uint8_t *big; /* a value that has pages of its own */
    size_t big_room;
    ps_lmdb_visit *visit;
    void *context;
    ps_error *err;
} walk;

int
ps_lmdb_mark(ps_lmdb_used *used, uint64_t number, uint64_t count, ps_error *err)
{
    if (number >= used->pages || count > used->pages - number)
        return ps_lmdb_damaged(err, 0, "pages are lost, or used twice");
    for (uint64_t page = number; page < number + count; page++) {
        if ((used->bits[page / 8] & 1u << page % 8) != 0)
            return ps_lmdb_damaged(err, 0, "pages are lost, or used twice");
        used->bits[page / 8] |= (uint8_t)(1u << page % 8);
        used->marked++;
    }
    return PS_OK;
}

/* Keys of the free list are numbers. */
static int
compare(const walk *w, ps_lmdb_bytes a, ps_lmdb_bytes b)
{
    if ((w->tree->flags & INTEGER_KEYS) != 0 && a.length == 8 && b.length == 8) {
        uint64_t left, right;
        memcpy(&left, a.data, 8);
        memcpy(&right, b.data, 8);
        return left < right ? -1 : left > right;
    }
    size_t common = a.length < b.length ? a.length : b.length;
    int order = memcmp(a.data, b.data, common);
    if (order != 0)
        return order;
    return a.length < b.length ? -1 : a.length > b.length;
}

static int
read_big(const ps_lmdb_file *file, const ps_lmdb_entry *entry, uint8_t **room, size_t *have,
         ps_error *err)
{
    if (entry->length > *have || *room == NULL) {
        uint8_t *larger = realloc(*room, (size_t)entry->length + 1);
        if (larger == NULL)
            return ps_fail(err, PS_ERR_NOMEM, "no memory for a value");
        *room = larger;
        *have = (size_t)entry->length;
    }
    return ps_lmdb_read_at(file, entry->number * file->page_size + PAGE_HEAD, *room,
                           (size_t)entry->length, err);
}

static int
visit_big(walk *w, const ps_lmdb_entry *entry)
{
    uint32_t pages;
    int status = ps_lmdb_overflow(w->file, w->last_page, entry, &pages, w->err);
    if (status == PS_OK)
        status = ps_lmdb_mark(w->used, entry->number, pages, w->err);
    if (status == PS_OK)
        status = read_big(w->file, entry, &w->big, &w->big_room, w->err);
    if (status != PS_OK)
        return status;
    w->overflow_pages += pages;
    ps_lmdb_bytes value = {w->big, (size_t)entry->length};
    return w->visit(w->context, entry->key, value, entry->flags, w->err);
}

/* `floor`: what parts the page from the one before it; no key of it is less. */
static int
visit_leaf(walk *w, const ps_lmdb_view *view, ps_lmdb_bytes floor)
{
    for (uint32_t i = 0; i < view->count; i++) {
        ps_lmdb_entry entry;
        int status = ps_lmdb_entry_at(w->file, view, i, &entry, w->err);
        if (status != PS_OK)
            return status;
        if ((w->tree->flags & INTEGER_KEYS) != 0 && entry.key.length != 8)
            return ps_lmdb_damaged(w->err, view->base, "a key that is no number");
        if (i == 0 && floor.data != NULL && compare(w, entry.key, floor) < 0)
            return ps_lmdb_damaged(w->err, view->base, "a key does not part the pages beside it");
        ps_lmdb_bytes last = {w->last, w->last_length};
        if (w->entries > 0 && compare(w, last, entry.key) >= 0)
            return ps_lmdb_damaged(w->err, view->base, "a tree's keys do not ascend");
        status = entry.flags == PS_LMDB_BIG
                     ? visit_big(w, &entry)
                     : w->visit(w->context, entry.key, entry.value, entry.flags, w->err);
        if (status != PS_OK)
            return status;
        memcpy(w->last, entry.key.data, entry.key.length);
        w->last_length = entry.key.length;
        w->entries++;
    }
    w->leaf_pages++;
    return PS_OK;
}

static int
descend(walk *w, uint64_t number, unsigned depth, ps_lmdb_bytes floor)
{
    ps_lmdb_view view;
    uint8_t *buffer = w->levels + (size_t)(depth - 1) * w->file->page_size;
    int status = ps_lmdb_page_read(w->file, w->tree, w->last_page, number, depth, buffer, &view,
                                   w->err);
    /* A tree that runs in a circle comes to a page twice. */
    if (status == PS_OK)
        status = ps_lmdb_mark(w->used, number, 1, w->err);
    if (status != PS_OK || view.is_leaf)
        return status != PS_OK ? status : visit_leaf(w, &view, floor);
    w->branch_pages++;
    for (uint32_t i = 0; i < view.count && status == PS_OK; i++) {
        ps_lmdb_entry entry;
        status = ps_lmdb_entry_at(w->file, &view, i, &entry, w->err);
        if (status != PS_OK)
            return status;
        if (i > 0 && (w->tree->flags & INTEGER_KEYS) != 0 && entry.key.length != 8)
            return ps_lmdb_damaged(w->err, view.base, "a key that is no number");
        ps_lmdb_bytes last = {w->last, w->last_length};
        if (i > 0 && compare(w, last, entry.key) >= 0)
            return ps_lmdb_damaged(w->err, view.base, "a key does not part the pages beside it");
        status = descend(w, entry.number, depth + 1, i > 0 ? entry.key : floor);
    }
    return status;
}

static int
check_counts(const walk *w)
{
    const ps_lmdb_tree *tree = w->tree;
    if (w->branch_pages != tree->branch_pages || w->leaf_pages != tree->leaf_pages ||
        w->overflow_pages != tree->overflow_pages || w->entries != tree->entries)
        return ps_lmdb_damaged(w->err, 0, "a tree has not as many pages and entries as it says");
    return PS_OK;
}

int
ps_lmdb_walk(const ps_lmdb_file *file, const ps_lmdb_tree *tree, ps_lmdb_used *used,
             ps_lmdb_visit *visit, void *context, ps_error *err)
{
    walk w = {.file = file, .tree = tree, .used = used, .last_page = used->pages - 1,
              .visit = visit, .context = context, .err = err};
    if (tree->root == NO_PAGE)
        return check_counts(&w);
    if (tree->depth < 1 || tree->depth > PS_LMDB_DEPTH)
        return ps_lmdb_damaged(err, 0, "a tree is deeper than any");
    w.levels = malloc((size_t)tree->depth * file->page_size);
    w.last = malloc(file->page_size);
    int status = w.levels != NULL && w.last != NULL
                     ? descend(&w, tree->root, 1, (ps_lmdb_bytes){NULL, 0})
                     : ps_fail(err, PS_ERR_NOMEM, "no memory for the pages of a tree");
    if (status == PS_OK)
        status = check_counts(&w);
    free(w.levels);
    free(w.last);
    free(w.big);
    return status;
}

/* The entry of a leaf with a key, or of a branch the last that does not lie beyond it. */
static int
choose(const walk *w, const ps_lmdb_view *view, ps_lmdb_bytes key, ps_lmdb_entry *chosen,
       int *found)
{
    *found = 0;
    for (uint32_t i = 0; i < view->count; i++) {
        ps_lmdb_entry entry;
        int status = ps_lmdb_entry_at(w->file, view, i, &entry, w->err);
        if (status != PS_OK)
            return status;
        int order = compare(w, entry.key, key);
        if (view->is_leaf ? order == 0 : order <= 0) {
            *chosen = entry;
            *found = 1;
        }
    }
    return PS_OK;
}

static int
copy_value(const walk *w, const ps_lmdb_entry *entry, uint8_t **value, size_t *length)
{
    uint32_t pages;
    size_t room = 0;
    *length = (size_t)entry->length;
    if (entry->flags == PS_LMDB_BIG) {
        int status = ps_lmdb_overflow(w->file, w->last_page, entry, &pages, w->err);
        return status != PS_OK ? status : read_big(w->file, entry, value, &room, w->err);
    }
    *value = malloc(*length + 1);
    if (*value == NULL)
        return ps_fail(w->err, PS_ERR_NOMEM, "no memory for a value");
    memcpy(*value, entry->value.data, *length);
    return PS_OK;
}

int
ps_lmdb_find(const ps_lmdb_file *file, const ps_lmdb_meta *meta, const ps_lmdb_tree *tree,
             ps_lmdb_bytes key, uint8_t **value, size_t *length, ps_error *err)
{
    walk w = {.file = file, .tree = tree, .last_page = meta->last_page, .err = err};
    *value = NULL;
    *length = 0;
    uint8_t *buffer = malloc(file->page_size);
    if (buffer == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "no memory for a page");
    int status = PS_OK, found = 1;
    uint64_t page = tree->root;
    for (unsigned depth = 1; depth <= tree->depth && found && status == PS_OK; depth++) {
        ps_lmdb_view view;
        ps_lmdb_entry entry = {.number = 0};
        status = ps_lmdb_page_read(file, tree, meta->last_page, page, depth, buffer, &view, err);
        if (status == PS_OK)
            status = choose(&w, &view, key, &entry, &found);
        if (status == PS_OK && found && view.is_leaf)
            status = copy_value(&w, &entry, value, length);
        page = entry.number;
    }
    free(buffer);
    if (status != PS_OK) {
        free(*value);
        *value = NULL;
    }
    return status;
}
