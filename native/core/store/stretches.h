/*
 * The sources of a snapshot as a lookup comes to them: in stretches, the newest first. Nothing
 * that is in a later stretch is as new as anything in an earlier one, so who has found all he
 * wants leaves the rest alone, however many ancestors and files that is.
 *
 * Where a stretch may end is told by what parts say of those before them (store/snapshot.h), and
 * by what was found: sources that have none of the keys do not count.
 */
#ifndef PS_STORE_STRETCHES_H
#define PS_STORE_STRETCHES_H

#include "store/candidates.h"

typedef struct ps_stretches {
    const ps_snapshot *snapshot;
    ps_wanted *wanted;
    ps_probe one;         /* of who wants one key */
    uint32_t parts;       /* so many are left, the first ones */
    ps_candidates memory; /* open layers, the newest first */
    size_t memory_at;     /* those before it were taken */
    uint32_t learned;     /* columns of tables, by this lookup */
    uint32_t unknown;     /* those that it met empty */
    ps_candidates found;  /* the stretch, in order */
} ps_stretches;

/* `wanted` stays the caller's, who clears what is open no more between two stretches. */
int ps_stretches_init(ps_stretches *stretches, const ps_snapshot *snapshot, ps_wanted *wanted,
                      ps_error *err);
void ps_stretches_free(ps_stretches *stretches);
/* 1: the next one is in `found`, which may be empty; 0: there are no more. PS_ERR_WOULD_WAIT: as
 * the thread's patience is, filters would have to be read. */
int ps_stretches_next(ps_stretches *stretches, ps_error *err);

#endif
