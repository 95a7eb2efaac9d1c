#include "redo/quarantine.h"

#include "crc32c.h"

uint64_t
ps_redo_identity(const ps_redo_request *request)
{
    uint32_t crc = ps_crc32c(0, request->key.b, sizeof request->key.b);
    uint32_t items = crc;
    for (size_t i = 0; i < request->count; i++) {
        items = ps_crc32c(items, (const uint8_t *)&request->items[i].lsn, sizeof(uint64_t));
        items = ps_crc32c(items, request->items[i].data, request->items[i].length);
    }
    return (uint64_t)items << 32 | crc | 1;
}

void
ps_redo_quarantine_add(ps_redo_quarantine *in, uint64_t identity, uint64_t now_ms)
{
    in->places[in->next].identity = identity;
    in->places[in->next].until_ms = now_ms + PS_REDO_QUARANTINE_MS;
    in->empty_at_ms = in->places[in->next].until_ms;
    in->next = (in->next + 1) % PS_REDO_QUARANTINE_PLACES;
}

uint64_t
ps_redo_quarantine_left(const ps_redo_quarantine *in, uint64_t identity, uint64_t now_ms)
{
    for (size_t i = 0; i < PS_REDO_QUARANTINE_PLACES; i++)
        if (in->places[i].identity == identity && in->places[i].until_ms > now_ms)
            return in->places[i].until_ms - now_ms;
    return 0;
}
