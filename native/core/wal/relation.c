/* Sizes of relation forks and SLRU segments: asked for, grown, dropped. */
#include "wal/route.h"

/* A record that makes a fork grow by more than this at once is not believed: 16 GiB. */
#define MAX_GAP (2u << 20)

int
ps_get_size(ps_ingest *in, const ps_key *key, uint32_t *size)
{
    /* Most records follow one of the same fork. */
    if (in->last_size_known && ps_key_compare(key, &in->last_size_key) == 0) {
        *size = in->last_size;
        return PS_OK;
    }
    int found;
    ps_size_entry *entry = ps_sizes_slot(&in->sizes, key, &found);
    if (entry == NULL)
        return ps_ingest_nomem(in);
    if (!found) {
        /* An error leaves the new entry, absent, behind: a feed that fails forgets them all. */
        uint8_t value[4];
        size_t length = 0;
        int rc = in->source->get(in->source->context, key, in->source_lsn, value, sizeof value,
                                 &length, in->err);
        if (rc == PS_OK && length == sizeof value)
            entry->value = ps_get_le32(value);
        else if (rc == PS_OK)
            return ps_refuse(in, PS_ERR_CORRUPT, "a stored size does not have 4 bytes");
        else if (rc != PS_ERR_NOT_FOUND)
            return rc;
    }
    in->last_size_key = *key;
    in->last_size = *size = entry->value;
    in->last_size_known = 1;
    return PS_OK;
}

static int
remember(ps_ingest *in, const ps_key *key, uint32_t size)
{
    int found;
    ps_size_entry *entry = ps_sizes_slot(&in->sizes, key, &found);
    if (entry == NULL)
        return ps_ingest_nomem(in);
    entry->value = size;
    entry->changed = in->sizes.feed;
    in->last_size_key = *key;
    in->last_size = size;
    in->last_size_known = 1;
    return PS_OK;
}

int
ps_set_size(ps_ingest *in, const ps_key *key, uint32_t size)
{
    uint8_t value[4] = {(uint8_t)size, (uint8_t)(size >> 8), (uint8_t)(size >> 16),
                        (uint8_t)(size >> 24)};
    int rc = remember(in, key, size);
    return rc != PS_OK ? rc : ps_put(in, key, PS_VALUE_IMAGE, value, sizeof value);
}

int
ps_drop_size(ps_ingest *in, const ps_key *key)
{
    int rc = remember(in, key, PS_SIZE_ABSENT);
    return rc != PS_OK ? rc : ps_put_tombstone(in, key);
}

void
ps_forget_sizes(ps_ingest *in)
{
    ps_sizes_clear(&in->sizes);
    in->last_size_known = 0;
}

typedef struct key_list {
    const ps_sizes *sizes;
    ps_key *keys;
    size_t count;
    size_t capacity;
    int failed;
} key_list;

static void
list_add(key_list *list, const ps_key *key)
{
    if (list->count == list->capacity) {
        size_t grown = list->capacity ? list->capacity * 2 : 64;
        ps_key *moved = realloc(list->keys, grown * sizeof *moved);
        if (moved == NULL) {
            list->failed = 1;
            return;
        }
        list->keys = moved;
        list->capacity = grown;
    }
    list->keys[list->count++] = *key;
}

/* Of the source's keys, those that this feed did not change. */
static int
visit_size(void *arg, const ps_key *key, const uint8_t *value, size_t length)
{
    key_list *list = arg;
    (void)value;
    (void)length;
    const ps_size_entry *entry = ps_sizes_find(list->sizes, key);
    if (entry == NULL || entry->changed != list->sizes->feed)
        list_add(list, key);
    return list->failed;
}

int
ps_list_sizes(ps_ingest *in, const ps_key *low, const ps_key *high, ps_key **keys, size_t *count)
{
    key_list list = {.sizes = &in->sizes};
    int rc = in->source->scan(in->source->context, low, high, in->source_lsn, visit_size, &list,
                              in->err);
    for (size_t i = 0; in->sizes.slots != NULL && i <= in->sizes.mask; i++) {
        const ps_size_entry *entry = &in->sizes.slots[i];
        if (entry->used && entry->changed == in->sizes.feed && entry->value != PS_SIZE_ABSENT &&
            ps_key_compare(&entry->key, low) >= 0 && ps_key_compare(&entry->key, high) < 0)
            list_add(&list, &entry->key);
    }
    if (rc == PS_OK && list.failed)
        rc = ps_ingest_nomem(in);
    if (rc != PS_OK) {
        free(list.keys);
        return rc;
    }
    *keys = list.keys;
    *count = list.count;
    return PS_OK;
}

int
ps_reach_block(ps_ingest *in, const ps_wal_block *b, int *grew)
{
    ps_key key = ps_key_make(PS_KIND_REL_SIZE, b->spc, b->db, b->rel, b->fork, 0);
    uint32_t size;
    int rc = ps_get_size(in, &key, &size);
    if (rc != PS_OK)
        return rc;
    if (size == PS_SIZE_ABSENT)
        size = 0;
    else if (b->block < size) {
        *grew = 0;
        return PS_OK;
    }
    *grew = 1;
    if (b->block == UINT32_MAX)
        return ps_refuse(in, PS_ERR_CORRUPT, "it names the block that is no block");
    if (b->block - size > MAX_GAP)
        return ps_refuse(in, PS_ERR_UNSUPPORTED, "it makes a relation grow by over 16 GiB at once");
    /* Zeros for what is skipped: cutting a fork leaves its pages' values, which must not be seen
     * again when it grows. */
    rc = ps_set_size(in, &key, b->block + 1);
    for (uint32_t skipped = size; rc == PS_OK && skipped < b->block; skipped++) {
        ps_key page =
            ps_key_make(PS_KIND_REL_BLOCK, b->spc, b->db, b->rel, b->fork, skipped);
        rc = ps_put_zero(in, &page);
    }
    return rc;
}

int
ps_drop_relation(ps_ingest *in, uint32_t spc, uint32_t db, uint32_t rel)
{
    /* Only the sizes: reads as of before still want the pages. */
    for (uint8_t fork = PS_FORK_MAIN; fork <= PS_FORK_INIT; fork++) {
        ps_key key = ps_key_make(PS_KIND_REL_SIZE, spc, db, rel, fork, 0);
        uint32_t size;
        int rc = ps_get_size(in, &key, &size);
        if (rc == PS_OK && size != PS_SIZE_ABSENT)
            rc = ps_drop_size(in, &key);
        if (rc != PS_OK)
            return rc;
    }
    return PS_OK;
}
