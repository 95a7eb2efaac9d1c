/*
 * What a timeline's readers see: its open and flushed layers and those of all its ancestors,
 * flattened into one list, newest first, each with the LSN up to which it counts here.
 *
 * A snapshot is immutable and owns nothing: whoever makes it keeps the layers alive. Sources
 * are in such an order that of any key an earlier source has only newer values than a later
 * one; so a read walks the list once and stops at the first image. Depth of branching is
 * paid for when the list is made, not when it is read.
 */
#ifndef PS_STORE_SNAPSHOT_H
#define PS_STORE_SNAPSHOT_H

#include "layer/chain.h"
#include "layer/file.h"
#include "layer/open.h"
#include "redo/redo.h"

typedef struct ps_source {
    ps_open_layer *open; /* one of the two */
    ps_layer *file;
    uint64_t max_lsn;    /* newer values of this source are not of this history */
} ps_source;

typedef struct ps_snapshot {
    const ps_source *sources;
    size_t count;
} ps_snapshot;

typedef int (*ps_visit)(void *arg, const ps_key *key, const uint8_t *value, size_t length);

/* Fills chains[i] for keys[i], newest value first. `order` lists the keys ascending. */
int ps_snapshot_collect(const ps_snapshot *snapshot, const ps_key *keys, const uint32_t *order,
                        size_t count, uint64_t lsn, ps_chain *chains, ps_error *err);

/* The whole value of a metadata key. *data lies in the arena. PS_ERR_NOT_FOUND if it does
 * not exist at that LSN. */
int ps_snapshot_get(const ps_snapshot *snapshot, const ps_key *key, uint64_t lsn,
                    ps_arena *arena, const uint8_t **data, uint32_t *length, ps_error *err);

/* Visits each key of [low, high) that exists at the LSN, ascending, with its newest value,
 * until the visitor returns non-zero. For pages that value need not be whole. */
int ps_snapshot_scan(const ps_snapshot *snapshot, const ps_key *low, const ps_key *high,
                     uint64_t lsn, ps_visit visit, void *arg, ps_error *err);

/* The greatest key of [low, high) that exists at the LSN. PS_OK or PS_ERR_NOT_FOUND. */
int ps_snapshot_last(const ps_snapshot *snapshot, const ps_key *low, const ps_key *high,
                     uint64_t lsn, ps_key *found, ps_error *err);

/* Makes the pages of `keys` as they were at `lsn`; outs[i] takes 8192 bytes. `redo` may be
 * NULL while no chain holds a WAL record. PS_ERR_NOT_FOUND when a block has no value. */
int ps_snapshot_read_pages(const ps_snapshot *snapshot, const ps_key *keys, size_t count,
                           uint64_t lsn, uint8_t *const *outs, ps_redo_pool *redo,
                           ps_error *err);

/* The snapshot as ingest sees it; `context` is the snapshot. */
ps_meta_source ps_snapshot_meta_source(const ps_snapshot *snapshot);

#endif
