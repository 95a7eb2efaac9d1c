/*
 * Sizes of relations and SLRU segments, as of the record being ingested.
 *
 * A hash table over what the meta source answered and what this feed changed since. The
 * source knows nothing of the latter, so nothing is thrown out during a feed; between feeds
 * everything may be.
 */
#ifndef PS_WAL_SIZES_H
#define PS_WAL_SIZES_H

#include "value.h"

#define PS_SIZE_ABSENT UINT32_MAX /* the key does not exist */

typedef struct ps_size_entry {
    ps_key key;
    uint8_t used;
    uint32_t value;
    uint32_t changed; /* the feed that changed it last, 0 for none */
} ps_size_entry;

typedef struct ps_sizes {
    ps_size_entry *slots;
    size_t mask; /* slots - 1 */
    size_t count;
    uint32_t feed; /* number of the feed under way */
} ps_sizes;

void ps_sizes_free(ps_sizes *sizes);
/* Forgets all, and gives the memory back if it is much. */
void ps_sizes_clear(ps_sizes *sizes);
/* Finds or makes the entry of a key; *found tells which. NULL: no memory. Valid until the next. */
ps_size_entry *ps_sizes_slot(ps_sizes *sizes, const ps_key *key, int *found);
/* The entry of a key, or NULL. */
const ps_size_entry *ps_sizes_find(const ps_sizes *sizes, const ps_key *key);

#endif
