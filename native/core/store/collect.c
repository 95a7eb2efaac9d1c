/*
 * Lookups: the values of keys at an LSN, the newest first, down to what needs nothing older.
 *
 * Candidates are visited from the newest on, each with all keys that still want something. Where
 * the LSNs of some overlap, they make a cluster, whose values are merged key by key; but most
 * such have only one that may have the key, as files that share a range of LSNs by ranges of keys.
 */
#include <stdlib.h>

#include "layer/patience.h"
#include "store/candidates.h"

/* How many columns of tables a read fills, and with how many empty ones an event loop puts up. */
#define LEARN_AT_ONCE 64u
#define UNKNOWN_MOST 32u

typedef struct lookup {
    const ps_key *keys;
    ps_chain *chains;
    uint32_t *wanted;   /* the keys that want more, ascending */
    uint32_t *place;    /* of each in the order that was asked for */
    uint32_t *some;     /* of them, those for one visit */
    size_t left;
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

/* Asks one candidate for all keys that it may have. */
static int
visit_wanted(lookup *l, const ps_candidate *from)
{
    if (from->wants == NULL)
        return visit(l, from, l->keys, l->wanted, l->left, l->chains);
    size_t count = 0;
    for (size_t i = 0; i < l->left; i++)
        if ((from->wants[l->place[i] / 64] >> l->place[i] % 64 & 1) != 0)
            l->some[count++] = l->wanted[i];
    return visit(l, from, l->keys, l->some, count, l->chains);
}

static void
drop_complete(lookup *l)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->left; i++) {
        if (l->chains[l->wanted[i]].complete)
            continue;
        l->wanted[kept] = l->wanted[i];
        l->place[kept++] = l->place[i];
    }
    l->left = kept;
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
merge_key(lookup *l, const ps_candidate *cluster, size_t count, size_t at)
{
    uint32_t key = l->wanted[at];
    ps_chain *chain = &l->chains[key];
    ps_chain *parts = ps_arena_take(chain->arena, count * sizeof *parts);
    uint32_t *taken = ps_arena_take(chain->arena, count * sizeof *taken);
    if (parts == NULL || taken == NULL)
        return ps_fail(l->err, PS_ERR_NOMEM, "out of memory for a chain");
    memset(taken, 0, count * sizeof *taken);
    for (size_t i = 0; i < count; i++) {
        parts[i] = (ps_chain){.arena = chain->arena, .newest_only = chain->newest_only};
        if (!ps_candidate_may_have(&cluster[i], &l->keys[key], l->place[at]))
            continue;
        int rc = visit(l, &cluster[i], &l->keys[key], &(uint32_t){0}, 1, &parts[i]);
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
only_one(lookup *l, const ps_candidate *cluster, size_t count, size_t at, int *several)
{
    size_t only = count;
    *several = 0;
    for (size_t i = 0; i < count && !*several; i++) {
        if (!ps_candidate_may_have(&cluster[i], &l->keys[l->wanted[at]], l->place[at]))
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
    for (size_t at = 0; rc == PS_OK && at < l->left; at++) {
        int several;
        size_t only = only_one(l, cluster, count, at, &several);
        if (several) {
            rc = merge_key(l, cluster, count, at);
        } else if (only < count) {
            if (only != from && run > 0) {
                rc = visit(l, &cluster[from], l->keys, l->some, run, l->chains);
                run = 0;
            }
            from = only;
            l->some[run++] = l->wanted[at];
        }
    }
    if (rc == PS_OK && run > 0)
        rc = visit(l, &cluster[from], l->keys, l->some, run, l->chains);
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
    for (size_t i = 0; rc == PS_OK && l->left > 0 && i < found->count;) {
        size_t end = cluster_end(found->items, i, found->count);
        rc = end == i + 1 ? visit_wanted(l, &found->items[i])
                          : visit_cluster(l, &found->items[i], end - i);
        drop_complete(l);
        i = end;
    }
    return rc;
}

/* Fills some columns that are empty: of files that were found in the catalog, or just written.
 * As long as they are, each read has to look at their files one by one. */
static int
learn(const ps_snapshot *snapshot, ps_error *err)
{
    size_t unknown = 0;
    for (uint32_t i = 0; i < snapshot->part_count; i++)
        unknown += ps_group_unknown(snapshot->parts[i].group, snapshot->parts[i].count);
    if (!ps_patience_allows_files())
        return unknown <= UNKNOWN_MOST
                   ? PS_OK
                   : ps_fail(err, PS_ERR_WOULD_WAIT, "the filters of %zu layers are to be read",
                             unknown);
    size_t budget = unknown < LEARN_AT_ONCE ? unknown : LEARN_AT_ONCE;
    for (uint32_t i = snapshot->part_count; budget > 0 && i > 0; i--) {
        const ps_part *part = &snapshot->parts[i - 1];
        for (uint32_t at = part->count; budget > 0 && part->group->rows != NULL && at > 0; at--) {
            if (ps_group_knows(part->group, at - 1))
                continue;
            ps_group_learn(part->group, at - 1);
            budget--;
        }
    }
    return PS_OK;
}

int
ps_snapshot_collect(const ps_snapshot *snapshot, const ps_key *keys, const uint32_t *order,
                    size_t count, uint64_t lsn, ps_chain *chains, ps_error *err)
{
    uint32_t few[3 * 64];
    uint32_t *lists = count <= 64 ? few : malloc(3 * count * sizeof *lists);
    if (lists == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a read of %zu blocks", count);
    lookup l = {.keys = keys,
                .chains = chains,
                .wanted = lists,
                .place = lists + count,
                .some = lists + 2 * count,
                .left = count,
                .err = err};
    for (size_t i = 0; i < count; i++) {
        l.wanted[i] = order[i];
        l.place[i] = (uint32_t)i;
    }
    drop_complete(&l);
    ps_candidates found;
    ps_candidates_init(&found);
    int rc = learn(snapshot, err);
    if (rc == PS_OK && l.left > 0 &&
        ps_candidates_find(&found, snapshot, keys, order, count, lsn) < 0)
        rc = ps_fail(err, PS_ERR_NOMEM, "out of memory for a read of %zu blocks", count);
    if (rc == PS_OK)
        rc = walk(&l, &found);
    ps_candidates_free(&found);
    if (lists != few)
        free(lists);
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
