/*
 * What stands behind a (key, LSN), and the batch in which values travel.
 *
 * The LSN of a value is the END of the WAL record that made it, which is what Postgres
 * writes into a page's header. A read of key K at LSN L collects K's values with LSN <= L,
 * newest first, down to the first that needs nothing older: an IMAGE, ZERO or TOMBSTONE,
 * or one with PS_WILL_INIT (its base is a page of zeros). Values of one key at one LSN keep
 * the order in which they were put.
 *
 * Metadata keys only ever have IMAGE and TOMBSTONE. SLRU pages have IMAGE, ZERO, PATCH.
 * Relation blocks have all but TOMBSTONE. Every block below its relation's size has a value
 * at or after the relation was created or last truncated below it, so no chain crosses one.
 */
#ifndef PS_VALUE_H
#define PS_VALUE_H

#include <stdint.h>
#include <stdlib.h>

#include "key.h"
#include "status.h"

enum ps_value_kind {
    PS_VALUE_IMAGE = 1,     /* the whole value; 8192 bytes for a page */
    PS_VALUE_RECORD = 2,    /* one WAL record, contiguous, from its XLogRecord header */
    PS_VALUE_PATCH = 3,     /* ps_patch_op[]: masked fills; does not move the page's LSN */
    PS_VALUE_ZERO = 4,      /* a page of zeros; no payload */
    PS_VALUE_TOMBSTONE = 5  /* the key ceased to exist; no payload */
};

enum ps_value_flag { PS_WILL_INIT = 1 };

/* bytes[offset .. offset+length): b = (b & ~mask) | (value & mask). Little-endian, packed. */
typedef struct ps_patch_op {
    uint16_t offset;
    uint16_t length;
    uint8_t mask;
    uint8_t value;
} ps_patch_op;

/* One value of a batch; its payload is batch->data[offset .. offset+length). */
typedef struct ps_entry {
    ps_key key;
    uint8_t kind;
    uint8_t flags;
    uint32_t length;
    uint64_t lsn;
    uint64_t offset;
} ps_entry;

/* Entries in WAL order. Grown with realloc; several entries may share one payload. */
typedef struct ps_batch {
    ps_entry *entries;
    size_t count;
    size_t capacity;
    uint8_t *data;
    size_t data_length;
    size_t data_capacity;
} ps_batch;

void ps_batch_init(ps_batch *batch);
void ps_batch_clear(ps_batch *batch); /* forgets the entries, keeps the memory */
void ps_batch_free(ps_batch *batch);
/* Copies a payload in; *offset is where it lies. */
int ps_batch_payload(ps_batch *batch, const void *data, size_t length, uint64_t *offset);
int ps_batch_entry(ps_batch *batch, const ps_key *key, uint8_t kind, uint8_t flags, uint64_t lsn,
                   uint64_t offset, uint32_t length);

static inline int
ps_value_ends_chain(uint8_t kind, uint8_t flags)
{
    return kind == PS_VALUE_IMAGE || kind == PS_VALUE_ZERO || kind == PS_VALUE_TOMBSTONE ||
           (flags & PS_WILL_INIT) != 0;
}

/* What it costs to apply a value, where a record is PS_RECORD_WEIGHT: a patch needs no helper. */
#define PS_RECORD_WEIGHT 8u
static inline uint32_t
ps_value_weight(uint8_t kind)
{
    return kind == PS_VALUE_RECORD ? PS_RECORD_WEIGHT : kind == PS_VALUE_PATCH ? 1 : 0;
}

/* Applies a PATCH to a page. PS_ERR_CORRUPT when an op leaves the page. */
int ps_patch_apply(uint8_t *page, const uint8_t *ops, size_t length);

/* The values of PS_KIND_CONTROL, little-endian, packed. 64 and 88 bytes. */
typedef struct ps_counters {
    uint64_t next_full_xid;
    uint32_t next_oid;
    uint32_t next_multi;
    uint32_t next_multi_offset;
    uint32_t oldest_xid;
    uint32_t oldest_xid_db;
    uint32_t oldest_multi;
    uint32_t oldest_multi_db;
    uint32_t oldest_commit_ts_xid;
    uint32_t newest_commit_ts_xid;
    uint32_t oldest_active_xid;
    uint32_t full_page_writes;
    uint32_t reserved;
    int64_t checkpoint_time; /* Unix seconds */
} ps_counters;

typedef struct ps_settings {
    uint64_t system_id;
    uint32_t wal_level;
    uint32_t wal_log_hints;
    uint32_t max_connections;
    uint32_t max_worker_processes;
    uint32_t max_wal_senders;
    uint32_t max_prepared_xacts;
    uint32_t max_locks_per_xact;
    uint32_t track_commit_timestamp;
    uint32_t data_checksum_version;
    uint32_t pg_control_version;
    uint32_t catalog_version;
    uint8_t nonce[32];
    uint32_t reserved;
} ps_settings;

_Static_assert(sizeof(ps_counters) == 64, "docs/formats/keyspace.md says 64");
_Static_assert(sizeof(ps_settings) == 88, "docs/formats/keyspace.md says 88");

/*
 * Where ingest and the reader ask for committed metadata: the latest value of a key at or
 * below an LSN. Implemented by a timeline's snapshot, and by a table in tests.
 */
typedef struct ps_meta_source {
    void *context;
    /* PS_OK and *length set (value copied to out), PS_ERR_NOT_FOUND, or another error. */
    int (*get)(void *context, const ps_key *key, uint64_t lsn, uint8_t *out, size_t capacity,
               size_t *length, ps_error *err);
    /* Calls `visit` for each live key in [low, high), ascending, until it returns non-zero. */
    int (*scan)(void *context, const ps_key *low, const ps_key *high, uint64_t lsn,
                int (*visit)(void *arg, const ps_key *key, const uint8_t *value, size_t length),
                void *arg, ps_error *err);
} ps_meta_source;

#endif
