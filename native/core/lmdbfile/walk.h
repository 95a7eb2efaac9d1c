/* One tree of an LMDB file, every page and entry of it, in the order of keys. */
#ifndef PS_LMDB_WALK_H
#define PS_LMDB_WALK_H

#include "lmdbfile/file.h"

/* A bit a page, of all that belong to somebody. */
typedef struct ps_lmdb_used {
    uint8_t *bits;
    uint64_t pages;
    uint64_t marked;
} ps_lmdb_used;

/* Marks pages as somebody's; PS_ERR_CORRUPT when one is already, or is not in the file. */
int ps_lmdb_mark(ps_lmdb_used *used, uint64_t number, uint64_t count, ps_error *err);

/* Is told each entry, with its value, which is good until it returns. Not PS_OK ends the walk. */
typedef int ps_lmdb_visit(void *context, ps_lmdb_bytes key, ps_lmdb_bytes value, uint16_t flags,
                          ps_error *err);

/* Checks pages, bounds, order and counts, marks what it meets, and visits every entry. */
int ps_lmdb_walk(const ps_lmdb_file *file, const ps_lmdb_tree *tree, ps_lmdb_used *used,
                 ps_lmdb_visit *visit, void *context, ps_error *err);

/* Looks one key up, as LMDB would. *value is the caller's to free; NULL when there is none. */
int ps_lmdb_find(const ps_lmdb_file *file, const ps_lmdb_meta *meta, const ps_lmdb_tree *tree,
                 ps_lmdb_bytes key, uint8_t **value, size_t *length, ps_error *err);

#endif
