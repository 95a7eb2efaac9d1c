#include "value.h"

static int
reserve(void **memory, size_t *capacity, size_t need, size_t width)
{
    if (need <= *capacity)
        return PS_OK;
    size_t grown = *capacity ? *capacity : 1024;
    while (grown < need)
        grown *= 2;
    void *moved = realloc(*memory, grown * width);
    if (moved == NULL)
        return PS_ERR_NOMEM;
    *memory = moved;
    *capacity = grown;
    return PS_OK;
}

void
ps_batch_init(ps_batch *batch)
{
    memset(batch, 0, sizeof *batch);
}

void
ps_batch_clear(ps_batch *batch)
{
    batch->count = 0;
    batch->data_length = 0;
}

void
ps_batch_free(ps_batch *batch)
{
    free(batch->entries);
    free(batch->data);
    ps_batch_init(batch);
}

int
ps_batch_payload(ps_batch *batch, const void *data, size_t length, uint64_t *offset)
{
    int rc = reserve((void **)&batch->data, &batch->data_capacity, batch->data_length + length, 1);
    if (rc != PS_OK)
        return rc;
    if (length > 0)
        memcpy(batch->data + batch->data_length, data, length);
    *offset = batch->data_length;
    batch->data_length += length;
    return PS_OK;
}

int
ps_batch_entry(ps_batch *batch, const ps_key *key, uint8_t kind, uint8_t flags, uint64_t lsn,
               uint64_t offset, uint32_t length)
{
    int rc = reserve((void **)&batch->entries, &batch->capacity, batch->count + 1,
                     sizeof *batch->entries);
    if (rc != PS_OK)
        return rc;
    batch->entries[batch->count++] = (ps_entry){
        .key = *key, .kind = kind, .flags = flags, .length = length, .lsn = lsn, .offset = offset};
    return PS_OK;
}

int
ps_patch_apply(uint8_t *page, const uint8_t *ops, size_t length)
{
    if (length % sizeof(ps_patch_op) != 0)
        return PS_ERR_CORRUPT;
    for (size_t at = 0; at < length; at += sizeof(ps_patch_op)) {
        ps_patch_op op;
        memcpy(&op, ops + at, sizeof op);
        if ((uint32_t)op.offset + op.length > PS_PAGE_SIZE)
            return PS_ERR_CORRUPT;
        for (uint32_t i = op.offset; i < (uint32_t)op.offset + op.length; i++)
            page[i] = (uint8_t)((page[i] & ~op.mask) | (op.value & op.mask));
    }
    return PS_OK;
}
