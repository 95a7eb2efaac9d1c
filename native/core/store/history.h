/*
 * The history of one page that has many values, and the images that cut it into short pieces.
 *
 * A merge writes newest values first, but pages are made from the oldest on. So a page that was
 * changed often is gone through once before it is written, in the other direction: whenever as much
 * has come together as one read may have to apply, an image of the page at that LSN is made, from
 * the one before it. The first is made from what lies below, by an ordinary read. Images wait in a
 * file without a name until the merge comes to their LSNs, so that memory does not grow with the
 * page's history. Whatever redo refuses is left without images: the history reads as it did.
 */
#ifndef PS_STORE_HISTORY_H
#define PS_STORE_HISTORY_H

#include "layer/file.h"
#include "store/pace.h"
#include "store/snapshot.h"

/* When a page's values are cut. Weights are those of ps_value_weight. */
typedef struct ps_chain_bounds {
    uint64_t open_weight; /* of values with nothing whole below them in the same run */
    uint64_t weight;      /* between two images */
    uint64_t bytes;
} ps_chain_bounds;

typedef struct ps_history {
    const ps_snapshot *snapshot;
    ps_redo_pool *redo;
    const ps_pace *pace;
    ps_chain_bounds bounds;
    int spool; /* images, one behind the other; -1: none yet */
    uint64_t *lsns; /* of them, ascending */
    size_t count;
    size_t capacity;
    uint64_t made;    /* images, ever */
    uint64_t refused; /* by redo, ever */
} ps_history;

void ps_history_init(ps_history *history, const ps_snapshot *snapshot, ps_redo_pool *redo,
                     const ps_chain_bounds *bounds, const ps_pace *pace);
void ps_history_free(ps_history *history);

/* Goes through a page's values in delta layers. `path` is beside where the spool may be made. */
int ps_history_survey(ps_history *history, const ps_key *key, ps_layer *const *layers,
                      size_t count, const char *path, ps_error *err);
/* The image of the greatest LSN that was not taken yet, if its LSN is `lsn` or above; then
 * *lsn_of is it, else 0. */
int ps_history_take(ps_history *history, uint64_t lsn, uint64_t *lsn_of, uint8_t *page,
                    ps_error *err);

#endif
