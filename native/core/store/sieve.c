#include "store/sieve.h"

#include <stdlib.h>

int
ps_sieve_init(ps_sieve *sieve, const ps_kept *kept, const ps_snapshot *snapshot,
              const ps_snapshot *below, ps_error *err)
{
    size_t count = kept->count;
    *sieve = (ps_sieve){.count = count,
                        .ends = kept->ends,
                        .boundaries = calloc(count + 1, sizeof *sieve->boundaries),
                        .lengths = calloc(count + 1, sizeof *sieve->lengths),
                        .known = calloc(count + 1, sizeof *sieve->known)};
    if (sieve->boundaries == NULL || sieve->lengths == NULL || sieve->known == NULL) {
        ps_sieve_free(sieve);
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for %zu kept LSNs", count);
    }
    if (count > 0)
        memcpy(sieve->boundaries, kept->boundaries, count * sizeof *sieve->boundaries);
    sieve->snapshot = ps_snapshot_retain(snapshot);
    sieve->below = below == NULL ? NULL : ps_snapshot_retain(below);
    return PS_OK;
}

void
ps_sieve_free(ps_sieve *sieve)
{
    free(sieve->boundaries);
    free(sieve->lengths);
    free(sieve->known);
    if (sieve->snapshot != NULL)
        ps_snapshot_release(sieve->snapshot);
    if (sieve->below != NULL)
        ps_snapshot_release(sieve->below);
    *sieve = (ps_sieve){0};
}

/* Which two boundaries an LSN lies between: the number of the upper one, which it may be itself;
 * `count` beyond all. */
static size_t
interval_of(const ps_sieve *sieve, uint64_t lsn)
{
    size_t low = 0, high = sieve->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sieve->boundaries[middle] < lsn)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The newest value of a key at an LSN, if there is one; of pages it need not be whole. */
static int
newest(const ps_snapshot *snapshot, const ps_key *key, uint64_t lsn, ps_arena *arena,
       ps_chain *chain, ps_error *err)
{
    *chain = (ps_chain){.arena = arena, .newest_only = 1};
    return ps_snapshot_collect(snapshot, key, &(uint32_t){0}, 1, lsn, chain, err);
}

/* How many blocks the relation of a block has at an LSN; 0 if there is none. */
static int
length_at(const ps_snapshot *snapshot, const ps_key *block, uint64_t lsn, uint32_t *length,
          ps_error *err)
{
    ps_key size = ps_key_make(PS_KIND_REL_SIZE, ps_key_spc(block), ps_key_db(block),
                              ps_key_rel(block), ps_key_fork(block), 0);
    ps_arena arena;
    ps_chain chain;
    ps_arena_init(&arena);
    *length = 0;
    int rc = newest(snapshot, &size, lsn, &arena, &chain, err);
    if (rc == PS_OK && chain.count > 0 && chain.items[0].kind == PS_VALUE_IMAGE) {
        if (chain.items[0].length == sizeof *length)
            memcpy(length, chain.items[0].data, sizeof *length);
        else
            rc = ps_fail(err, PS_ERR_CORRUPT, "a relation's size of %u bytes",
                         chain.items[0].length);
    }
    ps_arena_free(&arena);
    return rc;
}

/* Whether a read may ask for a block: at the boundary of an interval, or beyond all at `lsn`. */
static int
is_within(ps_sieve *sieve, const ps_key *block, size_t interval, uint64_t lsn, ps_error *err)
{
    ps_key relation = *block;
    ps_put_be32(relation.b + 14, 0);
    if (!sieve->has_relation || ps_key_compare(&relation, &sieve->relation) != 0) {
        memset(sieve->known, 0, (sieve->count + 1) * sizeof *sieve->known);
        sieve->relation = relation;
        sieve->has_relation = 1;
    }
    uint64_t at = interval < sieve->count ? sieve->boundaries[interval] : lsn;
    if (sieve->known[interval] != at) {
        int rc = length_at(sieve->snapshot, block, at, &sieve->lengths[interval], err);
        if (rc < 0)
            return rc;
        sieve->known[interval] = at;
    }
    return ps_key_block(block) < sieve->lengths[interval];
}

int
ps_sieve_reads_block(ps_sieve *sieve, const ps_key *key, uint64_t lsn, ps_error *err)
{
    return is_within(sieve, key, interval_of(sieve, lsn), lsn, err);
}

int
ps_sieve_is_dead(ps_sieve *sieve, const ps_key *key, uint64_t lsn, uint8_t kind, uint8_t flags,
                 ps_error *err)
{
    size_t interval = interval_of(sieve, lsn);
    if (interval == sieve->count)
        return sieve->ends;
    if (!sieve->has_key || ps_key_compare(key, &sieve->key) != 0) {
        sieve->key = *key;
        sieve->has_key = 1;
    } else if (interval == sieve->interval && sieve->ended) {
        return 1;
    }
    sieve->interval = interval;
    sieve->ended = ps_value_ends_chain(kind, flags);
    if (ps_key_kind(key) != PS_KIND_REL_BLOCK)
        return 0;
    int within = is_within(sieve, key, interval, lsn, err);
    if (within == 0)
        sieve->ended = 1;
    return within < 0 ? within : !within;
}

static int
is_time(const ps_passing *value)
{
    return ps_key_kind(&value->key) == PS_KIND_COMMIT_TIME;
}

int
ps_sieve_must_wait(const ps_sieve *sieve, const ps_passing *value)
{
    if (ps_sieve_is_idle(sieve) || value->length > sizeof sieve->payload)
        return 0;
    if (value->kind == PS_VALUE_TOMBSTONE)
        return sieve->below != NULL;
    return is_time(value) && interval_of(sieve, value->lsn) < sieve->count;
}

void
ps_sieve_wait(ps_sieve *sieve, const ps_passing *value)
{
    sieve->waits = 1;
    sieve->waiting = *value;
    if (value->length > 0)
        memcpy(sieve->payload, value->data, value->length);
    sieve->waiting.data = sieve->payload;
}

/* Whether there is no value of the key below an LSN, of whatever kind. */
static int
is_bare(const ps_sieve *sieve, const ps_key *key, uint64_t lsn, ps_error *err)
{
    ps_arena arena;
    ps_chain chain = {0};
    ps_arena_init(&arena);
    int rc = lsn == 0 ? PS_OK : newest(sieve->below, key, lsn - 1, &arena, &chain, err);
    ps_arena_free(&arena);
    return rc < 0 ? rc : chain.count == 0;
}

int
ps_sieve_decide(ps_sieve *sieve, const ps_passing *next, ps_error *err)
{
    const ps_passing *waiting = &sieve->waiting;
    int other = next == NULL || ps_key_compare(&next->key, &waiting->key) != 0;
    sieve->waits = 0;
    if (waiting->kind == PS_VALUE_TOMBSTONE)
        return other ? is_bare(sieve, &waiting->key, waiting->lsn, err) : 0;
    return other && next != NULL && is_time(next) &&
           interval_of(sieve, next->lsn) == interval_of(sieve, waiting->lsn);
}
