/* Makes WAL in memory: records with right CRCs and links, laid over pages. For tests. */
#ifndef PS_TEST_WAL_STREAM_H
#define PS_TEST_WAL_STREAM_H

#undef NDEBUG
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "wal/reader.h"

typedef struct stream {
    uint64_t start; /* LSN of the first byte */
    uint64_t prev;  /* start of the last record */
    uint8_t *bytes;
    size_t length;
    size_t capacity;
} stream;

static inline uint64_t
stream_lsn(const stream *s)
{
    return s->start + s->length;
}

static inline void
stream_bytes(stream *s, const void *bytes, size_t length)
{
    if (s->length + length > s->capacity) {
        s->capacity = (s->length + length) * 2;
        s->bytes = realloc(s->bytes, s->capacity);
        assert(s->bytes != NULL);
    }
    memcpy(s->bytes + s->length, bytes, length);
    s->length += length;
}

static inline void
stream_page_header(stream *s, uint32_t runs_on, unsigned flags)
{
    uint64_t lsn = stream_lsn(s);
    uint8_t h[PS_WAL_LONG_HEADER] = {0};
    uint16_t magic = 0xD110; /* of Postgres 15 */
    uint32_t tli = 1, segment = PS_WAL_SEGMENT, page = PS_WAL_PAGE;
    uint16_t info = (uint16_t)(flags | (runs_on ? PS_WAL_CONTRECORD : 0));
    if (lsn % PS_WAL_SEGMENT == 0)
        info |= PS_WAL_LONG;
    memcpy(h, &magic, 2);
    memcpy(h + 2, &info, 2);
    memcpy(h + 4, &tli, 4);
    memcpy(h + 8, &lsn, 8);
    memcpy(h + 16, &runs_on, 4);
    memcpy(h + 32, &segment, 4);
    memcpy(h + 36, &page, 4);
    stream_bytes(s, h, ps_wal_header_length(lsn));
}

/* Lays out the first `limit` bytes of a record (and its padding, when that is all of it). */
static inline uint64_t
stream_lay(stream *s, const uint8_t *record, uint32_t length, uint32_t limit)
{
    static const uint8_t zeros[8];
    if (stream_lsn(s) % PS_WAL_PAGE == 0)
        stream_page_header(s, 0, 0);
    uint64_t lsn = stream_lsn(s);
    for (uint32_t done = 0; done < limit;) {
        if (stream_lsn(s) % PS_WAL_PAGE == 0)
            stream_page_header(s, length - done, 0);
        uint32_t room = PS_WAL_PAGE - (uint32_t)(stream_lsn(s) % PS_WAL_PAGE);
        uint32_t piece = limit - done < room ? limit - done : room;
        stream_bytes(s, record + done, piece);
        done += piece;
    }
    if (limit == length)
        stream_bytes(s, zeros, ps_align8(length) - length);
    return lsn;
}

static inline void
seal(uint8_t *record, uint32_t length, uint64_t prev)
{
    memcpy(record, &length, 4);
    memcpy(record + 8, &prev, 8);
    uint32_t crc = ps_crc32c(0, record + 24, length - 24);
    crc = ps_crc32c(crc, record, 20);
    memcpy(record + 20, &crc, 4);
}

/* Appends one record whose body (headers and data) is given. Returns its start. */
static inline uint64_t
stream_record(stream *s, uint8_t rmgr, uint8_t info, uint32_t xid, const void *body,
              uint32_t body_length)
{
    uint32_t length = PS_WAL_RECORD_HEADER + body_length;
    uint8_t *record = calloc(1, length);
    assert(record != NULL);
    memcpy(record + 4, &xid, 4);
    record[16] = info;
    record[17] = rmgr;
    if (body_length > 0)
        memcpy(record + 24, body, body_length);
    seal(record, length, s->prev);
    uint64_t lsn = stream_lay(s, record, length, length);
    s->prev = lsn;
    free(record);
    return lsn;
}

static inline uint32_t
next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

#endif
