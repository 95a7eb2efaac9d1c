/*
 * Ingest: WAL in, versioned values out.
 *
 * For each whole record of a timeline's WAL the ingestor says what it does to the keyspace of
 * docs/formats/keyspace.md: pages by reference to the record, by image or by patch; sizes,
 * relation maps, transaction status and counters as whole new values. What a resource manager
 * does beyond its block references is in one function a resource manager (xlog.c, xact.c,
 * slru.c, storage.c, heap.c, logical.c); docs/formats/wal.md has the list.
 *
 * Invariants.
 *  - All or nothing, by record: a record that fails leaves nothing in the batch, and the
 *    ingestor as it was after the record before.
 *  - Every LSN put is the end of a record fed, and they never fall.
 *  - The source answers as of last_record_lsn at the time of the call: what earlier feeds put
 *    into batches must be there by then. What this feed changed is remembered here.
 *  - An unknown resource manager, or an operation that it is not known to have, is refused by
 *    name, never skipped.
 *
 * Not here: where WAL comes from, where values go, waiting, redo.
 */
#ifndef PS_WAL_INGEST_H
#define PS_WAL_INGEST_H

#include "value.h"

typedef struct ps_ingest ps_ingest;

/* CREATE DATABASE ... STRATEGY file_copy: the relations of one database are to be copied. */
typedef struct ps_clone {
    uint32_t src_spc;
    uint32_t src_db;
    uint32_t dst_spc;
    uint32_t dst_db;
} ps_clone;

typedef struct ps_ingest_step {
    size_t consumed; /* bytes of the chunk; less than all only at a clone */
    uint64_t records;
    int has_clone; /* the caller copies, as of last_record_lsn, before it feeds more */
    ps_clone clone;
} ps_ingest_step;

typedef struct ps_ingest_position {
    uint64_t next_lsn;        /* where the next chunk must begin */
    uint64_t last_record_lsn; /* the end of the last whole record */
    uint64_t prev_record_lsn; /* its start */
} ps_ingest_position;

/* `start_lsn` is the end of a record, `prev_record_lsn` its start or 0 if not known. */
int ps_ingest_new(uint64_t start_lsn, uint64_t prev_record_lsn, ps_ingest **out, ps_error *err);
void ps_ingest_free(ps_ingest *ingest);
ps_ingest_position ps_ingest_where(const ps_ingest *ingest);

/*
 * Takes WAL that begins at next_lsn and appends values to `batch`. Images that are only there
 * to be compared (wal_consistency_checking) go to `checks`, unless it is NULL.
 *
 * On failure the batch holds the whole records before the fault, last_record_lsn says how far
 * they go, and next_lsn is the same: the caller keeps them, and may feed again from there.
 */
int ps_ingest_feed(ps_ingest *ingest, const uint8_t *chunk, size_t length,
                   const ps_meta_source *source, ps_batch *batch, ps_batch *checks,
                   ps_ingest_step *step, ps_error *err);

#endif
