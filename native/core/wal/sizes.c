#include "wal/sizes.h"

#define FIRST_SLOTS 256

static size_t
hash(const ps_key *key)
{
    uint64_t a, b;
    memcpy(&a, key->b, 8);
    memcpy(&b, key->b + PS_KEY_LEN - 8, 8);
    uint64_t h = (a ^ (b << 29 | b >> 35)) * 0x9E3779B97F4A7C15u;
    h ^= (uint64_t)key->b[8] << 40 ^ (uint64_t)key->b[9] << 48;
    h *= 0xD6E8FEB86659FD93u;
    return (size_t)(h ^ h >> 32);
}

void
ps_sizes_free(ps_sizes *sizes)
{
    free(sizes->slots);
    *sizes = (ps_sizes){.feed = sizes->feed};
}

void
ps_sizes_clear(ps_sizes *sizes)
{
    if (sizes->mask + 1 > FIRST_SLOTS * 16)
        ps_sizes_free(sizes);
    else if (sizes->slots != NULL)
        memset(sizes->slots, 0, (sizes->mask + 1) * sizeof *sizes->slots);
    sizes->count = 0;
}

/* The slot that holds the key, or the free one where it belongs. */
static ps_size_entry *
probe(const ps_sizes *sizes, const ps_key *key)
{
    size_t at = hash(key) & sizes->mask;
    while (sizes->slots[at].used && ps_key_compare(&sizes->slots[at].key, key) != 0)
        at = (at + 1) & sizes->mask;
    return &sizes->slots[at];
}

static int
grow(ps_sizes *sizes)
{
    ps_sizes grown = {.mask = sizes->slots == NULL ? FIRST_SLOTS - 1 : sizes->mask * 2 + 1,
                      .count = sizes->count,
                      .feed = sizes->feed};
    grown.slots = calloc(grown.mask + 1, sizeof *grown.slots);
    if (grown.slots == NULL)
        return PS_ERR_NOMEM;
    for (size_t i = 0; sizes->slots != NULL && i <= sizes->mask; i++)
        if (sizes->slots[i].used)
            *probe(&grown, &sizes->slots[i].key) = sizes->slots[i];
    free(sizes->slots);
    *sizes = grown;
    return PS_OK;
}

ps_size_entry *
ps_sizes_slot(ps_sizes *sizes, const ps_key *key, int *found)
{
    /* Never full: a free slot is what ends a probe. */
    if ((sizes->slots == NULL || sizes->count * 3 >= sizes->mask * 2) && grow(sizes) != PS_OK)
        return NULL;
    ps_size_entry *entry = probe(sizes, key);
    *found = entry->used;
    if (!entry->used) {
        *entry = (ps_size_entry){.key = *key, .used = 1, .value = PS_SIZE_ABSENT};
        sizes->count++;
    }
    return entry;
}

const ps_size_entry *
ps_sizes_find(const ps_sizes *sizes, const ps_key *key)
{
    if (sizes->slots == NULL)
        return NULL;
    const ps_size_entry *entry = probe(sizes, key);
    return entry->used ? entry : NULL;
}
