/* Framing: chunks anywhere, damage anywhere, overwritten records, switches, alignment. */
#include "wal_stream.h"

#include "wal/align.h"

#define START (0x100000000u - 3u * PS_WAL_PAGE) /* the stream crosses a segment's start */

typedef struct seen {
    uint64_t ends[4096];
    uint32_t sums[4096];
    unsigned count;
    int rc;
} seen;

/* Reads it all, in chunks of their exact size, each in memory of its own. */
static void
read_chunks(const stream *s, uint64_t prev, uint64_t *random, size_t largest, seen *out)
{
    ps_wal_reader reader;
    ps_error err;
    assert(ps_wal_reader_init(&reader, s->start, prev, &err) == PS_OK);
    out->count = 0;
    out->rc = PS_WAL_MORE;
    for (size_t at = 0; at < s->length && out->rc >= 0;) {
        size_t n = 1 + next_random(random) % largest;
        if (n > s->length - at)
            n = s->length - at;
        uint8_t *chunk = malloc(n);
        memcpy(chunk, s->bytes + at, n);
        const uint8_t *cursor = chunk;
        ps_wal_record r;
        assert(reader.lsn == s->start + at);
        while ((out->rc = ps_wal_reader_next(&reader, &cursor, chunk + n, &r, &err)) == PS_OK) {
            out->ends[out->count] = r.end_lsn;
            out->sums[out->count++] = ps_crc32c(0, r.data, r.length);
            assert(out->count < 4096 && reader.end_lsn == r.end_lsn);
        }
        if (out->rc == PS_WAL_MORE)
            assert(cursor == chunk + n);
        else
            assert(reader.lsn == reader.end_lsn && err.text[0] != '\0');
        free(chunk);
        at += n;
    }
    ps_wal_reader_free(&reader);
}

static stream
random_stream(uint64_t seed, unsigned records)
{
    stream s = {.start = START, .prev = START - 64};
    uint8_t *body = malloc(30000);
    for (unsigned i = 0; i < records; i++) {
        uint32_t length = next_random(&seed) % (i % 9 == 0 ? 30000 : 300);
        for (uint32_t j = 0; j < length; j++)
            body[j] = (uint8_t)next_random(&seed);
        stream_record(&s, 10, 0, i, body, length);
    }
    free(body);
    return s;
}

static void
chunks_may_end_anywhere(void)
{
    stream s = random_stream(1, 300);
    uint64_t random = 7;
    seen whole, parts;
    read_chunks(&s, START - 64, &random, s.length, &whole);
    assert(whole.count == 300 && whole.rc == PS_WAL_MORE && whole.ends[299] == stream_lsn(&s));
    size_t sizes[] = {1, 2, 9, 100, 8192, 50000};
    for (unsigned i = 0; i < 6; i++) {
        read_chunks(&s, START - 64, &random, sizes[i], &parts);
        assert(parts.count == whole.count);
        assert(memcmp(parts.ends, whole.ends, whole.count * sizeof whole.ends[0]) == 0);
        assert(memcmp(parts.sums, whole.sums, whole.count * sizeof whole.sums[0]) == 0);
    }
    free(s.bytes);
}

/* A flip is found at the latest when the record it lies in is complete. */
static void
a_flipped_bit_never_passes(void)
{
    stream s = random_stream(2, 60);
    uint64_t random = 11;
    seen whole, broken;
    read_chunks(&s, START - 64, &random, 5000, &whole);
    unsigned found = 0;
    for (size_t at = 0; at < s.length; at += 13) {
        s.bytes[at] ^= 0x10;
        read_chunks(&s, START - 64, &random, 5000, &broken);
        s.bytes[at] ^= 0x10;
        assert(broken.count <= whole.count);
        assert(memcmp(broken.sums, whole.sums, broken.count * sizeof whole.sums[0]) == 0);
        found += broken.rc == PS_ERR_CORRUPT;
        assert(broken.count == whole.count || broken.rc != PS_OK);
    }
    assert(found > s.length / 13 * 9 / 10); /* the rest: padding, and what no one reads */
    free(s.bytes);
}

static void
an_overwritten_record_is_forgotten(void)
{
    stream s = {.start = START, .prev = START - 64};
    uint8_t body[20000] = {1};
    stream_record(&s, 10, 0, 1, body, 40);
    uint8_t broken[20024] = {0};
    seal(broken, sizeof broken, s.prev);
    uint32_t to_page_end = PS_WAL_PAGE - (uint32_t)(stream_lsn(&s) % PS_WAL_PAGE);
    stream_lay(&s, broken, sizeof broken, to_page_end);
    stream_page_header(&s, 0, PS_WAL_OVERWRITE);
    stream_record(&s, 0, 0xD0, 0, body, 20);
    stream_record(&s, 10, 0, 2, body, 80);
    uint64_t random = 3;
    seen got;
    for (size_t largest = 1; largest < 30000; largest = largest * 3 + 1) {
        read_chunks(&s, START - 64, &random, largest, &got);
        assert(got.count == 3 && got.rc == PS_WAL_MORE && got.ends[2] == stream_lsn(&s));
    }
    free(s.bytes);
}

static void
a_switch_ends_with_its_segment(void)
{
    stream s = {.start = START, .prev = START - 64};
    uint8_t body[64] = {0};
    static const uint8_t zeros[3 * PS_WAL_PAGE];
    stream_record(&s, 10, 0, 1, body, 40);
    stream_record(&s, 0, 0x40, 0, body, 0);
    uint64_t segment = 0x100000000u;
    size_t before = s.length;
    stream_bytes(&s, zeros, (size_t)(segment - stream_lsn(&s)));
    size_t at_segment = s.length;
    stream_record(&s, 10, 0, 2, body, 50);
    uint64_t random = 5;
    seen got;
    for (size_t largest = 1; largest < 30000; largest = largest * 3 + 1) {
        read_chunks(&s, START - 64, &random, largest, &got);
        assert(got.count == 3 && got.ends[1] == segment && got.ends[2] == stream_lsn(&s));
    }
    uint64_t end, prev, log_end = s.start + s.length;
    assert(ps_wal_align(s.bytes, s.length, START, log_end, 0, 0, &end, &prev, NULL) == PS_OK);
    assert(end == log_end && prev == s.prev);
    assert(ps_wal_align(s.bytes, s.length, START, START + before + 50, 0, 0, &end, &prev, NULL) ==
           PS_OK);
    assert(end < START + before); /* the switch is not yet whole */
    assert(ps_wal_align(s.bytes, s.length, START, START + at_segment, 0, 0, &end, &prev, NULL) ==
           PS_OK);
    assert(end == segment);
    free(s.bytes);
}

static void
wrong_links_are_refused(void)
{
    stream s = {.start = START, .prev = START - 64};
    uint8_t body[64] = {0};
    stream_record(&s, 10, 0, 1, body, 40);
    s.prev -= 8;
    stream_record(&s, 10, 0, 1, body, 40);
    uint64_t random = 5;
    seen got;
    read_chunks(&s, START - 64, &random, 9000, &got);
    assert(got.count == 1 && got.rc == PS_ERR_CORRUPT);
    read_chunks(&s, START - 72, &random, 9000, &got);
    assert(got.count == 0 && got.rc == PS_ERR_CORRUPT);
    read_chunks(&s, 0, &random, 9000, &got); /* an unknown first link is not checked */
    assert(got.count == 1 && got.rc == PS_ERR_CORRUPT);
    free(s.bytes);
}

static void
alignment_reads_any_bytes(void)
{
    uint64_t random = 99, end, prev;
    stream s = random_stream(4, 100);
    for (unsigned i = 0; i < 4000; i++) {
        size_t at = i % 2 ? 0 : next_random(&random) % 5 * PS_WAL_PAGE;
        size_t length = next_random(&random) % (s.length - at);
        uint8_t *copy = malloc(length + 1);
        memcpy(copy, s.bytes + at, length);
        for (unsigned flips = next_random(&random) % 4; length > 0 && flips > 0; flips--)
            copy[next_random(&random) % length] = (uint8_t)next_random(&random);
        uint64_t lsn = START + at, limit = lsn + next_random(&random) % (length + 100);
        uint64_t known = i % 3 ? 0 : lsn + next_random(&random) % 9000 / 8 * 8;
        ps_error err;
        int rc = ps_wal_align(copy, length, lsn, limit, known, 0, &end, &prev, &err);
        assert(rc != PS_OK || end <= limit);
        free(copy);
    }
    free(s.bytes);
}

int
main(void)
{
    chunks_may_end_anywhere();
    a_flipped_bit_never_passes();
    an_overwritten_record_is_forgotten();
    a_switch_ends_with_its_segment();
    wrong_links_are_refused();
    alignment_reads_any_bytes();
    return 0;
}
