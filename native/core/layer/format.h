/*
 * The layout of a layer file, byte by byte: docs/formats/layer.md draws it. Pure arithmetic.
 *
 *   header | block ... block | index | filter | footer
 *
 * Entries are ordered by key ascending, then newest first: LSN descending, and of values with
 * one key and one LSN the last put first. So a chain is read forwards from where it begins.
 */
#ifndef PS_LAYER_FORMAT_H
#define PS_LAYER_FORMAT_H

#include "key.h"
#include "status.h"

#define PS_LAYER_VERSION 2
#define PS_LAYER_OLDEST_VERSION 1 /* without codecs: a block that shrank is zstd's */
#define PS_LAYER_HEADER_BYTES 112
#define PS_LAYER_FOOTER_BYTES 64
#define PS_LAYER_INDEX_ENTRY_BYTES 44
#define PS_LAYER_VALUE_HEADER_BYTES 36
#define PS_LAYER_BLOCK_CRC_BYTES 4
#define PS_LAYER_FILTER_LINE_BYTES 32
#define PS_LAYER_FILTER_BITS_PER_KEY 24 /* at least; half as many again on average */
/* A block is closed as soon as it holds this much; a page image is a block of its own. */
#define PS_LAYER_BLOCK_BYTES 8192u
/* No value is longer than a WAL record may be. */
#define PS_LAYER_MAX_VALUE (1u << 30)

enum ps_layer_kind { PS_LAYER_DELTA = 1, PS_LAYER_IMAGE = 2 };

/* Whose file it is. A file found under another identity is foreign, and refused. */
typedef struct ps_layer_id {
    uint8_t tenant[16];
    uint8_t timeline[16];
    uint64_t number; /* unique within the timeline */
} ps_layer_id;

typedef struct ps_layer_summary {
    uint8_t kind;
    ps_key min_key;
    ps_key max_key; /* both inclusive */
    uint64_t first_lsn;
    uint64_t last_lsn; /* both inclusive */
    uint64_t entries;
    uint64_t keys;
    uint64_t bytes; /* of the file */
} ps_layer_summary;

typedef struct ps_layer_footer {
    uint64_t index_offset;
    uint32_t index_count;
    uint32_t index_crc;
    uint64_t filter_offset;
    uint32_t filter_bytes;
    uint32_t filter_crc;
    uint64_t entries;
    uint64_t keys;
    uint32_t header_crc;
} ps_layer_footer;

/* A key as three integers that compare as its bytes do. */
typedef struct ps_ordered_key {
    uint64_t high;
    uint64_t middle;
    uint16_t low;
} ps_ordered_key;

/* Where a block lies and what its last value is: the first block whose last value is not
 * before a position is the only one where a search for it can begin. */
typedef struct ps_layer_index_entry {
    ps_ordered_key key;
    uint64_t lsn;
    uint64_t offset : 56;
    uint64_t codec : 8;
    uint32_t stored; /* bytes in the file without the checksum; == raw when not compressed */
    uint32_t raw;
} ps_layer_index_entry;

/* Before the payloads of a block: one of these per value, after a u32 count. */
typedef struct ps_layer_value_header {
    ps_key key;
    uint8_t kind;
    uint8_t flags;
    uint64_t lsn;
    uint32_t offset; /* of the payload, from the block's begin */
    uint32_t length;
} ps_layer_value_header;

static inline uint64_t
ps_get_be64(const uint8_t *p)
{
    return (uint64_t)ps_get_be32(p) << 32 | ps_get_be32(p + 4);
}

static inline ps_ordered_key
ps_key_order(const ps_key *key)
{
    return (ps_ordered_key){.high = ps_get_be64(key->b),
                            .middle = ps_get_be64(key->b + 8),
                            .low = (uint16_t)(key->b[16] << 8 | key->b[17])};
}

static inline int
ps_ordered_compare(const ps_ordered_key *a, const ps_ordered_key *b)
{
    if (a->high != b->high)
        return a->high < b->high ? -1 : 1;
    if (a->middle != b->middle)
        return a->middle < b->middle ? -1 : 1;
    return (int)a->low - (int)b->low;
}

/* By key, then newest first. */
static inline int
ps_position_compare(const ps_ordered_key *a, uint64_t a_lsn, const ps_ordered_key *b,
                    uint64_t b_lsn)
{
    int order = ps_ordered_compare(a, b);
    if (order != 0 || a_lsn == b_lsn)
        return order;
    return a_lsn > b_lsn ? -1 : 1;
}

/* The hash of the filter; part of the format. */
uint64_t ps_ordered_hash(const ps_ordered_key *key);

/* What every checksum behind the header starts from: blocks of other files do not fit. */
uint32_t ps_layer_seed(const ps_layer_id *id);
uint32_t ps_layer_block_seed(uint32_t seed, uint64_t offset);

void ps_layer_header_encode(uint8_t *out, const ps_layer_id *id, const ps_layer_summary *summary);
/* Checks magic, version, checksum, identity. Fills all of summary but the counts. */
uint16_t ps_layer_header_version(const uint8_t *in);
int ps_layer_header_decode(const uint8_t *in, const ps_layer_id *id, ps_layer_summary *summary,
                           const char *path, ps_error *err);
void ps_layer_footer_encode(uint8_t *out, const ps_layer_footer *footer, uint32_t seed);
int ps_layer_footer_decode(const uint8_t *in, uint32_t seed, ps_layer_footer *footer,
                           const char *path, uint64_t at, ps_error *err);
void ps_layer_index_encode(uint8_t *out, const ps_layer_index_entry *entry);
void ps_layer_index_decode(const uint8_t *in, uint16_t version, ps_layer_index_entry *entry);
void ps_layer_value_encode(uint8_t *out, const ps_layer_value_header *header);
void ps_layer_value_decode(const uint8_t *in, ps_layer_value_header *header);
/* What stands before a block's payloads: the count, and into the encoded headers behind it the
 * payloads' offsets, one payload standing behind the other. */
void ps_layer_block_front_encode(uint8_t *block, uint32_t count);
void ps_layer_crc_encode(uint8_t *out, uint32_t crc);

uint32_t ps_layer_filter_bytes(uint64_t keys);
/* Of a line's 256 bits, the eight that a key sets; which line it is, say the hash's high bits. */
void ps_layer_filter_bits(uint64_t hash, uint8_t bits[8]);
void ps_layer_filter_add(uint8_t *filter, uint32_t bytes, uint64_t hash);
int ps_layer_filter_test(const uint8_t *filter, uint32_t bytes, uint64_t hash);

#endif
