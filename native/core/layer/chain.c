#include "layer/chain.h"

static int
grow(ps_chain *chain)
{
    uint32_t capacity = chain->capacity == 0 ? 4 : chain->capacity * 2;
    ps_chain_item *items = ps_arena_take(chain->arena, (size_t)capacity * sizeof *items);
    if (items == NULL)
        return PS_ERR_NOMEM;
    if (chain->count > 0)
        memcpy(items, chain->items, chain->count * sizeof *items);
    chain->items = items;
    chain->capacity = capacity;
    return PS_OK;
}

int
ps_chain_add(ps_chain *chain, uint64_t lsn, uint8_t kind, uint8_t flags, const uint8_t *data,
             uint32_t length, ps_error *err)
{
    if (chain->count == chain->capacity && grow(chain) < 0)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a chain of %u values", chain->count);
    const uint8_t *kept;
    if (kind == PS_VALUE_IMAGE && chain->page != NULL) {
        if (length != PS_PAGE_SIZE)
            return ps_fail(err, PS_ERR_CORRUPT, "a page image of %u bytes", length);
        memcpy(chain->page, data, PS_PAGE_SIZE);
        kept = chain->page;
    } else {
        kept = ps_arena_copy(chain->arena, data, length);
        if (kept == NULL)
            return ps_fail(err, PS_ERR_NOMEM, "out of memory for a value of %u bytes", length);
    }
    chain->items[chain->count++] = (ps_chain_item){
        .lsn = lsn, .data = kept, .length = length, .kind = kind, .flags = flags};
    chain->complete = chain->newest_only || ps_value_ends_chain(kind, flags);
    return PS_OK;
}
