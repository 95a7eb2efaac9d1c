#include "layer/format.h"

#include "crc32c.h"
#include "layer/codec.h"

static const uint8_t MAGIC[8] = {'P', 'S', 'L', 'A', 'Y', 'E', 'R', '\n'};
static const uint8_t END_MAGIC[8] = {'P', 'S', 'L', 'A', 'Y', 'E', 'N', 'D'};

static void
put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void
put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)v);
    put16(p + 2, (uint16_t)(v >> 16));
}

static void
put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

static uint16_t
get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t
get32(const uint8_t *p)
{
    return (uint32_t)get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t
get64(const uint8_t *p)
{
    return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

static uint64_t
mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
    h *= 0xBF58476D1CE4E5B9u;
    return h ^ h >> 32;
}

uint64_t
ps_ordered_hash(const ps_ordered_key *key)
{
    return mix(mix(mix(key->high) ^ key->middle) ^ key->low);
}

uint32_t
ps_layer_seed(const ps_layer_id *id)
{
    uint8_t number[8];
    put64(number, id->number);
    uint32_t seed = ps_crc32c(0, id->tenant, sizeof id->tenant);
    seed = ps_crc32c(seed, id->timeline, sizeof id->timeline);
    return ps_crc32c(seed, number, sizeof number);
}

uint32_t
ps_layer_block_seed(uint32_t seed, uint64_t offset)
{
    uint8_t bytes[8];
    put64(bytes, offset);
    return ps_crc32c(seed, bytes, sizeof bytes);
}

void
ps_layer_header_encode(uint8_t *out, const ps_layer_id *id, const ps_layer_summary *summary)
{
    memset(out, 0, PS_LAYER_HEADER_BYTES);
    memcpy(out, MAGIC, sizeof MAGIC);
    put16(out + 8, PS_LAYER_VERSION);
    out[10] = summary->kind;
    memcpy(out + 16, id->tenant, 16);
    memcpy(out + 32, id->timeline, 16);
    put64(out + 48, id->number);
    put64(out + 56, summary->first_lsn);
    put64(out + 64, summary->last_lsn);
    memcpy(out + 72, summary->min_key.b, PS_KEY_LEN);
    memcpy(out + 90, summary->max_key.b, PS_KEY_LEN);
    put32(out + 108, ps_crc32c(0, out, 108));
}

uint16_t
ps_layer_header_version(const uint8_t *in)
{
    return get16(in + 8);
}

int
ps_layer_header_decode(const uint8_t *in, const ps_layer_id *id, ps_layer_summary *summary,
                       const char *path, ps_error *err)
{
    if (memcmp(in, MAGIC, sizeof MAGIC) != 0)
        return ps_fail(err, PS_ERR_CORRUPT, "%s: offset 0: not a layer file", path);
    if (get32(in + 108) != ps_crc32c(0, in, 108))
        return ps_fail(err, PS_ERR_CORRUPT, "%s: offset 0: the header's checksum is wrong", path);
    uint16_t version = ps_layer_header_version(in);
    if (version < PS_LAYER_OLDEST_VERSION || version > PS_LAYER_VERSION)
        return ps_fail(err, PS_ERR_CORRUPT, "%s: offset 8: format version %u, not %u to %u", path,
                       version, PS_LAYER_OLDEST_VERSION, PS_LAYER_VERSION);
    if (memcmp(in + 16, id->tenant, 16) != 0 || memcmp(in + 32, id->timeline, 16) != 0 ||
        get64(in + 48) != id->number)
        return ps_fail(err, PS_ERR_CORRUPT, "%s: offset 16: the layer of another timeline", path);
    summary->kind = in[10];
    summary->first_lsn = get64(in + 56);
    summary->last_lsn = get64(in + 64);
    memcpy(summary->min_key.b, in + 72, PS_KEY_LEN);
    memcpy(summary->max_key.b, in + 90, PS_KEY_LEN);
    if ((summary->kind != PS_LAYER_DELTA && summary->kind != PS_LAYER_IMAGE) ||
        summary->first_lsn > summary->last_lsn ||
        ps_key_compare(&summary->min_key, &summary->max_key) > 0)
        return ps_fail(err, PS_ERR_CORRUPT, "%s: offset 0: an impossible header", path);
    return PS_OK;
}

void
ps_layer_footer_encode(uint8_t *out, const ps_layer_footer *footer, uint32_t seed)
{
    put64(out, footer->index_offset);
    put32(out + 8, footer->index_count);
    put32(out + 12, footer->index_crc);
    put64(out + 16, footer->filter_offset);
    put32(out + 24, footer->filter_bytes);
    put32(out + 28, footer->filter_crc);
    put64(out + 32, footer->entries);
    put64(out + 40, footer->keys);
    put32(out + 48, footer->header_crc);
    memcpy(out + 56, END_MAGIC, sizeof END_MAGIC);
    uint32_t crc = ps_crc32c(seed, out, 52);
    put32(out + 52, ps_crc32c(crc, END_MAGIC, sizeof END_MAGIC));
}

int
ps_layer_footer_decode(const uint8_t *in, uint32_t seed, ps_layer_footer *footer,
                       const char *path, uint64_t at, ps_error *err)
{
    uint32_t crc = ps_crc32c(ps_crc32c(seed, in, 52), in + 56, sizeof END_MAGIC);
    if (memcmp(in + 56, END_MAGIC, sizeof END_MAGIC) != 0 || get32(in + 52) != crc)
        return ps_fail(err, PS_ERR_CORRUPT, "%s: offset %llu: the footer is torn or damaged", path,
                       (unsigned long long)at);
    *footer = (ps_layer_footer){.index_offset = get64(in),
                                .index_count = get32(in + 8),
                                .index_crc = get32(in + 12),
                                .filter_offset = get64(in + 16),
                                .filter_bytes = get32(in + 24),
                                .filter_crc = get32(in + 28),
                                .entries = get64(in + 32),
                                .keys = get64(in + 40),
                                .header_crc = get32(in + 48)};
    uint64_t index_bytes = (uint64_t)footer->index_count * PS_LAYER_INDEX_ENTRY_BYTES;
    if (footer->index_offset < PS_LAYER_HEADER_BYTES || footer->index_offset > at ||
        footer->index_count == 0 || index_bytes > at - footer->index_offset ||
        footer->filter_offset != footer->index_offset + index_bytes ||
        footer->filter_bytes == 0 || footer->filter_bytes % PS_LAYER_FILTER_LINE_BYTES != 0 ||
        footer->filter_bytes != at - footer->filter_offset)
        return ps_fail(err, PS_ERR_CORRUPT, "%s: offset %llu: the sections do not fit the file",
                       path, (unsigned long long)at);
    return PS_OK;
}

void
ps_layer_index_encode(uint8_t *out, const ps_layer_index_entry *entry)
{
    ps_put_be32(out, (uint32_t)(entry->key.high >> 32));
    ps_put_be32(out + 4, (uint32_t)entry->key.high);
    ps_put_be32(out + 8, (uint32_t)(entry->key.middle >> 32));
    ps_put_be32(out + 12, (uint32_t)entry->key.middle);
    out[16] = (uint8_t)(entry->key.low >> 8);
    out[17] = (uint8_t)entry->key.low;
    put16(out + 18, entry->codec);
    put64(out + 20, entry->lsn);
    put64(out + 28, entry->offset);
    put32(out + 36, entry->stored);
    put32(out + 40, entry->raw);
}

void
ps_layer_index_decode(const uint8_t *in, uint16_t version, ps_layer_index_entry *entry)
{
    ps_key key;
    memcpy(key.b, in, PS_KEY_LEN);
    entry->key = ps_key_order(&key);
    entry->lsn = get64(in + 20);
    entry->offset = get64(in + 28);
    entry->stored = get32(in + 36);
    entry->raw = get32(in + 40);
    uint16_t codec = get16(in + 18);
    if (version == PS_LAYER_OLDEST_VERSION)
        codec = entry->stored == entry->raw ? PS_CODEC_NONE : PS_CODEC_ZSTD;
    entry->codec = codec < PS_CODECS ? (uint8_t)codec : PS_CODECS;
}

void
ps_layer_value_encode(uint8_t *out, const ps_layer_value_header *header)
{
    memcpy(out, header->key.b, PS_KEY_LEN);
    out[18] = header->kind;
    out[19] = header->flags;
    put64(out + 20, header->lsn);
    put32(out + 28, header->offset);
    put32(out + 32, header->length);
}

void
ps_layer_value_decode(const uint8_t *in, ps_layer_value_header *header)
{
    memcpy(header->key.b, in, PS_KEY_LEN);
    header->kind = in[18];
    header->flags = in[19];
    header->lsn = get64(in + 20);
    header->offset = get32(in + 28);
    header->length = get32(in + 32);
}

void
ps_layer_block_front_encode(uint8_t *block, uint32_t count)
{
    uint32_t offset = 4 + count * PS_LAYER_VALUE_HEADER_BYTES;
    put32(block, count);
    for (uint8_t *at = block + 4; count > 0; count--, at += PS_LAYER_VALUE_HEADER_BYTES) {
        put32(at + 28, offset);
        offset += get32(at + 32);
    }
}

void
ps_layer_crc_encode(uint8_t *out, uint32_t crc)
{
    put32(out, crc);
}

uint32_t
ps_layer_filter_bytes(uint64_t keys)
{
    /* A power of two, so that filters of different sizes can be laid over each other exactly
     * (store/group.h). */
    uint32_t bytes = PS_LAYER_FILTER_LINE_BYTES;
    while (bytes < 1u << 31 && bytes * 8ull < keys * PS_LAYER_FILTER_BITS_PER_KEY)
        bytes *= 2;
    return bytes;
}

/* Eight odd multipliers: each picks one bit of its own 32-bit word of the line. */
static const uint32_t SALTS[8] = {0x9E3779B1u, 0x85EBCA77u, 0xC2B2AE3Du, 0x27D4EB2Fu,
                                  0x165667B1u, 0xD3A2646Du, 0xFD7046C5u, 0xB55A4F09u};

static uint64_t
filter_line(uint32_t bytes, uint64_t hash)
{
    uint64_t lines = bytes / PS_LAYER_FILTER_LINE_BYTES;
    return (hash >> 32) * lines >> 32;
}

void
ps_layer_filter_bits(uint64_t hash, uint8_t bits[8])
{
    for (int i = 0; i < 8; i++)
        bits[i] = (uint8_t)(32 * i + (int)((uint32_t)hash * SALTS[i] >> 27));
}

void
ps_layer_filter_add(uint8_t *filter, uint32_t bytes, uint64_t hash)
{
    uint8_t *line = filter + filter_line(bytes, hash) * PS_LAYER_FILTER_LINE_BYTES;
    for (int i = 0; i < 8; i++) {
        uint32_t bit = (uint32_t)hash * SALTS[i] >> 27;
        line[4 * i + bit / 8] |= (uint8_t)(1u << bit % 8);
    }
}

int
ps_layer_filter_test(const uint8_t *filter, uint32_t bytes, uint64_t hash)
{
    const uint8_t *line = filter + filter_line(bytes, hash) * PS_LAYER_FILTER_LINE_BYTES;
    for (int i = 0; i < 8; i++) {
        uint32_t bit = (uint32_t)hash * SALTS[i] >> 27;
        if ((line[4 * i + bit / 8] & 1u << bit % 8) == 0)
            return 0;
    }
    return 1;
}
