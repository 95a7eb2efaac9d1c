/*
 * What of a timeline whoever serves reads has to know: how far it has been taken in, from where
 * on it can be read, and by which snapshot. Read as of one moment, from any thread, with nothing
 * but this; a snapshot that was read stays as long as it is held.
 */
#ifndef PS_STORE_TIMELINE_H
#define PS_STORE_TIMELINE_H

#include "store/snapshot.h"

typedef struct ps_timeline ps_timeline;

typedef struct ps_timeline_state {
    uint64_t last_record_lsn; /* the end of the last whole record */
    uint64_t prev_record_lsn; /* its start; 0 when unknown */
    uint64_t earliest_lsn;    /* where the history begins: the import of its root */
    uint64_t horizon;         /* from here on all is kept; below, its owner is asked */
} ps_timeline_state;

/* NULL: no memory. */
ps_timeline *ps_timeline_make(const ps_timeline_state *state);
ps_timeline *ps_timeline_retain(ps_timeline *timeline);
void ps_timeline_release(ps_timeline *timeline);

/* All up to it can be read by the snapshot that is published, or by none that is. */
void ps_timeline_move(ps_timeline *timeline, uint64_t last_record_lsn, uint64_t prev_record_lsn);
void ps_timeline_keep(ps_timeline *timeline, uint64_t horizon);
/* NULL: there is none now, and whoever needs one asks the timeline's owner. It is retained. */
void ps_timeline_publish(ps_timeline *timeline, const ps_snapshot *snapshot);
/* The snapshot, which may be NULL, is the caller's to release. */
ps_timeline_state ps_timeline_read(ps_timeline *timeline, ps_snapshot **snapshot);

#endif
