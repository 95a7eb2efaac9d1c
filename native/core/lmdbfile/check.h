/*
 * A whole LMDB file checked before LMDB maps it, in one pass over its pages and in memory that
 * does not grow with it: structure (walk.h), the seal of every entry, the sum over all of them.
 *
 * What an entry means is its owner's: a few that the owner asks for are handed out, and the first
 * of those, the one that says what the sum should be, is left out of the sum. Of the older
 * transaction only that one is looked up. pagestore/lmdbfile/whole.py says what the sum is for.
 */
#ifndef PS_LMDB_CHECK_H
#define PS_LMDB_CHECK_H

#include "lmdbfile/file.h"

/* How an entry's owner has sealed its value. */
enum ps_lmdb_seal {
    PS_LMDB_UNSEALED = 0,
    PS_LMDB_CRC32C_BEHIND = 1, /* the catalog: u32 CRC-32C over key and body, behind the body */
    PS_LMDB_CRC32_BEFORE = 2   /* the control plane: version u8, u32 CRC-32 over table, key and
                                  body, before the body */
};

typedef struct ps_lmdb_name {
    ps_lmdb_bytes table; /* empty: the unnamed tree */
    ps_lmdb_bytes key;
} ps_lmdb_name;

typedef struct ps_lmdb_copy {
    uint8_t *data; /* NULL: there is none */
    size_t length;
} ps_lmdb_copy;

#define PS_LMDB_ASKED 4

typedef struct ps_lmdb_question {
    int seal;
    uint8_t seal_version; /* of PS_LMDB_CRC32_BEFORE */
    size_t asked;
    ps_lmdb_name names[PS_LMDB_ASKED];
} ps_lmdb_question;

typedef struct ps_lmdb_findings {
    uint64_t transaction;
    uint64_t before;  /* the older meta page's transaction */
    uint64_t entries; /* of all tables */
    uint64_t loose;   /* of those, in no table */
    uint8_t total[16];
    uint64_t unsealed; /* how many have another seal than theirs; the first: */
    ps_lmdb_copy unsealed_table;
    ps_lmdb_copy unsealed_key;
    ps_lmdb_copy values[PS_LMDB_ASKED];
    ps_lmdb_copy value_before; /* of names[0], in the older transaction */
    ps_lmdb_copy *tables;
    size_t table_count;
} ps_lmdb_findings;

/* PS_OK, PS_ERR_CORRUPT, PS_ERR_IO, PS_ERR_NOMEM. *findings is to be freed in any case. */
int ps_lmdb_check(int descriptor, const ps_lmdb_question *question, ps_lmdb_findings *findings,
                  ps_error *err);
void ps_lmdb_findings_free(ps_lmdb_findings *findings);

#endif
