/*
 * The sources of a snapshot that may have something of a read, the newest first: by the LSN up to
 * which they count there, an image before a delta that ends with it. Shared by lookups and walks.
 */
#ifndef PS_STORE_CANDIDATES_H
#define PS_STORE_CANDIDATES_H

#include "store/snapshot.h"

typedef struct ps_candidate {
    const ps_source *source;
    uint64_t lower; /* both inclusive */
    uint64_t upper;
    int image;
    ps_group *group;       /* of a file */
    uint32_t column;
    const uint64_t *wants; /* by place in the read's order, which keys it may have; NULL: any */
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

/* Those that may have one of the keys. */
int ps_candidates_find(ps_candidates *candidates, const ps_snapshot *snapshot, const ps_key *keys,
                       const uint32_t *order, size_t count, uint64_t lsn);
/* Those whose range has something of [low, high). */
int ps_candidates_within(ps_candidates *candidates, const ps_snapshot *snapshot, const ps_key *low,
                         const ps_key *high, uint64_t lsn);

/* Whether a key is within the source's range and, by its filter, may be there. */
int ps_candidate_may_have(const ps_candidate *candidate, const ps_key *key, size_t place);

#endif
