/*
 * Lookups: the values of keys at an LSN, the newest first, down to what needs nothing older.
 *
 * Sources are visited from the newest on (store/stretches.h), each with the keys that it may have
 * and that still want something, so that a visit costs by what there is and not by how many files
 * or keys there are. Where the LSNs of some overlap, they make a cluster, whose values are merged
 * key by key; but most such have only one that may have the key, as files that share a range of
 * LSNs by ranges of keys.
 */
#include <stdlib.h>

#include "store/stretches.h"

/* So many keys need no memory of their own. */
#define FEW 64u

typedef struct lookup {
    ps_wanted wanted;
    ps_chain *chains;
    uint32_t *some; /* keys for one visit, ascending */
    ps_error *err;
} lookup;

/* Asks one candidate for some of the keys, listed ascending. */
static int
visit(lookup *l, const ps_candidate *from, const ps_key *keys, const uint32_t *order,
      size_t count, ps_chain *chains)
{
    const ps_source *source = from->source;
    if (count == 0)
        return PS_OK;
    if (source->open != NULL)
        return ps_open_layer_collect(source->open, keys, order, count, from->upper, chains, l->err);
    return ps_layer_collect(source->file, keys, order, count, from->upper, chains, l->err);
}

/* Of 64 places the keys that are open and that a candidate may have. */
static uint64_t
asked(const lookup *l, const ps_candidate *from, size_t word)
{
    return l->wanted.open[word] & (from->wants == NULL ? UINT64_MAX : from->wants[word]);
}

static void
close_complete(lookup *l, const ps_candidate *from)
{
    for (size_t w = 0; w < ps_wanted_words(&l->wanted); w++)
        for (uint64_t left = asked(l, from, w); left != 0; left &= left - 1) {
            size_t place = w * 64 + (size_t)__builtin_ctzll(left);
            if (l->chains[l->wanted.order[place]].complete)
                l->wanted.open[w] &= ~((uint64_t)1 << place % 64);
        }
}

/* Asks one candidate for all keys that it may have. */
static int
visit_wanted(lookup *l, const ps_candidate *from)
{
    size_t count = 0;
    for (size_t w = 0; w < ps_wanted_words(&l->wanted); w++)
        for (uint64_t left = asked(l, from, w); left != 0; left &= left - 1)
            l->some[count++] = l->wanted.order[w * 64 + (size_t)__builtin_ctzll(left)];
    int rc = visit(l, from, l->wanted.keys, l->some, count, l->chains);
    if (count > 0)
        close_complete(l, from);
    return rc;
}

static int
is_done(const lookup *l)
{
    for (size_t w = 0; w < ps_wanted_words(&l->wanted); w++)
        if (l->wanted.open[w] != 0)
            return 0;
    return 1;
}

/* Which of the chains has the newest next value: an image before others of its LSN. */
static size_t
newest(const ps_candidate *cluster, const ps_chain *parts, const uint32_t *taken, size_t count)
{
    size_t best = count;
    for (size_t i = 0; i < count; i++) {
        if (taken[i] == parts[i].count)
            continue;
        uint64_t lsn = parts[i].items[taken[i]].lsn;
        uint64_t than = best == count ? 0 : parts[best].items[taken[best]].lsn;
        if (best == count || lsn > than ||
            (lsn == than && cluster[i].image && !cluster[best].image))
            best = i;
    }
    return best;
}

/* One key of which several of a cluster may have values. */
static int
merge_key(lookup *l, const ps_candidate *cluster, size_t count, size_t place)
{
    uint32_t key = l->wanted.order[place];
    ps_chain *chain = &l->chains[key];
    ps_chain *parts = ps_arena_take(chain->arena, count * sizeof *parts);
    uint32_t *taken = ps_arena_take(chain->arena, count * sizeof *taken);
    if (parts == NULL || taken == NULL)
        return ps_fail(l->err, PS_ERR_NOMEM, "out of memory for a chain");
    memset(taken, 0, count * sizeof *taken);
    for (size_t i = 0; i < count; i++) {
        parts[i] = (ps_chain){.arena = chain->arena, .newest_only = chain->newest_only};
        if (!ps_candidate_may_have(&cluster[i], &l->wanted.keys[key], place))
            continue;
        int rc = visit(l, &cluster[i], &l->wanted.keys[key], &(uint32_t){0}, 1, &parts[i]);
        if (rc < 0)
            return rc;
    }
    for (size_t i; !chain->complete && (i = newest(cluster, parts, taken, count)) < count;) {
        const ps_chain_item *item = &parts[i].items[taken[i]++];
        int rc = ps_chain_add(chain, item->lsn, item->kind, item->flags, item->data, item->length,
                              l->err);
        if (rc < 0)
            return rc;
    }
    return PS_OK;
}

/* The only one of a cluster that may have a key; `count` if there are none, or more. */
static size_t
only_one(lookup *l, const ps_candidate *cluster, size_t count, size_t place, int *several)
{
    const ps_key *key = &l->wanted.keys[l->wanted.order[place]];
    size_t only = count;
    *several = 0;
    for (size_t i = 0; i < count && !*several; i++) {
        if (!ps_candidate_may_have(&cluster[i], key, place))
            continue;
        *several = only < count;
        only = i;
    }
    return *several ? count : only;
}

/* Keys in a row that one candidate alone may have are one visit. */
static int
visit_cluster(lookup *l, const ps_candidate *cluster, size_t count)
{
    size_t from = count, run = 0;
    int rc = PS_OK;
    for (size_t place = 0; rc == PS_OK && place < l->wanted.count; place++) {
        if ((l->wanted.open[place / 64] >> place % 64 & 1) == 0)
            continue;
        int several;
        size_t only = only_one(l, cluster, count, place, &several);
        if (several) {
            rc = merge_key(l, cluster, count, place);
        } else if (only < count) {
            if (only != from && run > 0) {
                rc = visit(l, &cluster[from], l->wanted.keys, l->some, run, l->chains);
                run = 0;
            }
            from = only;
            l->some[run++] = l->wanted.order[place];
        }
    }
    if (rc == PS_OK && run > 0)
        rc = visit(l, &cluster[from], l->wanted.keys, l->some, run, l->chains);
    for (size_t i = 0; i < count; i++)
        close_complete(l, &cluster[i]);
    return rc;
}

/* Where the candidates end whose LSNs overlap with those of the first. An image layer that comes
 * first is visited alone: nothing that follows is newer, and what it has needs none of it. */
static size_t
cluster_end(const ps_candidate *items, size_t begin, size_t count)
{
    uint64_t lower = items[begin].lower;
    size_t end = begin + 1;
    while (!items[begin].image && end < count && items[end].upper >= lower) {
        lower = items[end].lower < lower ? items[end].lower : lower;
        end++;
    }
    return end;
}

static int
walk(lookup *l, const ps_candidates *found)
{
    int rc = PS_OK;
    for (size_t i = 0; rc == PS_OK && i < found->count && !is_done(l);) {
        size_t end = cluster_end(found->items, i, found->count);
        rc = end == i + 1 ? visit_wanted(l, &found->items[i])
                          : visit_cluster(l, &found->items[i], end - i);
        i = end;
    }
    return rc;
}

static int
look_up(lookup *l, const ps_snapshot *snapshot)
{
    for (size_t place = 0; place < l->wanted.count; place++)
        if (!l->chains[l->wanted.order[place]].complete)
            l->wanted.open[place / 64] |= (uint64_t)1 << place % 64;
    ps_stretches stretches;
    int rc = ps_stretches_init(&stretches, snapshot, &l->wanted, l->err);
    while (rc == PS_OK && !is_done(l)) {
        rc = ps_stretches_next(&stretches, l->err);
        if (rc == 0)
            break;
        if (rc > 0)
            rc = walk(l, &stretches.found);
    }
    ps_stretches_free(&stretches);
    return rc;
}

int
ps_snapshot_collect(const ps_snapshot *snapshot, const ps_key *keys, const uint32_t *order,
                    size_t count, uint64_t lsn, ps_chain *chains, ps_error *err)
{
    uint64_t one_word[FEW / 64] = {0}, *open = one_word;
    uint32_t few[FEW], *some = few;
    if (count > FEW) {
        open = calloc((count + 63) / 64, sizeof *open);
        some = malloc(count * sizeof *some);
    }
    lookup l = {.wanted = {.keys = keys, .order = order, .count = count, .lsn = lsn, .open = open},
                .chains = chains,
                .some = some,
                .err = err};
    int rc = open == NULL || some == NULL
                 ? ps_fail(err, PS_ERR_NOMEM, "out of memory for a read of %zu blocks", count)
                 : look_up(&l, snapshot);
    if (count > FEW) {
        free(open);
        free(some);
    }
    return rc;
}

int
ps_snapshot_get(const ps_snapshot *snapshot, const ps_key *key, uint64_t lsn, ps_arena *arena,
                const uint8_t **data, uint32_t *length, ps_error *err)
{
    ps_chain chain = {.arena = arena, .newest_only = 1};
    int rc = ps_snapshot_collect(snapshot, key, &(uint32_t){0}, 1, lsn, &chain, err);
    if (rc < 0)
        return rc;
    if (chain.count == 0 || chain.items[0].kind == PS_VALUE_TOMBSTONE)
        return ps_fail(err, PS_ERR_NOT_FOUND, "the key does not exist at that LSN");
    if (chain.items[0].kind != PS_VALUE_IMAGE)
        return ps_fail(err, PS_ERR_INVALID, "the newest value of the key is not a whole one");
    *data = chain.items[0].data;
    *length = chain.items[0].length;
    return PS_OK;
}

static int
source_get(void *context, const ps_key *key, uint64_t lsn, uint8_t *out, size_t capacity,
           size_t *length, ps_error *err)
{
    ps_arena arena;
    ps_arena_init(&arena);
    const uint8_t *data;
    uint32_t found;
    int rc = ps_snapshot_get(context, key, lsn, &arena, &data, &found, err);
    if (rc == PS_OK && found > capacity)
        rc = ps_fail(err, PS_ERR_INVALID, "a value of %u bytes, room for %zu", found, capacity);
    if (rc == PS_OK) {
        memcpy(out, data, found);
        *length = found;
    }
    ps_arena_free(&arena);
    return rc;
}

static int
source_scan(void *context, const ps_key *low, const ps_key *high, uint64_t lsn, ps_visit visit_key,
            void *arg, ps_error *err)
{
    return ps_snapshot_scan(context, low, high, lsn, visit_key, arg, err);
}

ps_meta_source
ps_snapshot_meta_source(const ps_snapshot *snapshot)
{
    return (ps_meta_source){
        .context = (void *)(uintptr_t)snapshot, .get = source_get, .scan = source_scan};
}
