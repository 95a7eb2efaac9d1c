/*
 * The key of everything versioned: 18 bytes, compared as bytes.
 *
 *   offset  0    1        5       9         13     14
 *           kind spc(be)  db(be)  rel(be)   fork   block(be)
 *
 * The same layout, with what each kind's value holds, is in docs/formats/keyspace.md and in
 * pagestore/keyspace.py; tests/unit/test_keyspace.py holds the three together.
 */
#ifndef PS_KEY_H
#define PS_KEY_H

#include <stdint.h>
#include <string.h>

#define PS_KEY_LEN 18
#define PS_PAGE_SIZE 8192u

typedef struct ps_key {
    uint8_t b[PS_KEY_LEN];
} ps_key;

enum ps_key_kind {
    PS_KIND_CONTROL = 0x00,    /* block 0: counters, block 1: settings */
    PS_KIND_DATABASE = 0x01,   /* (spc, db): u32 flags */
    PS_KIND_RELMAP = 0x02,     /* (spc, db): the 512 bytes of pg_filenode.map */
    PS_KIND_REL_SIZE = 0x03,   /* (spc, db, rel, fork): u32 blocks */
    PS_KIND_SLRU_SIZE = 0x04,  /* spc = slru, block = segment: u32 pages */
    PS_KIND_TWO_PHASE = 0x05,  /* block = xid: the state file without its CRC */
    PS_KIND_FILE = 0x06,       /* block = ps_file_id: a small file's bytes */
    PS_KIND_COMMIT_TIME = 0x07,/* (spc << 32 | db) = Unix microseconds: u64 commit's end LSN */
    PS_KIND_ORIGIN = 0x08,     /* block = origin: u64 remote LSN, u64 local LSN */
    PS_KIND_LAST_COMMIT = 0x09,/* one key: the last commit, whatever its time */
    PS_KIND_SLOT = 0x0A,       /* (spc << 32 | db) = hash of its name: its state, see logical.c */
    PS_KIND_REWRITE = 0x0B,    /* (spc << 32 | db) = LSN: what a catalog's rewrite moved */
    PS_KIND_SLRU_PAGE = 0x10,  /* spc = slru, block = page number: 8192 bytes */
    PS_KIND_REL_BLOCK = 0x20   /* (spc, db, rel, fork, block): 8192 bytes */
};

enum ps_slru {
    PS_SLRU_XACT = 1,
    PS_SLRU_MULTIXACT_OFFSETS = 2,
    PS_SLRU_MULTIXACT_MEMBERS = 3,
    PS_SLRU_COMMIT_TS = 4
};

enum ps_file_id { PS_FILE_PGSTAT = 1, PS_FILE_OWNER = 2 };

enum ps_fork { PS_FORK_MAIN = 0, PS_FORK_FSM = 1, PS_FORK_VM = 2, PS_FORK_INIT = 3 };

#define PS_DEFAULT_TABLESPACE 1663u /* pg_default */
enum ps_database_flag { PS_DATABASE_HAS_VERSION = 1 }; /* its directory holds PG_VERSION */

static inline void
ps_put_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static inline uint32_t
ps_get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline ps_key
ps_key_make(uint8_t kind, uint32_t spc, uint32_t db, uint32_t rel, uint8_t fork, uint32_t block)
{
    ps_key key;
    key.b[0] = kind;
    ps_put_be32(key.b + 1, spc);
    ps_put_be32(key.b + 5, db);
    ps_put_be32(key.b + 9, rel);
    key.b[13] = fork;
    ps_put_be32(key.b + 14, block);
    return key;
}

static inline uint8_t ps_key_kind(const ps_key *k) { return k->b[0]; }
static inline uint32_t ps_key_spc(const ps_key *k) { return ps_get_be32(k->b + 1); }
static inline uint32_t ps_key_db(const ps_key *k) { return ps_get_be32(k->b + 5); }
static inline uint32_t ps_key_rel(const ps_key *k) { return ps_get_be32(k->b + 9); }
static inline uint8_t ps_key_fork(const ps_key *k) { return k->b[13]; }
static inline uint32_t ps_key_block(const ps_key *k) { return ps_get_be32(k->b + 14); }

static inline int
ps_key_compare(const ps_key *a, const ps_key *b)
{
    return memcmp(a->b, b->b, PS_KEY_LEN);
}

static inline int
ps_key_is_page(const ps_key *k)
{
    return k->b[0] == PS_KIND_REL_BLOCK || k->b[0] == PS_KIND_SLRU_PAGE;
}

#endif
