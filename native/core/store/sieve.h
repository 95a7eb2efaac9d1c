/*
 * What of a history nobody reads any more, told while it passes by: by key, newest first.
 *
 * A history is read at some LSNs, its boundaries, and where it goes on behind the last of them at
 * all (pagestore/timeline/retained.py says why). So a value is dead when a newer one that needs
 * nothing older lies within the same two boundaries: every read that would come to it ends there.
 * Dead is as well what a read does not ask for: a block beyond its relation's length at the
 * boundary (no chain crosses a truncation).
 *
 * Two kinds of values are known to be dead only when the one behind them is seen, so they wait
 * for it. Of the times of commits within two boundaries only the last is ever an answer. And a
 * tombstone has nothing to hide when no older value passes, nor lies anywhere below: looked for
 * among all that there is, needed or not, since what is there now only becomes less.
 */
#ifndef PS_STORE_SIEVE_H
#define PS_STORE_SIEVE_H

#include "store/snapshot.h"

/* A value on its way out. */
typedef struct ps_passing {
    ps_key key;
    uint64_t lsn;
    uint8_t kind;
    uint8_t flags;
    uint32_t length;
    const uint8_t *data;
} ps_passing;

/* Where a history is read; of no boundaries and none beyond which all goes: everywhere. */
typedef struct ps_kept {
    const uint64_t *boundaries; /* ascending */
    size_t count;
    int ends; /* nobody reads beyond the last of them */
} ps_kept;

typedef struct ps_sieve {
    uint64_t *boundaries;
    size_t count;
    int ends;
    ps_snapshot *snapshot; /* that shows all of the history */
    ps_snapshot *below;    /* the same without what passes; NULL: tombstones stay */

    /* Of the key that passes: the interval of the value before, and whether what follows in it
     * is dead. */
    int has_key;
    ps_key key;
    size_t interval;
    int ended;

    /* The relation that was looked at last: its lengths, by interval; known at which LSN, or 0. */
    int has_relation;
    ps_key relation;
    uint32_t *lengths;
    uint64_t *known;

    int waits;         /* for the next one */
    ps_passing waiting;
    uint8_t payload[16]; /* its */
} ps_sieve;

/* Retains the snapshots; `below` may be NULL. */
int ps_sieve_init(ps_sieve *sieve, const ps_kept *kept, const ps_snapshot *snapshot,
                  const ps_snapshot *below, ps_error *err);
void ps_sieve_free(ps_sieve *sieve);

/* Whether nothing is ever dead. */
static inline int
ps_sieve_is_idle(const ps_sieve *sieve)
{
    return sieve->count == 0 && !sieve->ends;
}

/* Whether a value is dead, by what has passed before: 1 or 0, or an error. */
int ps_sieve_is_dead(ps_sieve *sieve, const ps_key *key, uint64_t lsn, uint8_t kind,
                     uint8_t flags, ps_error *err);
/* Whether a value that is not dead so far has to wait for the one behind it. */
int ps_sieve_must_wait(const ps_sieve *sieve, const ps_passing *value);
/* Keeps a copy of it, as the one that waits. */
void ps_sieve_wait(ps_sieve *sieve, const ps_passing *value);
/* Whether the one that waits is dead, now that another follows (NULL: none): 1 or 0, or an
 * error. It waits no more. */
int ps_sieve_decide(ps_sieve *sieve, const ps_passing *next, ps_error *err);

/* Whether a block may be asked for by whoever reads at an LSN and has nothing kept before it. */
int ps_sieve_reads_block(ps_sieve *sieve, const ps_key *key, uint64_t lsn, ps_error *err);

/* About how many 1024ths of a layer's bytes are dead: of a delta layer by what it has itself, of
 * an image layer by what a read at `image_lsn` finds instead. Looks at some of its keys. */
int ps_layer_dead_part(const ps_snapshot *snapshot, ps_layer *layer, const ps_kept *kept,
                       uint64_t image_lsn, uint32_t *part, ps_error *err);

#endif
