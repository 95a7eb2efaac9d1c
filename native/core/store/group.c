#include "store/group.h"

#include <stdlib.h>

#include "layer/reading.h"

#define LINE_BITS (PS_LAYER_FILTER_LINE_BYTES * 8u)
/* With less room than for so many files, their filters are as quickly asked one by one. */
#define LEAST_TABLE 64u
/* 2,730 keys a file at the filter's full precision; with more, less of it. */
#define MOST_LINES 256u

static size_t table_bytes; /* of all tables */

static size_t
size_of_table(uint32_t lines, uint32_t words)
{
    return (size_t)lines * LINE_BITS * words * sizeof(uint64_t);
}

static void
make_table(ps_group *group, uint64_t keys)
{
    uint32_t lines = ps_layer_filter_bytes(keys) / PS_LAYER_FILTER_LINE_BYTES;
    lines = lines > MOST_LINES ? MOST_LINES : lines;
    size_t bytes = size_of_table(lines, group->words);
    if (__atomic_add_fetch(&table_bytes, bytes, __ATOMIC_RELAXED) <= PS_GROUP_TABLE_BYTES)
        group->rows = aligned_alloc(64, bytes);
    if (group->rows != NULL)
        memset(group->rows, 0, bytes);
    if (group->rows == NULL)
        __atomic_sub_fetch(&table_bytes, bytes, __ATOMIC_RELAXED);
    else
        group->lines = lines;
}

ps_group *
ps_group_make(uint32_t room, uint64_t keys)
{
    uint32_t rounded = 8;
    while (rounded < room)
        rounded *= 2;
    ps_group *group = calloc(1, sizeof *group + rounded * sizeof *group->files);
    if (group == NULL)
        return NULL;
    group->refs = 1;
    group->room = rounded;
    group->words = (rounded + 63) / 64;
    if (rounded >= LEAST_TABLE)
        make_table(group, keys);
    return group;
}

void
ps_group_retain(ps_group *group)
{
    __atomic_add_fetch(&group->refs, 1, __ATOMIC_RELAXED);
}

void
ps_group_release(ps_group *group)
{
    if (__atomic_sub_fetch(&group->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (uint32_t i = 0; i < group->used; i++)
        ps_layer_release(group->files[i].file);
    if (group->rows != NULL)
        __atomic_sub_fetch(&table_bytes, size_of_table(group->lines, group->words),
                           __ATOMIC_RELAXED);
    free(group->rows);
    free(group);
}

int
ps_group_add(ps_group *group, uint32_t count, const ps_source *source)
{
    uint32_t expected = count;
    if (count >= group->room || !__atomic_compare_exchange_n(&group->used, &expected, count + 1, 0,
                                                             __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return 0;
    /* Nobody looks at it yet: it is seen by who knows of the greater count. */
    group->files[count] = *source;
    ps_layer_retain(source->file);
    return 1;
}

static void
set_bit(uint64_t *words, uint32_t at)
{
    __atomic_fetch_or(&words[at / 64], (uint64_t)1 << at % 64, __ATOMIC_RELAXED);
}

int
ps_group_knows(const ps_group *group, uint32_t at)
{
    return group->rows != NULL &&
           (__atomic_load_n(&group->known[at / 64], __ATOMIC_ACQUIRE) >> at % 64 & 1) != 0;
}

static uint64_t
columns_of_word(uint32_t count, uint32_t word)
{
    uint32_t rest = count - 64 * word;
    return rest >= 64 ? UINT64_MAX : ((uint64_t)1 << rest) - 1;
}

uint32_t
ps_group_unknown(const ps_group *group, uint32_t count)
{
    uint32_t unknown = 0;
    for (uint32_t w = 0; group->rows != NULL && 64 * w < count; w++)
        unknown += (uint32_t)__builtin_popcountll(
            columns_of_word(count, w) & ~__atomic_load_n(&group->known[w], __ATOMIC_RELAXED));
    return unknown;
}

static void
note_known(ps_group *group, uint32_t at)
{
    __atomic_fetch_or(&group->known[at / 64], (uint64_t)1 << at % 64, __ATOMIC_RELEASE);
}

static int
bit_of(const void *filter, uint32_t line, uint32_t bit)
{
    const uint8_t *bytes = (const uint8_t *)filter + (size_t)line * PS_LAYER_FILTER_LINE_BYTES;
    return bytes[bit / 8] >> bit % 8 & 1;
}

/* Lays `lines` lines over the table's: what has a part in common counts. `is_set` tells a bit. */
static void
lay_over(ps_group *group, uint32_t column, uint32_t lines,
         int (*is_set)(const void *from, uint32_t line, uint32_t bit), const void *from)
{
    for (uint32_t line = 0; line < group->lines; line++) {
        uint32_t first = (uint32_t)((uint64_t)line * lines / group->lines);
        uint32_t last = (uint32_t)((((uint64_t)line + 1) * lines - 1) / group->lines);
        for (uint32_t bit = 0; bit < LINE_BITS; bit++) {
            int set = 0;
            for (uint32_t at = first; at <= last && !set; at++)
                set = is_set(from, at, bit);
            if (set)
                set_bit(group->rows + ((size_t)line * LINE_BITS + bit) * group->words, column);
        }
    }
    note_known(group, column);
}

typedef struct column {
    const ps_group *group;
    uint32_t at;
} column;

static int
bit_of_column(const void *from, uint32_t line, uint32_t bit)
{
    const column *source = from;
    const ps_group *group = source->group;
    const uint64_t *row = group->rows + ((size_t)line * LINE_BITS + bit) * group->words;
    return __atomic_load_n(&row[source->at / 64], __ATOMIC_RELAXED) >> source->at % 64 & 1;
}

void
ps_group_copy_column(ps_group *group, uint32_t to, const ps_group *from, uint32_t at)
{
    column source = {.group = from, .at = at};
    if (group->rows != NULL && ps_group_knows(from, at))
        lay_over(group, to, from->lines, bit_of_column, &source);
}

void
ps_group_learn(ps_group *group, uint32_t at)
{
    ps_layer *layer = group->files[at].file;
    if (group->rows == NULL || ps_layer_pin(layer, NULL) < 0)
        return;
    lay_over(group, at, layer->filter_bytes / PS_LAYER_FILTER_LINE_BYTES, bit_of, layer->filter);
    ps_layer_unpin(layer);
}

ps_probe
ps_probe_of(const ps_key *key)
{
    ps_ordered_key ordered = ps_key_order(key);
    ps_probe probe = {.hash = ps_ordered_hash(&ordered)};
    ps_layer_filter_bits(probe.hash, probe.bits);
    return probe;
}

static const uint64_t *
row_of(const ps_group *group, const ps_probe *probe, int i)
{
    size_t line = (probe->hash >> 32) * group->lines >> 32;
    return group->rows + (line * LINE_BITS + probe->bits[i]) * group->words;
}

void
ps_group_prefetch(const ps_group *group, const ps_probe *probe)
{
    for (int i = 0; group->rows != NULL && i < 8; i++)
        __builtin_prefetch(row_of(group, probe, i));
}

void
ps_group_find(const ps_group *group, uint32_t count, const ps_probe *probe,
              uint64_t found[PS_GROUP_WORDS])
{
    uint32_t words = (count + 63) / 64;
    uint64_t unknown[PS_GROUP_WORDS];
    for (uint32_t w = 0; w < words; w++) {
        found[w] = columns_of_word(count, w);
        unknown[w] = found[w] & ~__atomic_load_n(&group->known[w], __ATOMIC_ACQUIRE);
    }
    for (int i = 0; i < 8; i++) {
        const uint64_t *row = row_of(group, probe, i);
        for (uint32_t w = 0; w < words; w++)
            found[w] &= __atomic_load_n(&row[w], __ATOMIC_RELAXED);
    }
    for (uint32_t w = 0; w < words; w++)
        found[w] |= unknown[w];
}
