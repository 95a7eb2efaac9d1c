/* The inside of a WAL record: its block references, images and main data, bounds checked. */
#ifndef PS_WAL_DECODE_H
#define PS_WAL_DECODE_H

#include "key.h"
#include "wal/reader.h"

#define PS_WAL_MAX_BLOCKS 33

/* bimg_info */
#define PS_IMAGE_HAS_HOLE 0x01u
#define PS_IMAGE_APPLY 0x02u
#define PS_IMAGE_PGLZ 0x04u
#define PS_IMAGE_LZ4 0x08u
#define PS_IMAGE_ZSTD 0x10u
#define PS_IMAGE_COMPRESSED (PS_IMAGE_PGLZ | PS_IMAGE_LZ4 | PS_IMAGE_ZSTD)

typedef struct ps_wal_block {
    uint32_t spc;
    uint32_t db;
    uint32_t rel;
    uint32_t block;
    uint8_t id;
    uint8_t fork;
    uint8_t will_init;
    uint8_t has_image;
    uint8_t image_info;
    uint16_t image_length;
    uint16_t hole_offset;
    uint16_t hole_length;
    uint16_t data_length;
    const uint8_t *image;
    const uint8_t *data;
} ps_wal_block;

typedef struct ps_wal_decoded {
    ps_wal_record record;
    const uint8_t *main;
    uint32_t main_length;
    uint16_t origin;
    unsigned block_count;
    ps_wal_block blocks[PS_WAL_MAX_BLOCKS]; /* those in use, by ascending id */
} ps_wal_decoded;

/* Pointers lead into the record's own bytes. PS_ERR_CORRUPT when lengths do not add up. */
int ps_wal_decode(const ps_wal_record *record, ps_wal_decoded *decoded, ps_error *err);

/* The block with this id, or NULL. */
const ps_wal_block *ps_wal_find_block(const ps_wal_decoded *decoded, uint8_t id);

static inline int
ps_wal_applies(const ps_wal_block *block)
{
    return block->has_image && (block->image_info & PS_IMAGE_APPLY) != 0;
}

/*
 * The page that an image stands for: decompressed, its hole filled with zeros, and pd_lsn set
 * to `lsn` unless the page is new. PS_ERR_CORRUPT when it does not come out at 8192 bytes.
 */
int ps_wal_restore_image(const ps_wal_block *block, uint64_t lsn, uint8_t *page, ps_error *err);

/* Postgres's own LZ compression. PS_OK when exactly `out_length` bytes came out of all of `in`. */
int ps_pglz_decompress(const uint8_t *in, size_t in_length, uint8_t *out, size_t out_length);

#endif
