#include "store/candidates.h"

#include <stdlib.h>

void
ps_candidates_init(ps_candidates *candidates)
{
    candidates->items = candidates->few;
    candidates->count = 0;
    candidates->room = sizeof candidates->few / sizeof *candidates->few;
    ps_arena_init(&candidates->arena);
}

void
ps_candidates_free(ps_candidates *candidates)
{
    if (candidates->items != candidates->few)
        free(candidates->items);
    ps_arena_free(&candidates->arena);
}

static int
add(ps_candidates *to, const ps_candidate *candidate)
{
    if (to->count == to->room) {
        size_t room = to->room * 4;
        ps_candidate *grown =
            realloc(to->items == to->few ? NULL : to->items, room * sizeof *grown);
        if (grown == NULL)
            return PS_ERR_NOMEM;
        if (to->items == to->few)
            memcpy(grown, to->few, sizeof to->few);
        to->items = grown;
        to->room = room;
    }
    to->items[to->count++] = *candidate;
    return PS_OK;
}

static int
add_memory(ps_candidates *to, const ps_snapshot *snapshot, uint64_t lsn)
{
    int rc = PS_OK;
    for (uint32_t i = snapshot->memory_count; rc == PS_OK && i > 0; i--) {
        const ps_source *source = &snapshot->memory[i - 1];
        ps_candidate made = {.source = source};
        if (ps_open_layer_bounds(source->open, &made.lower, &made.upper) < 0)
            continue;
        made.upper = made.upper < source->upper ? made.upper : source->upper;
        made.upper = made.upper < lsn ? made.upper : lsn;
        if (made.lower <= made.upper)
            rc = add(to, &made);
    }
    return rc;
}

/* What a read at an LSN has to do with a file; 0 if nothing. */
static int
consider(const ps_part *part, uint32_t column, const ps_key *first, const ps_key *last,
         uint64_t lsn, ps_candidate *made)
{
    const ps_source *source = &part->group->files[column];
    uint64_t upper = source->upper < part->upper ? source->upper : part->upper;
    upper = upper < lsn ? upper : lsn;
    if (source->lower > upper)
        return 0;
    const ps_layer_summary *known = ps_layer_known(source->file);
    if (ps_key_compare(first, &known->max_key) > 0 || ps_key_compare(last, &known->min_key) < 0)
        return 0;
    *made = (ps_candidate){.source = source,
                           .lower = source->lower,
                           .upper = upper,
                           .image = known->kind == PS_LAYER_IMAGE,
                           .group = part->group,
                           .column = column};
    return 1;
}

static int
add_all(ps_candidates *to, const ps_part *part, const ps_key *first, const ps_key *last,
        uint64_t lsn)
{
    int rc = PS_OK;
    ps_candidate made;
    for (uint32_t i = part->count; rc == PS_OK && i > 0; i--)
        if (consider(part, i - 1, first, last, lsn, &made))
            rc = add(to, &made);
    return rc;
}

/* Of a table's answers for each of the keys, the sources that may have any. */
static int
add_found(ps_candidates *to, const ps_part *part, const ps_key *keys, const uint32_t *order,
          size_t count, uint64_t lsn, const uint64_t (*found)[PS_GROUP_WORDS])
{
    const ps_key *first = &keys[order[0]], *last = &keys[order[count - 1]];
    for (uint32_t w = 0; w < (part->count + 63) / 64; w++) {
        uint64_t any = 0;
        for (size_t i = 0; i < count; i++)
            any |= found[i][w];
        for (; any != 0; any &= any - 1) {
            uint32_t bit = (uint32_t)__builtin_ctzll(any);
            ps_candidate made;
            if (!consider(part, w * 64 + bit, first, last, lsn, &made))
                continue;
            if (count > 1) {
                uint64_t *wants = ps_arena_take(&to->arena, (count + 63) / 64 * sizeof *wants);
                if (wants == NULL)
                    return PS_ERR_NOMEM;
                memset(wants, 0, (count + 63) / 64 * sizeof *wants);
                for (size_t i = 0; i < count; i++)
                    wants[i / 64] |= (found[i][w] >> bit & 1) << i % 64;
                made.wants = wants;
            }
            if (add(to, &made) < 0)
                return PS_ERR_NOMEM;
        }
    }
    return PS_OK;
}

static int
add_by_table(ps_candidates *to, const ps_part *part, const ps_key *keys, const uint32_t *order,
             size_t count, uint64_t lsn, const ps_probe *probes)
{
    uint64_t one[1][PS_GROUP_WORDS];
    uint64_t(*found)[PS_GROUP_WORDS] =
        count == 1 ? one : ps_arena_take(&to->arena, count * sizeof *found);
    if (found == NULL)
        return PS_ERR_NOMEM;
    for (size_t i = 0; i < count; i++)
        ps_group_find(part->group, part->count, &probes[i], found[i]);
    return add_found(to, part, keys, order, count, lsn, (const uint64_t(*)[PS_GROUP_WORDS])found);
}

/* Images at one LSN that have one key differ in nothing but their files: of an import that gave
 * a key twice the later counts. */
static int
is_before(const ps_candidate *a, const ps_candidate *b)
{
    if (a->upper != b->upper)
        return a->upper > b->upper;
    if (a->image != b->image)
        return a->image;
    if (a->lower != b->lower)
        return a->lower > b->lower;
    return a->image && ps_layer_identity(a->source->file)->number >
                           ps_layer_identity(b->source->file)->number;
}

static int
compare(const void *a, const void *b)
{
    return is_before(a, b) ? -1 : is_before(b, a);
}

/* They come nearly in order. */
static void
sort(ps_candidates *candidates)
{
    ps_candidate *items = candidates->items;
    if (candidates->count > 64) {
        qsort(items, candidates->count, sizeof *items, compare);
        return;
    }
    for (size_t i = 1; i < candidates->count; i++) {
        if (!is_before(&items[i], &items[i - 1]))
            continue;
        ps_candidate moved = items[i];
        size_t at = i;
        for (; at > 0 && is_before(&moved, &items[at - 1]); at--)
            items[at] = items[at - 1];
        items[at] = moved;
    }
}

/* Of all keys, if some part has a table. `one` has room for one. NULL: no memory. */
static const ps_probe *
make_probes(ps_candidates *to, const ps_snapshot *snapshot, const ps_key *keys,
            const uint32_t *order, size_t count, ps_probe *one)
{
    int tables = 0;
    for (uint32_t i = 0; i < snapshot->part_count && !tables; i++)
        tables = snapshot->parts[i].group->rows != NULL;
    if (!tables)
        return one;
    ps_probe *probes = count == 1 ? one : ps_arena_take(&to->arena, count * sizeof *probes);
    for (size_t i = 0; probes != NULL && i < count; i++)
        probes[i] = ps_probe_of(&keys[order[i]]);
    for (uint32_t i = 0; probes != NULL && i < snapshot->part_count; i++)
        ps_group_prefetch(snapshot->parts[i].group, probes);
    return probes;
}

int
ps_candidates_find(ps_candidates *candidates, const ps_snapshot *snapshot, const ps_key *keys,
                   const uint32_t *order, size_t count, uint64_t lsn)
{
    ps_probe one;
    const ps_probe *probes = make_probes(candidates, snapshot, keys, order, count, &one);
    int rc = probes == NULL ? PS_ERR_NOMEM : add_memory(candidates, snapshot, lsn);
    for (uint32_t i = snapshot->part_count; rc == PS_OK && i > 0; i--) {
        const ps_part *part = &snapshot->parts[i - 1];
        if (part->lower > lsn)
            continue;
        rc = part->group->rows != NULL
                 ? add_by_table(candidates, part, keys, order, count, lsn, probes)
                 : add_all(candidates, part, &keys[order[0]], &keys[order[count - 1]], lsn);
    }
    sort(candidates);
    return rc;
}

int
ps_candidates_within(ps_candidates *candidates, const ps_snapshot *snapshot, const ps_key *low,
                     const ps_key *high, uint64_t lsn)
{
    int rc = add_memory(candidates, snapshot, lsn);
    for (uint32_t i = snapshot->part_count; rc == PS_OK && i > 0; i--)
        if (snapshot->parts[i - 1].lower <= lsn)
            rc = add_all(candidates, &snapshot->parts[i - 1], low, high, lsn);
    sort(candidates);
    return rc;
}

int
ps_candidate_may_have(const ps_candidate *candidate, const ps_key *key, size_t place)
{
    if (candidate->wants != NULL && (candidate->wants[place / 64] >> place % 64 & 1) == 0)
        return 0;
    if (candidate->source->file == NULL)
        return 1;
    const ps_layer_summary *known = ps_layer_known(candidate->source->file);
    return ps_key_compare(key, &known->min_key) >= 0 && ps_key_compare(key, &known->max_key) <= 0;
}
