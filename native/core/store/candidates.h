/*
 * The sources of a snapshot that may have something of a read, the newest first: by the LSN up to
 * which they count there, an image before a delta that ends with it. Shared by lookups and walks.
 */
#ifndef PS_STORE_CANDIDATES_H
#define PS_STORE_CANDIDATES_H

#include "store/snapshot.h"

/* What a read looks for. The places of its keys are those in ascending order. */
typedef struct ps_wanted {
    const ps_key *keys;
    const uint32_t *order; /* place to key */
    size_t count;
    uint64_t lsn;
    uint64_t *open;   /* by place, a bit for each key that wants more */
    ps_probe *probes; /* by place; NULL until a table was met */
} ps_wanted;

static inline size_t
ps_wanted_words(const ps_wanted *wanted)
{
    return (wanted->count + 63) / 64;
}

typedef struct ps_candidate {
    const ps_source *source;
    uint64_t lower; /* both inclusive */
    uint64_t upper;
    int image;
    uint64_t *wants; /* by place, which keys it may have; NULL: any */
} ps_candidate;

typedef struct ps_candidates {
    ps_candidate few[24];
    ps_candidate *items;
    size_t count;
    size_t room;
    ps_arena arena; /* of `wants` */
} ps_candidates;

void ps_candidates_init(ps_candidates *candidates);
void ps_candidates_free(ps_candidates *candidates);
int ps_candidates_add(ps_candidates *candidates, const ps_candidate *candidate);
/* Newest first. */
void ps_candidates_sort(ps_candidates *candidates);

/* Open layers that count at an LSN. */
int ps_candidates_add_memory(ps_candidates *candidates, const ps_snapshot *snapshot, uint64_t lsn);
/* Those of a part that may have one of the keys that are open. `table`: the part's, or NULL. */
int ps_candidates_add_part(ps_candidates *candidates, const ps_part *part, const ps_table *table,
                           const ps_wanted *wanted);
/* Those whose range has something of [low, high), in order. */
int ps_candidates_within(ps_candidates *candidates, const ps_snapshot *snapshot, const ps_key *low,
                         const ps_key *high, uint64_t lsn);

/* Whether a key is within the source's range and, by its filter, may be there. */
int ps_candidate_may_have(const ps_candidate *candidate, const ps_key *key, size_t place);

#endif
