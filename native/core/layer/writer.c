#include "layer/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "crc32c.h"
#include "layer/codec.h"

#define BUFFER_BYTES ((size_t)256 << 10)
/* A block is closed once its value headers alone reach its size. */
#define MOST_ENTRIES (PS_LAYER_BLOCK_BYTES / PS_LAYER_VALUE_HEADER_BYTES + 1)
/* Payloads begin behind room for all that may stand before them; what came to stand there is
 * moved up to them when the block is closed. */
#define BLOCK_FRONT ((size_t)4 + MOST_ENTRIES * PS_LAYER_VALUE_HEADER_BYTES)

typedef struct bytes {
    uint8_t *data;
    size_t length;
    size_t capacity;
} bytes;

struct ps_layer_writer {
    char *path;
    int fd;
    int finished;
    uint32_t seed;
    ps_layer_id id;
    ps_layer_summary summary;
    ps_compressor *compressor;
    bytes filling; /* the block being filled; length counts from its begin, front included */
    bytes out;     /* waits to be written at file offset written */
    bytes index;
    bytes hashes;  /* u64 each, of the distinct keys */
    uint64_t written;
    uint32_t block_count;
    uint32_t block_entries;
    ps_layer_index_entry block; /* the one being filled */
    ps_ordered_key last_key;
    uint64_t last_lsn;
};

static int
reserve(bytes *to, size_t more, ps_error *err)
{
    if (to->capacity >= to->length + more)
        return PS_OK;
    size_t grown = to->capacity == 0 ? 4096 : to->capacity;
    while (grown < to->length + more)
        grown *= 2;
    uint8_t *data = realloc(to->data, grown);
    if (data == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory while writing a layer");
    to->data = data;
    to->capacity = grown;
    return PS_OK;
}

static int
append(bytes *to, const void *data, size_t length, ps_error *err)
{
    if (reserve(to, length, err) < 0)
        return PS_ERR_NOMEM;
    if (length > 0)
        memcpy(to->data + to->length, data, length);
    to->length += length;
    return PS_OK;
}

static int
io_error(const ps_layer_writer *writer, const char *what, ps_error *err)
{
    int code = errno == ENOSPC || errno == EDQUOT ? PS_ERR_NO_SPACE : PS_ERR_IO;
    return ps_fail(err, code, "%s: cannot %s: %s", writer->path, what, strerror(errno));
}

static int
write_at(const ps_layer_writer *writer, const uint8_t *data, size_t length, uint64_t offset,
         ps_error *err)
{
    while (length > 0) {
        ssize_t done = pwrite(writer->fd, data, length, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return io_error(writer, "write", err);
        data += done;
        length -= (size_t)done;
        offset += (uint64_t)done;
    }
    return PS_OK;
}

static int
drain(ps_layer_writer *writer, ps_error *err)
{
    int rc = write_at(writer, writer->out.data, writer->out.length, writer->written, err);
    if (rc == PS_OK) {
        writer->written += writer->out.length;
        writer->out.length = 0;
    }
    return rc;
}

int
ps_layer_writer_make(ps_layer_writer **writer, const char *path, const ps_layer_id *id,
                     uint8_t kind, int level, ps_error *err)
{
    *writer = NULL;
    ps_layer_writer *made = calloc(1, sizeof *made);
    if (made == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a layer writer");
    made->fd = -1;
    made->path = strdup(path);
    made->compressor = ps_compressor_make(level);
    made->filling.length = BLOCK_FRONT;
    if (made->path == NULL || made->compressor == NULL) {
        ps_layer_writer_free(made);
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a layer writer");
    }
    made->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (made->fd < 0) {
        int rc = io_error(made, "create", err);
        ps_layer_writer_free(made);
        return rc;
    }
    made->id = *id;
    made->seed = ps_layer_seed(id);
    made->summary.kind = kind;
    made->written = PS_LAYER_HEADER_BYTES; /* the header is written last, when it is known */
    *writer = made;
    return PS_OK;
}

/* Where the raw block begins, once what stands before its payloads has been moved up to them. */
static uint8_t *
assemble(ps_layer_writer *writer)
{
    uint32_t count = writer->block_entries;
    size_t headers = (size_t)count * PS_LAYER_VALUE_HEADER_BYTES;
    uint8_t *begin = writer->filling.data + BLOCK_FRONT - headers - 4;
    memmove(begin + 4, writer->filling.data, headers);
    ps_layer_block_front_encode(begin, count);
    return begin;
}

static int
close_block(ps_layer_writer *writer, ps_error *err)
{
    if (writer->block_entries == 0)
        return PS_OK;
    const uint8_t *raw = assemble(writer);
    size_t length = (size_t)(writer->filling.data + writer->filling.length - raw);
    size_t bound = ps_compress_bound(writer->compressor, length) + PS_LAYER_BLOCK_CRC_BYTES;
    int rc = reserve(&writer->out, bound, err);
    if (rc < 0)
        return rc;
    uint8_t *to = writer->out.data + writer->out.length;
    ps_layer_index_entry *block = &writer->block;
    enum ps_codec codec;
    block->stored = (uint32_t)ps_compress(writer->compressor, to, raw, length, &codec);
    block->codec = codec;
    block->raw = (uint32_t)length;
    block->offset = writer->written + writer->out.length;
    uint32_t crc = ps_crc32c(ps_layer_block_seed(writer->seed, block->offset), to, block->stored);
    ps_layer_crc_encode(to + block->stored, crc);
    writer->out.length += (size_t)block->stored + PS_LAYER_BLOCK_CRC_BYTES;
    uint8_t encoded[PS_LAYER_INDEX_ENTRY_BYTES];
    ps_layer_index_encode(encoded, block);
    rc = append(&writer->index, encoded, sizeof encoded, err);
    if (rc == PS_OK && writer->out.length >= BUFFER_BYTES)
        rc = drain(writer, err);
    writer->block_count++;
    writer->block_entries = 0;
    writer->filling.length = BLOCK_FRONT;
    return rc;
}

static int
account(ps_layer_writer *writer, const ps_key *key, const ps_ordered_key *ordered, uint64_t lsn,
        ps_error *err)
{
    ps_layer_summary *summary = &writer->summary;
    int fresh = summary->entries == 0 || ps_ordered_compare(&writer->last_key, ordered) != 0;
    if (summary->entries == 0) {
        summary->min_key = *key;
        summary->first_lsn = summary->last_lsn = lsn;
    }
    if (lsn < summary->first_lsn)
        summary->first_lsn = lsn;
    if (lsn > summary->last_lsn)
        summary->last_lsn = lsn;
    summary->max_key = *key;
    summary->entries++;
    if (!fresh)
        return PS_OK;
    summary->keys++;
    uint64_t hash = ps_ordered_hash(ordered);
    return append(&writer->hashes, &hash, sizeof hash, err);
}

int
ps_layer_writer_fits(const ps_layer_writer *writer, const ps_key *key, uint64_t lsn)
{
    ps_ordered_key ordered = ps_key_order(key);
    int order = writer->summary.entries == 0 ? -1 : ps_ordered_compare(&writer->last_key, &ordered);
    if (order != 0)
        return order < 0;
    return writer->summary.kind == PS_LAYER_DELTA && lsn <= writer->last_lsn;
}

int
ps_layer_writer_add(ps_layer_writer *writer, const ps_key *key, uint64_t lsn, uint8_t kind,
                    uint8_t flags, const uint8_t *data, uint32_t length, ps_error *err)
{
    ps_ordered_key ordered = ps_key_order(key);
    if (!ps_layer_writer_fits(writer, key, lsn))
        return ps_fail(err, PS_ERR_INVALID, "%s: values are not in order", writer->path);
    if (length > PS_LAYER_MAX_VALUE)
        return ps_fail(err, PS_ERR_INVALID, "%s: a value of %u bytes", writer->path, length);
    int rc = account(writer, key, &ordered, lsn, err);
    size_t payloads = writer->filling.length - BLOCK_FRONT;
    if (rc == PS_OK && writer->block_entries > 0 && payloads + length > PS_LAYER_BLOCK_BYTES)
        rc = close_block(writer, err);
    if (rc == PS_OK)
        rc = reserve(&writer->filling, length, err);
    if (rc < 0)
        return rc;
    ps_layer_value_header header = {
        .key = *key, .kind = kind, .flags = flags, .lsn = lsn, .length = length};
    size_t headers = (size_t)writer->block_entries++ * PS_LAYER_VALUE_HEADER_BYTES;
    ps_layer_value_encode(writer->filling.data + headers, &header);
    if (length > 0)
        memcpy(writer->filling.data + writer->filling.length, data, length);
    writer->filling.length += length;
    writer->last_key = writer->block.key = ordered;
    writer->last_lsn = writer->block.lsn = lsn;
    headers += PS_LAYER_VALUE_HEADER_BYTES;
    if (headers + writer->filling.length - BLOCK_FRONT >= PS_LAYER_BLOCK_BYTES)
        rc = close_block(writer, err);
    return rc;
}

void
ps_layer_writer_cover(ps_layer_writer *writer, const ps_key *least, const ps_key *greatest,
                      uint64_t first_lsn, uint64_t last_lsn)
{
    ps_layer_summary *summary = &writer->summary;
    if (ps_key_compare(least, &summary->min_key) < 0)
        summary->min_key = *least;
    if (ps_key_compare(greatest, &summary->max_key) > 0)
        summary->max_key = *greatest;
    if (first_lsn < summary->first_lsn)
        summary->first_lsn = first_lsn;
    if (last_lsn > summary->last_lsn)
        summary->last_lsn = last_lsn;
}

uint64_t
ps_layer_writer_bytes(const ps_layer_writer *writer)
{
    return writer->written + writer->out.length + writer->index.length;
}

static int
write_sections(ps_layer_writer *writer, const uint8_t *header, ps_error *err)
{
    uint32_t filter_bytes = ps_layer_filter_bytes(writer->summary.keys);
    uint8_t *filter = calloc(1, filter_bytes);
    if (filter == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a layer's filter");
    for (size_t at = 0; at < writer->hashes.length; at += sizeof(uint64_t)) {
        uint64_t hash;
        memcpy(&hash, writer->hashes.data + at, sizeof hash);
        ps_layer_filter_add(filter, filter_bytes, hash);
    }
    ps_layer_footer footer = {
        .index_offset = writer->written + writer->out.length,
        .index_count = writer->block_count,
        .index_crc = ps_crc32c(writer->seed, writer->index.data, writer->index.length),
        .filter_bytes = filter_bytes,
        .filter_crc = ps_crc32c(writer->seed, filter, filter_bytes),
        .entries = writer->summary.entries,
        .keys = writer->summary.keys,
        .header_crc = ps_crc32c(0, header, PS_LAYER_HEADER_BYTES)};
    footer.filter_offset = footer.index_offset + writer->index.length;
    uint8_t encoded[PS_LAYER_FOOTER_BYTES];
    ps_layer_footer_encode(encoded, &footer, writer->seed);
    int rc = append(&writer->out, writer->index.data, writer->index.length, err);
    if (rc == PS_OK)
        rc = append(&writer->out, filter, filter_bytes, err);
    if (rc == PS_OK)
        rc = append(&writer->out, encoded, sizeof encoded, err);
    free(filter);
    return rc;
}

int
ps_layer_writer_finish(ps_layer_writer *writer, ps_layer_summary *summary, ps_error *err)
{
    if (writer->summary.entries == 0)
        return ps_fail(err, PS_ERR_INVALID, "%s: a layer without values", writer->path);
    uint8_t header[PS_LAYER_HEADER_BYTES];
    ps_layer_header_encode(header, &writer->id, &writer->summary);
    int rc = close_block(writer, err);
    if (rc == PS_OK)
        rc = write_sections(writer, header, err);
    if (rc == PS_OK)
        rc = drain(writer, err);
    if (rc == PS_OK)
        rc = write_at(writer, header, sizeof header, 0, err);
    if (rc == PS_OK && fsync(writer->fd) < 0)
        rc = io_error(writer, "fsync", err);
    if (rc == PS_OK) {
        writer->summary.bytes = writer->written;
        *summary = writer->summary;
        writer->finished = 1;
    }
    return rc;
}

void
ps_layer_writer_free(ps_layer_writer *writer)
{
    if (writer == NULL)
        return;
    if (writer->fd >= 0) {
        close(writer->fd);
        if (!writer->finished)
            unlink(writer->path);
    }
    bytes *all[] = {&writer->filling, &writer->out, &writer->index, &writer->hashes};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]->data);
    ps_compressor_free(writer->compressor);
    free(writer->path);
    free(writer);
}
