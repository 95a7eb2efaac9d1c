#include <lz4.h>
#include <zstd.h>

#include "wal/decode.h"

#define PD_UPPER 14

/*
 * A control byte tells, lowest bit first, what the next eight items are: 0 a literal byte, 1 a
 * copy of earlier output. A copy is two bytes, or three: length - 3 in the low nibble (15:
 * another byte is to be added), distance in the high nibble and the second byte.
 */
int
ps_pglz_decompress(const uint8_t *in, size_t in_length, uint8_t *out, size_t out_length)
{
    const uint8_t *in_end = in + in_length;
    size_t made = 0;
    while (in < in_end && made < out_length) {
        unsigned control = *in++;
        for (int item = 0; item < 8 && in < in_end && made < out_length; item++, control >>= 1) {
            if ((control & 1) == 0) {
                out[made++] = *in++;
                continue;
            }
            if (in_end - in < 2)
                return PS_ERR_CORRUPT;
            size_t length = (in[0] & 0x0Fu) + 3;
            size_t distance = (in[0] & 0xF0u) << 4 | in[1];
            in += 2;
            if (length == 18) {
                if (in == in_end)
                    return PS_ERR_CORRUPT;
                length += *in++;
            }
            if (distance == 0 || distance > made)
                return PS_ERR_CORRUPT;
            if (length > out_length - made)
                length = out_length - made;
            /* Byte by byte: a copy may run into what it writes itself, and repeats it then. */
            for (; length > 0; length--, made++)
                out[made] = out[made - distance];
        }
    }
    return in == in_end && made == out_length ? PS_OK : PS_ERR_CORRUPT;
}

static int
decompress(const ps_wal_block *b, uint8_t *out, size_t length)
{
    if ((b->image_info & PS_IMAGE_PGLZ) != 0)
        return ps_pglz_decompress(b->image, b->image_length, out, length);
    if ((b->image_info & PS_IMAGE_LZ4) != 0) {
        int made = LZ4_decompress_safe((const char *)b->image, (char *)out, b->image_length,
                                       (int)length);
        return made == (int)length ? PS_OK : PS_ERR_CORRUPT;
    }
    return ZSTD_decompress(out, length, b->image, b->image_length) == length ? PS_OK
                                                                             : PS_ERR_CORRUPT;
}

int
ps_wal_restore_image(const ps_wal_block *b, uint64_t lsn, uint8_t *page, ps_error *err)
{
    uint8_t raw[PS_PAGE_SIZE];
    const uint8_t *from = b->image;
    if ((b->image_info & PS_IMAGE_COMPRESSED) != 0) {
        if (decompress(b, raw, PS_PAGE_SIZE - b->hole_length) != PS_OK)
            return ps_fail(err, PS_ERR_CORRUPT,
                           "at " PS_LSN_FORMAT ": the image of block %u of relation %u/%u/%u "
                           "does not decompress",
                           PS_LSN_ARGS(lsn), b->block, b->spc, b->db, b->rel);
        from = raw;
    }
    size_t behind = (size_t)b->hole_offset + b->hole_length;
    if (b->hole_length == 0) {
        memcpy(page, from, PS_PAGE_SIZE);
    } else {
        memcpy(page, from, b->hole_offset);
        memset(page + b->hole_offset, 0, b->hole_length);
        memcpy(page + behind, from + b->hole_offset, PS_PAGE_SIZE - behind);
    }
    if (ps_get_le16(page + PD_UPPER) != 0) {
        /* pd_lsn is two u32, the upper one first. A new page has none, and must stay all zeros. */
        uint32_t halves[2] = {(uint32_t)(lsn >> 32), (uint32_t)lsn};
        memcpy(page, halves, sizeof halves);
    }
    return PS_OK;
}
