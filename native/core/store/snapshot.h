/*
 * What a timeline's readers see: its layers in memory and in files, and those of all its
 * ancestors, each with the LSNs within which it counts here.
 *
 * A snapshot is immutable, counted, and owns its layers: a file that is deleted stays until the
 * last snapshot that reads it is gone, and to read needs no lock and nobody's help. What a read
 * sees follows from the sources' bounds alone, never from their order or their numbers: values
 * count by their LSN, the newest first, and an image at an LSN stands for all that lies at or
 * below it. A key that an image layer has not, though it be within its range, is looked for in
 * what is older; only a tombstone says that there is nothing.
 *
 *   snapshot ─┬─ memory: open and frozen layers
 *             └─ parts: (group, how many of its files, up to which LSN)
 *
 * New snapshots are made from old ones and share their groups (store/group.h): a file more is a
 * file more in the last group; a branch is its parent's list of parts, with its branch LSN as
 * their bound. So both cost one copy of a list with an entry for each 512 files, whatever the
 * number of files. Small groups of a branch and its parent are made one, so that a chain of
 * branches has no more parts than a long history. A value's (key, LSN) is in one delta layer,
 * which is what makes the order of values one.
 */
#ifndef PS_STORE_SNAPSHOT_H
#define PS_STORE_SNAPSHOT_H

#include "layer/chain.h"
#include "redo/redo.h"
#include "store/group.h"

/* The first `count` files of a group, up to an LSN; none begins below `lower`, nor counts beyond
 * `last`. No part before it has anything beyond `below`, which lets a lookup that has found all it
 * wants leave them alone. */
typedef struct ps_part {
    ps_group *group;
    uint32_t count;
    uint64_t lower;
    uint64_t upper;
    uint64_t last;
    uint64_t below;
} ps_part;

typedef struct ps_snapshot {
    unsigned refs;
    uint32_t memory_count;
    uint32_t part_count;
    ps_source *memory;
    ps_part *parts; /* of ancestors first */
} ps_snapshot;

/* Of nothing. NULL: no memory. */
ps_snapshot *ps_snapshot_empty(void);
ps_snapshot *ps_snapshot_retain(const ps_snapshot *snapshot);
void ps_snapshot_release(ps_snapshot *snapshot);

/* Without the layers of `gone`, with those of `added`, which it retains: a flush, a compaction.
 * NULL: no memory. */
ps_snapshot *ps_snapshot_replace(const ps_snapshot *snapshot, const ps_source *gone,
                                 size_t gone_count, const ps_source *added, size_t added_count);
/* A branch: what is its own, over what its parent shows up to the branch LSN. */
ps_snapshot *ps_snapshot_over(const ps_snapshot *own, const ps_snapshot *parent, uint64_t lsn);

/* The source of a file, with the bounds that its summary says. */
ps_source ps_source_of_file(ps_layer *file);
size_t ps_snapshot_file_count(const ps_snapshot *snapshot);
/* files[] has that many; what was added last comes first. Not retained. */
void ps_snapshot_files(const ps_snapshot *snapshot, ps_layer **files);

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

/* Visits each key of [low, high) that has a value beyond `after` (not 0) and up to the LSN,
 * ascending, with the newest of those, which may say that there is nothing any more. */
int ps_snapshot_changed(const ps_snapshot *snapshot, const ps_key *low, const ps_key *high,
                        uint64_t after, uint64_t lsn, ps_visit visit, void *arg, ps_error *err);

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
