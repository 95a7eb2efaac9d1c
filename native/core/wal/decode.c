#include "wal/decode.h"

#define ID_MAX_BLOCK 32
#define ID_TOPLEVEL_XID 252
#define ID_ORIGIN 253
#define ID_DATA_LONG 254
#define ID_DATA_SHORT 255

#define FORK_MASK 0x0Fu
#define HAS_IMAGE 0x10u
#define HAS_DATA 0x20u
#define WILL_INIT 0x40u
#define SAME_REL 0x80u

/* What of the record's headers has not been read yet. */
typedef struct cursor {
    const uint8_t *at;
    const uint8_t *end;
} cursor;

static const uint8_t *
take(cursor *c, size_t length)
{
    if ((size_t)(c->end - c->at) < length)
        return NULL;
    const uint8_t *taken = c->at;
    c->at += length;
    return taken;
}

static int
image_is_sane(const ps_wal_block *b)
{
    unsigned hole = b->hole_length;
    unsigned methods = b->image_info & PS_IMAGE_COMPRESSED;
    if ((methods & (methods - 1)) != 0 || b->image_length > PS_PAGE_SIZE)
        return 0;
    if ((b->image_info & PS_IMAGE_HAS_HOLE) != 0)
        return b->hole_offset != 0 && hole != 0 && b->image_length < PS_PAGE_SIZE &&
               b->hole_offset + hole <= PS_PAGE_SIZE;
    return b->hole_offset == 0 && hole == 0 &&
           (methods == 0 ? b->image_length == PS_PAGE_SIZE : b->image_length < PS_PAGE_SIZE);
}

static int
decode_image_header(cursor *c, ps_wal_block *b)
{
    const uint8_t *p = take(c, 5);
    if (p == NULL)
        return PS_ERR_CORRUPT;
    b->image_length = ps_get_le16(p);
    b->hole_offset = ps_get_le16(p + 2);
    b->image_info = p[4];
    b->hole_length = 0;
    if ((b->image_info & PS_IMAGE_COMPRESSED) == 0) {
        if (b->image_length > PS_PAGE_SIZE)
            return PS_ERR_CORRUPT;
        b->hole_length = (uint16_t)(PS_PAGE_SIZE - b->image_length);
    } else if ((b->image_info & PS_IMAGE_HAS_HOLE) != 0) {
        if ((p = take(c, 2)) == NULL)
            return PS_ERR_CORRUPT;
        b->hole_length = ps_get_le16(p);
    }
    return image_is_sane(b) ? PS_OK : PS_ERR_CORRUPT;
}

static int
decode_block_header(cursor *c, uint8_t id, ps_wal_decoded *d)
{
    /* Ids that only rise, up to 32, are also what keeps this within `blocks`. */
    if (d->block_count > 0 && id <= d->blocks[d->block_count - 1].id)
        return PS_ERR_CORRUPT;
    const ps_wal_block *before = d->block_count > 0 ? &d->blocks[d->block_count - 1] : NULL;
    ps_wal_block *b = &d->blocks[d->block_count];
    const uint8_t *p = take(c, 3);
    if (p == NULL)
        return PS_ERR_CORRUPT;
    uint8_t flags = p[0];
    b->id = id;
    b->fork = flags & FORK_MASK;
    b->will_init = (flags & WILL_INIT) != 0;
    b->has_image = (flags & HAS_IMAGE) != 0;
    b->image_info = 0;
    b->image_length = 0;
    b->data_length = ps_get_le16(p + 1);
    if (((flags & HAS_DATA) != 0) != (b->data_length != 0))
        return PS_ERR_CORRUPT;
    if (b->has_image && decode_image_header(c, b) != PS_OK)
        return PS_ERR_CORRUPT;
    if ((flags & SAME_REL) != 0) {
        if (before == NULL)
            return PS_ERR_CORRUPT;
        b->spc = before->spc;
        b->db = before->db;
        b->rel = before->rel;
    } else {
        if ((p = take(c, 12)) == NULL)
            return PS_ERR_CORRUPT;
        b->spc = ps_get_le32(p);
        b->db = ps_get_le32(p + 4);
        b->rel = ps_get_le32(p + 8);
    }
    if ((p = take(c, 4)) == NULL)
        return PS_ERR_CORRUPT;
    b->block = ps_get_le32(p);
    d->block_count++;
    return PS_OK;
}

/* Reads headers up to the main data's, which is the last; `total` is what must follow them. */
static int
decode_headers(cursor *c, ps_wal_decoded *d, uint64_t *total)
{
    *total = 0;
    while ((uint64_t)(c->end - c->at) > *total) {
        uint8_t id = *c->at++;
        const uint8_t *p;
        if (id == ID_DATA_SHORT || id == ID_DATA_LONG) {
            if ((p = take(c, id == ID_DATA_SHORT ? 1 : 4)) == NULL)
                return PS_ERR_CORRUPT;
            d->main_length = id == ID_DATA_SHORT ? p[0] : ps_get_le32(p);
            *total += d->main_length;
            return PS_OK;
        }
        if (id == ID_ORIGIN) {
            if ((p = take(c, 2)) == NULL)
                return PS_ERR_CORRUPT;
            d->origin = ps_get_le16(p);
        } else if (id == ID_TOPLEVEL_XID) {
            if (take(c, 4) == NULL)
                return PS_ERR_CORRUPT;
        } else if (id <= ID_MAX_BLOCK) {
            if (decode_block_header(c, id, d) != PS_OK)
                return PS_ERR_CORRUPT;
            const ps_wal_block *b = &d->blocks[d->block_count - 1];
            *total += (uint64_t)b->data_length + b->image_length;
        } else {
            return PS_ERR_CORRUPT;
        }
    }
    return PS_OK;
}

int
ps_wal_decode(const ps_wal_record *record, ps_wal_decoded *decoded, ps_error *err)
{
    cursor c = {.at = record->data + PS_WAL_RECORD_HEADER, .end = record->data + record->length};
    uint64_t total;
    decoded->record = *record;
    decoded->main_length = 0;
    decoded->origin = 0;
    decoded->block_count = 0;
    if (decode_headers(&c, decoded, &total) != PS_OK || (uint64_t)(c.end - c.at) != total)
        return ps_fail(err, PS_ERR_CORRUPT,
                       "at " PS_LSN_FORMAT ": the headers in a WAL record do not add up",
                       PS_LSN_ARGS(record->lsn));
    /* No bound to check any more: the lengths come to exactly what is left. */
    const uint8_t *at = c.at;
    for (unsigned i = 0; i < decoded->block_count; i++) {
        ps_wal_block *b = &decoded->blocks[i];
        b->image = at;
        at += b->image_length;
        b->data = at;
        at += b->data_length;
    }
    decoded->main = at;
    return PS_OK;
}

const ps_wal_block *
ps_wal_find_block(const ps_wal_decoded *decoded, uint8_t id)
{
    for (unsigned i = 0; i < decoded->block_count; i++)
        if (decoded->blocks[i].id == id)
            return &decoded->blocks[i];
    return NULL;
}
