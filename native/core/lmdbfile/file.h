/*
 * The pages of an LMDB file (0.9, 64 bits, little-endian), read without LMDB and believed only
 * once they hold. docs/formats/catalog.md says what is checked and why; pagestore/lmdbfile/pages.py
 * is the same in plain Python, against which tests hold this.
 *
 * Pages are read one by one, into a buffer a level: a file of any size is walked in little memory,
 * and a disk that cannot read is an error, not a signal.
 */
#ifndef PS_LMDB_FILE_H
#define PS_LMDB_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

#define PS_LMDB_DEPTH 32 /* LMDB's own cursors go no deeper */

enum ps_lmdb_page { PS_LMDB_BRANCH = 1, PS_LMDB_LEAF = 2, PS_LMDB_OVERFLOW = 4 };
enum ps_lmdb_node { PS_LMDB_BIG = 1, PS_LMDB_SUB_TREE = 2 };

typedef struct ps_lmdb_tree {
    uint32_t pad;
    uint16_t flags;
    uint16_t depth;
    uint64_t branch_pages;
    uint64_t leaf_pages;
    uint64_t overflow_pages;
    uint64_t entries;
    uint64_t root;
} ps_lmdb_tree;

typedef struct ps_lmdb_meta {
    ps_lmdb_tree free;
    ps_lmdb_tree main;
    uint64_t last_page;
    uint64_t transaction;
} ps_lmdb_meta;

typedef struct ps_lmdb_file {
    int descriptor;
    uint64_t bytes;
    uint32_t page_size;
    ps_lmdb_meta newer;
    ps_lmdb_meta older;
} ps_lmdb_file;

typedef struct ps_lmdb_bytes {
    const uint8_t *data;
    size_t length;
} ps_lmdb_bytes;

/* A key with its value; of a branch, with the page below it. */
typedef struct ps_lmdb_entry {
    ps_lmdb_bytes key;
    ps_lmdb_bytes value; /* where it is big, empty: it lies in `length` bytes from page `number` */
    uint64_t number;
    uint64_t length;
    uint16_t flags;
} ps_lmdb_entry;

typedef struct ps_lmdb_view {
    const uint8_t *page;
    uint64_t base; /* where it begins in the file */
    uint32_t count;
    int is_leaf;
} ps_lmdb_view;

/* Reads both meta pages. PS_ERR_CORRUPT with what does not hold, PS_ERR_IO with errno. */
int ps_lmdb_file_read(int descriptor, ps_lmdb_file *file, ps_error *err);
int ps_lmdb_read_at(const ps_lmdb_file *file, uint64_t offset, void *into, size_t length,
                    ps_error *err);
/* One page of a tree, at a depth that begins with 1, into a buffer of a page. */
int ps_lmdb_page_read(const ps_lmdb_file *file, const ps_lmdb_tree *tree, uint64_t last_page,
                      uint64_t number, unsigned depth, uint8_t *buffer, ps_lmdb_view *view,
                      ps_error *err);
int ps_lmdb_entry_at(const ps_lmdb_file *file, const ps_lmdb_view *view, uint32_t index,
                     ps_lmdb_entry *entry, ps_error *err);
/* How many pages a big value's run has, once its head holds. */
int ps_lmdb_overflow(const ps_lmdb_file *file, uint64_t last_page, const ps_lmdb_entry *entry,
                     uint32_t *pages, ps_error *err);
/* A named table's tree, as it stands in the unnamed one. */
int ps_lmdb_sub_tree(ps_lmdb_bytes value, ps_lmdb_tree *tree, ps_error *err);
int ps_lmdb_damaged(ps_error *err, uint64_t offset, const char *what);

#endif
