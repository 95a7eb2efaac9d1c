/* How much of a layer is dead, reckoned from some of its keys. */
#include "store/sieve.h"

/* Keys that are looked at: where blocks end that lie as far from each other. */
#define SAMPLES 48u
/* Of a key with very many values, the newest stand for all. */
#define VALUES_MOST 4096u

/* A sample is met as often as its key has bytes, so parts of keys are averaged as they are. */
typedef struct reckoning {
    ps_sieve sieve;
    ps_layer *layer;
    ps_layer_cursor cursor;
    uint64_t image_lsn;
    ps_error *err;
} reckoning;

/* The part of one key's values that is dead, in 1024ths. The cursor stands at one of them. */
static int
dead_of_values(reckoning *r, uint32_t *part)
{
    ps_layer_value_header header;
    const uint8_t *data;
    ps_layer_cursor_value(&r->cursor, &header, &data);
    const ps_key key = header.key;
    uint64_t all = 0, dead = 0;
    int rc = ps_layer_cursor_seek(&r->cursor, &key, UINT64_MAX, 0, r->err);
    r->sieve.has_key = 0;
    for (uint32_t i = 0; rc == PS_OK && r->cursor.valid && i < VALUES_MOST; i++) {
        ps_layer_cursor_value(&r->cursor, &header, &data);
        if (ps_key_compare(&header.key, &key) != 0)
            break;
        int is_dead = ps_sieve_is_dead(&r->sieve, &key, header.lsn, header.kind, header.flags,
                                       r->err);
        if (is_dead < 0)
            return is_dead;
        uint64_t bytes = PS_LAYER_VALUE_HEADER_BYTES + header.length;
        all += bytes;
        dead += is_dead ? bytes : 0;
        rc = ps_layer_cursor_next(&r->cursor, r->err);
    }
    *part = all == 0 ? 0 : (uint32_t)(dead * 1024 / all);
    return rc;
}

/* Of a commit's time: whether a later one follows that takes its place. */
static int
dead_of_time(reckoning *r, uint32_t *part)
{
    ps_layer_value_header header;
    const uint8_t *data;
    ps_layer_cursor_value(&r->cursor, &header, &data);
    ps_passing time = {.key = header.key, .lsn = header.lsn, .kind = header.kind};
    *part = 0;
    if (!ps_sieve_must_wait(&r->sieve, &time))
        return PS_OK;
    ps_sieve_wait(&r->sieve, &time);
    int rc = ps_layer_cursor_next(&r->cursor, r->err);
    if (rc < 0 || !r->cursor.valid)
        return rc;
    ps_layer_cursor_value(&r->cursor, &header, &data);
    ps_passing next = {.key = header.key, .lsn = header.lsn, .kind = header.kind};
    rc = ps_sieve_decide(&r->sieve, &next, r->err);
    *part = rc == 1 ? 1024 : 0;
    return rc < 0 ? rc : PS_OK;
}

/* Of an image: whether a read at `image_lsn` would end above it, or nobody asks. */
static int
dead_of_image(reckoning *r, uint32_t *part)
{
    ps_layer_value_header header;
    const uint8_t *data;
    ps_layer_cursor_value(&r->cursor, &header, &data);
    const ps_key key = header.key;
    uint64_t lsn = header.lsn;
    if (ps_key_kind(&key) == PS_KIND_REL_BLOCK) {
        int is_read = ps_sieve_reads_block(&r->sieve, &key, r->image_lsn, r->err);
        if (is_read <= 0) {
            *part = 1024;
            return is_read;
        }
    }
    ps_arena arena;
    ps_arena_init(&arena);
    ps_chain chain = {.arena = &arena};
    int rc = ps_snapshot_collect(r->sieve.snapshot, &key, &(uint32_t){0}, 1, r->image_lsn, &chain,
                                 r->err);
    *part = rc == PS_OK && chain.count > 0 && chain.items[chain.count - 1].lsn > lsn ? 1024 : 0;
    ps_arena_free(&arena);
    return rc;
}

static int
dead_of_key(reckoning *r, int image, uint32_t *part)
{
    ps_layer_value_header header;
    const uint8_t *data;
    ps_layer_cursor_value(&r->cursor, &header, &data);
    if (ps_key_kind(&header.key) == PS_KIND_COMMIT_TIME)
        return dead_of_time(r, part);
    return image ? dead_of_image(r, part) : dead_of_values(r, part);
}

static int
reckon(reckoning *r, uint32_t *part)
{
    int image = ps_layer_known(r->layer)->kind == PS_LAYER_IMAGE;
    uint32_t sum = 0, count = 0;
    int rc = ps_layer_cursor_open(&r->cursor, r->layer, r->err);
    r->cursor.uncached = 1;
    for (uint32_t i = 0; rc == PS_OK && i < SAMPLES; i++) {
        uint32_t of_key = 0;
        rc = ps_layer_cursor_place(&r->cursor, i, SAMPLES, r->err);
        if (rc == PS_OK)
            rc = dead_of_key(r, image, &of_key);
        sum += of_key;
        count++;
    }
    ps_layer_cursor_close(&r->cursor);
    *part = count == 0 ? 0 : sum / count;
    return rc;
}

int
ps_layer_dead_part(const ps_snapshot *snapshot, ps_layer *layer, const ps_kept *kept,
                   uint64_t image_lsn, uint32_t *part, ps_error *err)
{
    reckoning r = {.layer = layer, .image_lsn = image_lsn, .err = err};
    *part = 0;
    int rc = ps_sieve_init(&r.sieve, kept, snapshot, NULL, err);
    if (rc == PS_OK && !ps_sieve_is_idle(&r.sieve))
        rc = reckon(&r, part);
    ps_sieve_free(&r.sieve);
    return rc;
}
