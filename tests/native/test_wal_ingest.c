/*
 * Ingest under ASan: records of every resource manager with random insides, then real-looking
 * ones with bytes changed and the CRC made right again. Whatever comes, a record either puts
 * values or leaves nothing behind.
 */
#include "wal_stream.h"

#include "wal/decode.h"
#include "wal/ingest.h"
#include "wal/meta_table.h"

#define START 0x5000000u

typedef struct rig {
    ps_ingest *ingest;
    ps_meta_table *table;
    ps_batch batch;
    ps_batch checks;
    stream s;
    size_t fed;
    ps_error err;
} rig;

static void
rig_init(rig *r)
{
    memset(r, 0, sizeof *r);
    r->s = (stream){.start = START, .prev = START - 64};
    r->table = ps_meta_table_new();
    assert(ps_ingest_new(START, 0, &r->ingest, &r->err) == PS_OK);
}

static void
rig_free(rig *r)
{
    ps_ingest_free(r->ingest);
    ps_meta_table_free(r->table);
    ps_batch_free(&r->batch);
    ps_batch_free(&r->checks);
    free(r->s.bytes);
}

/* Feeds what was appended to the stream; on refusal takes it out of the stream again. */
static int
rig_feed(rig *r, uint64_t prev_before)
{
    size_t n = r->s.length - r->fed;
    uint8_t *chunk = malloc(n);
    memcpy(chunk, r->s.bytes + r->fed, n);
    ps_ingest_step step;
    ps_batch_clear(&r->batch);
    ps_batch_clear(&r->checks);
    ps_ingest_position before = ps_ingest_where(r->ingest);
    int rc = ps_ingest_feed(r->ingest, chunk, n, ps_meta_table_source(r->table), &r->batch,
                            &r->checks, &step, &r->err);
    free(chunk);
    ps_ingest_position after = ps_ingest_where(r->ingest);
    if (rc == PS_OK) {
        assert(step.records == 1 && step.consumed == n);
        assert(after.last_record_lsn == stream_lsn(&r->s) && after.prev_record_lsn == r->s.prev);
        for (size_t i = 0; i < r->batch.count; i++) {
            const ps_entry *e = &r->batch.entries[i];
            assert(e->lsn == after.last_record_lsn);
            assert(e->offset + e->length <= r->batch.data_length);
            assert(e->kind >= PS_VALUE_IMAGE && e->kind <= PS_VALUE_TOMBSTONE);
            uint8_t page[PS_PAGE_SIZE] = {0};
            if (e->kind == PS_VALUE_PATCH)
                assert(ps_patch_apply(page, r->batch.data + e->offset, e->length) == PS_OK);
        }
        assert(ps_meta_table_apply(r->table, &r->batch) == PS_OK);
        r->fed = r->s.length;
    } else {
        assert(rc == PS_ERR_CORRUPT || rc == PS_ERR_UNSUPPORTED);
        assert(r->batch.count == 0 && r->batch.data_length == 0 && r->checks.count == 0);
        assert(after.last_record_lsn == before.last_record_lsn);
        assert(after.next_lsn == after.last_record_lsn && r->err.text[0] != '\0');
        r->s.length = r->fed;
        r->s.prev = prev_before;
    }
    return rc;
}

static int
feed_one(rig *r, uint8_t rmgr, uint8_t info, uint32_t xid, const void *body, uint32_t length)
{
    uint64_t prev = r->s.prev;
    if (rmgr == 0 && (info & 0xF0) == 0x40) /* a switch would wait for its segment's end */
        return PS_ERR_UNSUPPORTED;
    stream_record(&r->s, rmgr, info, xid, body, length);
    return rig_feed(r, prev);
}

/* A body with main data only. */
static uint32_t
main_body(uint8_t *body, const void *data, uint32_t length)
{
    body[0] = 254;
    memcpy(body + 1, &length, 4);
    memcpy(body + 5, data, length);
    return length + 5;
}

/* A body with `blocks` references, images on some, and random main data. */
static uint32_t
random_body(uint8_t *body, uint64_t *random)
{
    uint8_t *p = body;
    unsigned blocks = next_random(random) % 4, payload = 0;
    for (unsigned id = 0; id < blocks; id++) {
        unsigned flags = next_random(random) % 4 | (next_random(random) % 2 ? 0x40 : 0);
        uint16_t data = (uint16_t)(next_random(random) % 60), image = 0;
        int has_image = next_random(random) % 3 == 0;
        flags |= (data ? 0x20 : 0) | (has_image ? 0x10 : 0) | (id > 0 ? 0x80 : 0);
        *p++ = (uint8_t)id;
        *p++ = (uint8_t)flags;
        memcpy(p, &data, 2);
        p += 2;
        if (has_image) {
            static const uint8_t infos[] = {0x03, 0x01, 0x07, 0x0B, 0x13, 0x06, 0x02};
            uint8_t info = infos[next_random(random) % 7];
            image = (uint16_t)(1 + next_random(random) % 400);
            uint16_t hole_at = info & 1 ? 200 : 0;
            uint16_t hole = (uint16_t)(next_random(random) % 9000);
            memcpy(p, &image, 2);
            memcpy(p + 2, &hole_at, 2);
            p[4] = info;
            p += 5;
            if ((info & 0x1C) != 0 && (info & 1) != 0) {
                memcpy(p, &hole, 2);
                p += 2;
            }
        }
        if (id == 0) {
            uint32_t rel[3] = {1663, 5, 16384 + next_random(random) % 3};
            memcpy(p, rel, 12);
            p += 12;
        }
        uint32_t block = next_random(random) % 50;
        memcpy(p, &block, 4);
        p += 4;
        payload += data + image;
    }
    uint32_t main_length = next_random(random) % 120;
    *p++ = 255;
    *p++ = (uint8_t)main_length;
    for (unsigned i = 0; i < payload + main_length; i++) /* small numbers make likely counts */
        *p++ = (uint8_t)(next_random(random) % 4 ? next_random(random) % 3 : next_random(random));
    return (uint32_t)(p - body);
}

static void
random_records_of_every_manager(void)
{
    rig r;
    rig_init(&r);
    uint64_t random = 42;
    unsigned accepted = 0;
    uint8_t body[4096];
    for (unsigned i = 0; i < 25000; i++) {
        uint32_t length = random_body(body, &random);
        uint8_t rmgr = (uint8_t)(next_random(&random) % 23);
        uint8_t info = (uint8_t)(next_random(&random) % 16 << 4);
        accepted += feed_one(&r, rmgr, info, next_random(&random) % 5000, body, length) == PS_OK;
    }
    assert(accepted > 2500);
    rig_free(&r);
}

/* Bodies of main data alone, of a length that the parsers will go through. */
static void
random_main_data(void)
{
    rig r;
    rig_init(&r);
    uint64_t random = 43;
    unsigned accepted = 0;
    uint8_t data[700], body[800];
    static const uint8_t managers[] = {0, 1, 2, 3, 4, 6, 7, 8, 18, 19};
    for (unsigned i = 0; i < 25000; i++) {
        uint32_t length = next_random(&random) % sizeof data;
        for (uint32_t j = 0; j < length; j++)
            data[j] = (uint8_t)(next_random(&random) % 5 ? 0 : next_random(&random));
        uint8_t rmgr = managers[next_random(&random) % sizeof managers];
        uint8_t info = (uint8_t)(next_random(&random) % 16 << 4);
        accepted += feed_one(&r, rmgr, info, 7, body, main_body(body, data, length)) == PS_OK;
    }
    assert(accepted > 2500);
    rig_free(&r);
}

static void
any_bytes_after_the_header(void)
{
    rig r;
    rig_init(&r);
    uint64_t random = 44;
    uint8_t body[300];
    for (unsigned i = 0; i < 25000; i++) {
        uint32_t length = next_random(&random) % sizeof body;
        for (uint32_t j = 0; j < length; j++)
            body[j] = (uint8_t)next_random(&random);
        feed_one(&r, (uint8_t)next_random(&random), (uint8_t)next_random(&random),
                 next_random(&random), body, length);
    }
    rig_free(&r);
}

static void
refusals_name_the_manager(void)
{
    rig r;
    rig_init(&r);
    uint8_t body[64], data[32] = {0};
    uint32_t length = main_body(body, data, 26); /* PARAMETER_CHANGE to wal_level 0 */
    assert(feed_one(&r, 0, 0x60, 0, body, length) == PS_ERR_UNSUPPORTED);
    assert(strstr(r.err.text, "XLOG") != NULL && strstr(r.err.text, "minimal") != NULL);
    assert(feed_one(&r, 130, 0x10, 0, body, length) == PS_ERR_UNSUPPORTED);
    assert(strstr(r.err.text, "130") != NULL && strstr(r.err.text, "0/5000028") != NULL);
    assert(feed_one(&r, 22, 0x10, 0, body, length) == PS_ERR_UNSUPPORTED);
    assert(feed_one(&r, 11, 0xF0, 0, body, length) == PS_ERR_UNSUPPORTED);
    assert(strstr(r.err.text, "Btree") != NULL && strstr(r.err.text, "0xF0") != NULL);
    assert(feed_one(&r, 1, 0x80, 9, body, 8) == PS_ERR_CORRUPT);
    assert(feed_one(&r, 21, 0x00, 9, body, length) == PS_OK);
    rig_free(&r);
}

static void
pglz_takes_any_bytes(void)
{
    uint64_t random = 45;
    for (unsigned i = 0; i < 20000; i++) {
        size_t length = next_random(&random) % 64, out_length = next_random(&random) % 600;
        uint8_t *in = malloc(length + 1), *out = malloc(out_length + 1);
        for (size_t j = 0; j < length; j++)
            in[j] = (uint8_t)(next_random(&random) % 3 ? 1 : next_random(&random));
        ps_pglz_decompress(in, length, out, out_length);
        free(in);
        free(out);
    }
    const uint8_t copy[] = {0x02, 'a', 0x0F, 0x01, 0x05}; /* 'a', then 18 + 5 times the same */
    uint8_t out[24];
    assert(ps_pglz_decompress(copy, sizeof copy, out, 24) == PS_OK && out[23] == 'a');
    assert(ps_pglz_decompress(copy, sizeof copy, out, 23) == PS_OK);
}

int
main(void)
{
    random_records_of_every_manager();
    random_main_data();
    any_bytes_after_the_header();
    refusals_name_the_manager();
    pglz_takes_any_bytes();
    return 0;
}
