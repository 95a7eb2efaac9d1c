/*
 * Compaction: delta layers that span all keys are made into ones that share the keys between them,
 * and pages whose reads would have to apply much get images.
 *
 * Two kinds of work, both one pass over some delta layers of a timeline (store/inputs.h), both in
 * steps of one file each, so that whoever calls decides what comes between two files:
 *
 *   merge    All values of the inputs, in files that follow each other by key; a key whose values
 *            are more than a file holds goes on in the next, older ones behind newer ones. Where a
 *            page has more values than one read may have to apply, images are put between them
 *            (store/history.h), each at the LSN of a value, in front of it. What no read at a kept
 *            LSN comes to is left out (store/sieve.h). Together the files say of each LSN that is
 *            kept what the inputs said, and stand in their place.
 *
 *   images   The newest value at or below an LSN of each key that the inputs have: of pages the
 *            page, of other keys the value itself, tombstones too. A file covers all keys from
 *            where the one before it ended (the first: from `low`) to its own end, the last one to
 *            the end of the keyspace: whoever finds such files one behind the other, from the least
 *            key to the greatest, knows that no read at their LSN or above needs what the inputs
 *            have at or below it. Blocks of relations that do not exist at the LSN, or beyond
 *            their end, get none: nobody may ask for them.
 *
 *            Layers of ancestors may be inputs, too, each up to the LSN at which the timeline left
 *            it: then what these have changed is found in the timeline's own images, and its reads
 *            do not go up to each of them.
 *
 *            Image layers may be inputs, too: so what several passes have made one above the other
 *            becomes one. Where no read is left between the LSN of such an input and that of the
 *            images, each that lies below these within their range may go.
 *
 * Memory is a block of each input that has the current key, one output file's index and the hashes
 * of its keys, and what one page's piece of history takes. Files are written beside their names
 * and synced; who calls gives them their names.
 */
#ifndef PS_STORE_COMPACTION_H
#define PS_STORE_COMPACTION_H

#include "layer/writer.h"
#include "store/history.h"
#include "store/sieve.h"

typedef struct ps_compaction ps_compaction;

typedef struct ps_compaction_options {
    uint64_t file_bytes; /* a file is closed once it has so many */
    ps_chain_bounds bounds; /* of a merge; open_weight 0: no images */
    uint64_t image_lsn;  /* of images; 0: a merge */
    ps_key low;          /* of images: where to begin */
    const uint64_t *uppers; /* of images: up to which LSN each layer counts, or NULL */
    ps_kept kept;        /* it is copied */
} ps_compaction_options;

typedef struct ps_compaction_stats {
    uint64_t bytes_read; /* of the inputs' files, as far as the work has come */
    uint64_t values;     /* that were put into files, images included */
    uint64_t images;     /* that were made of pages */
    uint64_t refused;    /* pages that redo did not make: left as they were */
    uint64_t dead;       /* values of the inputs, and images, that were left out */
} ps_compaction_stats;

/* Retains the layers and the snapshot, which is of the same timeline and shows all that they have,
 * up to their `uppers`.
 * The pool is the caller's, and may be NULL. */
int ps_compaction_open(ps_compaction **work, ps_layer *const *layers, size_t count,
                       const ps_snapshot *snapshot, ps_redo_pool *redo,
                       const ps_compaction_options *options, ps_error *err);
void ps_compaction_free(ps_compaction *work);

/* Writes the next file to `path`; *written is 0 if there is nothing more. For `level` see codec.h.
 * PS_ERR_CLOSED: it was cancelled. Of images, PS_ERR_REDO and others: a page cannot be made. */
int ps_compaction_write(ps_compaction *work, const char *path, const ps_layer_id *id, int level,
                        ps_layer_summary *summary, int *written, ps_error *err);
/* Of other threads: to hold it up between two values, and to end it. */
void ps_compaction_pause(ps_compaction *work, int paused);
void ps_compaction_cancel(ps_compaction *work);
ps_compaction_stats ps_compaction_read_stats(const ps_compaction *work);

#endif
