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

int
ps_candidates_add(ps_candidates *to, const ps_candidate *candidate)
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

int
ps_candidates_add_memory(ps_candidates *to, const ps_snapshot *snapshot, uint64_t lsn)
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
            rc = ps_candidates_add(to, &made);
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
                           .image = known->kind == PS_LAYER_IMAGE};
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
            rc = ps_candidates_add(to, &made);
    return rc;
}

/* Of the files of a part, which candidate each is. */
enum { UNSEEN = UINT32_MAX, NONE = UINT32_MAX - 1 };

/* One that may have the key at a place. */
static int
add_column(ps_candidates *to, const ps_part *part, uint32_t column, const ps_wanted *wanted,
           size_t place, uint32_t *slot)
{
    if (*slot == UNSEEN) {
        const ps_key *first = &wanted->keys[wanted->order[0]];
        const ps_key *last = &wanted->keys[wanted->order[wanted->count - 1]];
        ps_candidate made;
        *slot = NONE;
        if (!consider(part, column, first, last, wanted->lsn, &made))
            return PS_OK;
        if (wanted->count > 1) {
            size_t bytes = ps_wanted_words(wanted) * sizeof *made.wants;
            made.wants = ps_arena_take(&to->arena, bytes);
            if (made.wants == NULL)
                return PS_ERR_NOMEM;
            memset(made.wants, 0, bytes);
        }
        *slot = (uint32_t)to->count;
        if (ps_candidates_add(to, &made) < 0)
            return PS_ERR_NOMEM;
    }
    if (*slot != NONE && wanted->count > 1)
        to->items[*slot].wants[place / 64] |= (uint64_t)1 << place % 64;
    return PS_OK;
}

/* So many keys ahead their rows are on their way from memory. */
#define AHEAD 8u

/* The first place from one on that is open; the count of places if none is. */
static size_t
next_open(const ps_wanted *wanted, size_t from)
{
    for (size_t w = from / 64; w < ps_wanted_words(wanted); w++) {
        uint64_t left = wanted->open[w] & (w == from / 64 ? UINT64_MAX << from % 64 : UINT64_MAX);
        if (left != 0)
            return w * 64 + (size_t)__builtin_ctzll(left);
    }
    return wanted->count;
}

static int
add_by_table(ps_candidates *to, const ps_part *part, const ps_wanted *wanted)
{
    uint64_t found[PS_GROUP_WORDS];
    uint32_t slots[PS_GROUP_MOST], words = (part->count + 63) / 64;
    memset(slots, 0xFF, part->count * sizeof *slots); /* UNSEEN */
    size_t ahead = 0;
    for (size_t place = next_open(wanted, 0); place < wanted->count;) {
        while ((ahead = next_open(wanted, ahead)) < wanted->count && ahead < place + AHEAD)
            ps_group_prefetch(part->group, &wanted->probes[ahead++]);
        ps_group_find(part->group, part->count, &wanted->probes[place], found);
        for (uint32_t f = 0; f < words; f++)
            for (; found[f] != 0; found[f] &= found[f] - 1) {
                uint32_t column = f * 64 + (uint32_t)__builtin_ctzll(found[f]);
                if (add_column(to, part, column, wanted, place, &slots[column]) < 0)
                    return PS_ERR_NOMEM;
            }
        place = next_open(wanted, place + 1);
    }
    return PS_OK;
}

int
ps_candidates_add_part(ps_candidates *to, const ps_part *part, const ps_table *table,
                       const ps_wanted *wanted)
{
    const ps_key *first = &wanted->keys[wanted->order[0]];
    const ps_key *last = &wanted->keys[wanted->order[wanted->count - 1]];
    return table != NULL ? add_by_table(to, part, wanted)
                         : add_all(to, part, first, last, wanted->lsn);
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
void
ps_candidates_sort(ps_candidates *candidates)
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

int
ps_candidates_within(ps_candidates *candidates, const ps_snapshot *snapshot, const ps_key *low,
                     const ps_key *high, uint64_t lsn)
{
    int rc = ps_candidates_add_memory(candidates, snapshot, lsn);
    for (uint32_t i = snapshot->part_count; rc == PS_OK && i > 0; i--)
        if (snapshot->parts[i - 1].lower <= lsn)
            rc = add_all(candidates, &snapshot->parts[i - 1], low, high, lsn);
    ps_candidates_sort(candidates);
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
