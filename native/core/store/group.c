#include "store/group.h"

#include <stdlib.h>

#include "layer/reading.h"

#define LINE_BITS (PS_LAYER_FILTER_LINE_BYTES * 8u)
/* Of fewer files the filters are as quickly asked one by one. */
#define LEAST_FILES 4u
/* 2,730 keys a file at the filter's full precision; with more, less of it. */
#define MOST_LINES 256u
/* With so many keys a column of the longest table says no more than that the file may have any. */
#define MOST_KEYS 16384u

static size_t table_bytes; /* of all tables */

ps_group *
ps_group_make(uint32_t room)
{
    uint32_t rounded = 8;
    while (rounded < room)
        rounded *= 2;
    ps_group *group = calloc(1, sizeof *group + rounded * sizeof *group->files);
    if (group == NULL)
        return NULL;
    group->refs = 1;
    group->room = rounded;
    group->stride = rounded / 8;
    return group;
}

static ps_table *
table_of(const ps_group *group)
{
    return __atomic_load_n(&group->table, __ATOMIC_ACQUIRE);
}

static size_t
size_of_table(uint32_t lines, uint32_t stride)
{
    return sizeof(ps_table) + (size_t)lines * LINE_BITS * stride;
}

/* How many lines suit the longest of the files for which a column is of use; 0 if those are few. */
static uint32_t
lines_for(const ps_group *group, uint32_t count)
{
    uint32_t useful = 0;
    uint64_t longest = 1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t keys = ps_layer_known(group->files[i].file)->keys;
        if (keys > MOST_KEYS)
            continue;
        useful++;
        longest = keys > longest ? keys : longest;
    }
    uint32_t lines = ps_layer_filter_bytes(longest) / PS_LAYER_FILTER_LINE_BYTES;
    return useful < LEAST_FILES ? 0 : lines > MOST_LINES ? MOST_LINES : lines;
}

static void
free_table(ps_table *table, uint32_t stride)
{
    __atomic_sub_fetch(&table_bytes, size_of_table(table->lines, stride), __ATOMIC_RELAXED);
    free(table);
}

/* NULL: no memory, or the tables of others have taken what there may be. */
static ps_table *
make_table(uint32_t lines, uint32_t stride)
{
    size_t bytes = size_of_table(lines, stride);
    if (__atomic_load_n(&table_bytes, __ATOMIC_RELAXED) + bytes > PS_GROUP_TABLE_BYTES)
        return NULL;
    ps_table *made = aligned_alloc(64, bytes);
    if (made == NULL)
        return NULL;
    __atomic_add_fetch(&table_bytes, bytes, __ATOMIC_RELAXED);
    memset(made, 0, bytes);
    made->lines = lines;
    return made;
}

/* Of several who make it at once, one is first. */
static ps_table *
table_for(ps_group *group, uint32_t count)
{
    uint32_t lines = lines_for(group, count);
    ps_table *made = lines == 0 ? NULL : make_table(lines, group->stride), *there = NULL;
    if (made == NULL || __atomic_compare_exchange_n(&group->table, &there, made, 0,
                                                    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return made;
    free_table(made, group->stride);
    return there;
}

ps_table *
ps_group_table(ps_group *group, uint32_t count)
{
    ps_table *table = table_of(group);
    return table != NULL || count < LEAST_FILES ? table : table_for(group, count);
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
    if (group->table != NULL)
        free_table(group->table, group->stride);
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

static const uint8_t *
row_at(const ps_group *group, const ps_table *table, size_t line, uint32_t bit)
{
    return table->rows + (line * LINE_BITS + bit) * group->stride;
}

static int
bit_of_row(const uint8_t *row, uint32_t at)
{
    return __atomic_load_n(&row[at / 8], __ATOMIC_RELAXED) >> at % 8 & 1;
}

/* 64 columns of a row, or as many as it has. */
static uint64_t
word_of_row(const uint8_t *row, uint32_t stride, uint32_t word)
{
    switch (stride) {
    case 1:
        return __atomic_load_n(row, __ATOMIC_RELAXED);
    case 2:
        return __atomic_load_n((const uint16_t *)(const void *)row, __ATOMIC_RELAXED);
    case 4:
        return __atomic_load_n((const uint32_t *)(const void *)row, __ATOMIC_RELAXED);
    default:
        return __atomic_load_n((const uint64_t *)(const void *)row + word, __ATOMIC_RELAXED);
    }
}

int
ps_group_knows(const ps_group *group, uint32_t at)
{
    const ps_table *table = table_of(group);
    return table != NULL &&
           (__atomic_load_n(&table->known[at / 64], __ATOMIC_ACQUIRE) >> at % 64 & 1) != 0;
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
    const ps_table *table = table_of(group);
    uint32_t unknown = 0;
    for (uint32_t w = 0; table != NULL && 64 * w < count; w++)
        unknown += (uint32_t)__builtin_popcountll(
            columns_of_word(count, w) & ~__atomic_load_n(&table->known[w], __ATOMIC_RELAXED));
    return unknown;
}

static int
bit_of(const void *filter, uint32_t line, uint32_t bit)
{
    const uint8_t *bytes = (const uint8_t *)filter + (size_t)line * PS_LAYER_FILTER_LINE_BYTES;
    return bytes[bit / 8] >> bit % 8 & 1;
}

/* Lays `lines` lines over the table's: what has a part in common counts. `is_set` tells a bit. */
static void
lay_over(const ps_group *group, ps_table *table, uint32_t column, uint32_t lines,
         int (*is_set)(const void *from, uint32_t line, uint32_t bit), const void *from)
{
    for (uint32_t line = 0; line < table->lines; line++) {
        uint32_t first = (uint32_t)((uint64_t)line * lines / table->lines);
        uint32_t last = (uint32_t)((((uint64_t)line + 1) * lines - 1) / table->lines);
        for (uint32_t bit = 0; bit < LINE_BITS; bit++) {
            int set = 0;
            for (uint32_t at = first; at <= last && !set; at++)
                set = is_set(from, at, bit);
            uint8_t *row = table->rows + ((size_t)line * LINE_BITS + bit) * group->stride;
            if (set)
                __atomic_fetch_or(&row[column / 8], 1u << column % 8, __ATOMIC_RELAXED);
        }
    }
    __atomic_fetch_or(&table->known[column / 64], (uint64_t)1 << column % 64, __ATOMIC_RELEASE);
}

typedef struct column {
    const ps_group *group;
    const ps_table *table;
    uint32_t at;
} column;

static int
bit_of_column(const void *from, uint32_t line, uint32_t bit)
{
    const column *source = from;
    return bit_of_row(row_at(source->group, source->table, line, bit), source->at);
}

void
ps_group_copy_column(ps_group *group, uint32_t count, uint32_t to, const ps_group *from,
                     uint32_t at)
{
    if (!ps_group_knows(from, at))
        return;
    ps_table *table = ps_group_table(group, count);
    column source = {.group = from, .table = table_of(from), .at = at};
    if (table != NULL)
        lay_over(group, table, to, source.table->lines, bit_of_column, &source);
}

void
ps_group_learn(ps_group *group, uint32_t at)
{
    ps_layer *layer = group->files[at].file;
    ps_table *table = table_of(group);
    if (table == NULL || ps_layer_pin(layer, NULL) < 0)
        return;
    lay_over(group, table, at, layer->filter_bytes / PS_LAYER_FILTER_LINE_BYTES, bit_of,
             layer->filter);
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

static const uint8_t *
row_of(const ps_group *group, const ps_table *table, const ps_probe *probe, int i)
{
    return row_at(group, table, (probe->hash >> 32) * table->lines >> 32, probe->bits[i]);
}

void
ps_group_prefetch(const ps_group *group, const ps_probe *probe)
{
    const ps_table *table = table_of(group);
    for (int i = 0; table != NULL && i < 8; i++)
        __builtin_prefetch(row_of(group, table, probe, i));
}

void
ps_group_find(const ps_group *group, uint32_t count, const ps_probe *probe,
              uint64_t found[PS_GROUP_WORDS])
{
    const ps_table *table = table_of(group);
    uint32_t words = (count + 63) / 64;
    uint64_t unknown[PS_GROUP_WORDS];
    for (uint32_t w = 0; w < words; w++) {
        found[w] = columns_of_word(count, w);
        unknown[w] = found[w] & ~__atomic_load_n(&table->known[w], __ATOMIC_ACQUIRE);
    }
    for (int i = 0; i < 8; i++) {
        const uint8_t *row = row_of(group, table, probe, i);
        for (uint32_t w = 0; w < words; w++)
            found[w] &= word_of_row(row, group->stride, w);
    }
    for (uint32_t w = 0; w < words; w++)
        found[w] |= unknown[w];
}
