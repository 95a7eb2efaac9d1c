/* Inside of a compaction: what merge.c and images.c share with compaction.c. */
#ifndef PS_STORE_COMPACTING_H
#define PS_STORE_COMPACTING_H

#include "store/compaction.h"
#include "store/inputs.h"
#include "store/sieve.h"

struct ps_compaction {
    ps_layer **layers;
    size_t count;
    ps_snapshot *snapshot;
    ps_redo_pool *redo;
    ps_compaction_options options;
    ps_inputs inputs;
    uint64_t first_lsn; /* of all inputs */
    uint64_t last_lsn;
    uint64_t total_bytes;
    uint64_t total_values;
    uint64_t taken;     /* values of the inputs that were passed */
    ps_compaction_stats stats;
    ps_pace pace;

    /* Values that are to be put out next. */
    ps_passing *ahead;
    size_t ahead_count;
    size_t ahead_at;
    size_t ahead_capacity;
    ps_arena arena; /* their payloads */
    const ps_passing *held; /* the one that was too much for the file before */

    /* What nobody reads is left out. */
    ps_sieve sieve;
    ps_passing released;       /* one that has waited, on its way out */
    uint8_t released_data[16]; /* its payload */
    const ps_passing *behind;  /* the one that it waited for; NULL: none */

    /* A merge: the page that has been gone through, and its images. */
    ps_history history;
    int surveyed;
    ps_key surveyed_key;
    ps_passing image; /* one of them, on its way out */
    uint8_t page[PS_PAGE_SIZE];

    /* Images: where the next file begins. */
    ps_key next_low;
};

/* Room for one value more in `ahead`; NULL: no memory, *err set. */
ps_passing *ps_compaction_add(ps_compaction *work, ps_error *err);

/* Fill `ahead`, which is empty; it stays so at the end. */
int ps_merge_fill(ps_compaction *work, const char *path, ps_error *err);
int ps_images_fill(ps_compaction *work, ps_error *err);

#endif
