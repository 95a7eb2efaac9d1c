/* GetPages requests under the sanitizers: mutated and random bytes never leave their bounds. */
#undef NDEBUG
#include <assert.h>
#include <stdlib.h>

#include "store/serve.h"

static uint32_t noise = 42;

static uint32_t
next_noise(void)
{
    noise = noise * 1664525u + 1013904223u;
    return noise >> 8;
}

/* request_id 7, ids of 16 bytes, LSN 0x100, relation 1663/5/16384, blocks 0 1 2 packed. */
static const uint8_t GOOD[] = {
    0x08, 0x07, 0x12, 0x10, 1,    1,    1,    1,    1,    1,    1,    1,    1,    1,
    1,    1,    1,    1,    1,    1,    0x1A, 0x10, 2,    2,    2,    2,    2,    2,
    2,    2,    2,    2,    2,    2,    2,    2,    2,    2,    0x22, 0x09, 0x09, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x2A, 0x09, 0x08, 0xFF, 0x0C, 0x10, 0x05,
    0x18, 0x80, 0x80, 0x01, 0x32, 0x03, 0x00, 0x01, 0x02, 0x38, 0x64};

static void
serve_bytes(const uint8_t *bytes, size_t length)
{
    static ps_pages_request request;
    uint8_t *exact = malloc(length + 1); /* so that the sanitizer sees the end */
    memcpy(exact, bytes, length);
    exact = realloc(exact, length == 0 ? 1 : length);
    ps_error err = {0};
    ps_pages_status status = {0};
    if (ps_pages_request_parse(exact, length, &request, &err) == PS_OK &&
        ps_pages_request_check(&request, &status) == 0) {
        ps_snapshot nothing = {0};
        ps_pages_job *job = calloc(1, sizeof *job);
        job->request = request;
        job->snapshot = &nothing;
        job->lsn = 1;
        job->out = malloc(ps_pages_response_bytes(&request));
        ps_pages_begin(job);
        if (job->step != PS_PAGES_DONE)
            ps_pages_continue(job);
        assert(job->step == PS_PAGES_DONE && job->status.code == 5);
        free(job->out);
        free(job);
    }
    free(exact);
}

static void
a_good_request_is_understood(void)
{
    static ps_pages_request request;
    ps_error err = {0};
    assert(ps_pages_request_parse(GOOD, sizeof GOOD, &request, &err) == PS_OK);
    assert(request.request_id == 7 && request.tenant[15] == 1 && request.timeline[0] == 2);
    assert(request.request_lsn == 0x100 && request.spc == 1663 && request.db == 5);
    assert(request.rel == 16384 && request.fork == 0 && request.wait_ms == 100);
    assert(request.block_count == 3 && request.blocks[2] == 2);
}

int
main(void)
{
    a_good_request_is_understood();
    for (size_t cut = 0; cut <= sizeof GOOD; cut++)
        serve_bytes(GOOD, cut);
    uint8_t bytes[sizeof GOOD * 2];
    for (int round = 0; round < 20000; round++) {
        memcpy(bytes, GOOD, sizeof GOOD);
        for (uint32_t i = 0; i < 1 + next_noise() % 3; i++)
            bytes[next_noise() % sizeof GOOD] = (uint8_t)next_noise();
        serve_bytes(bytes, sizeof GOOD);
    }
    for (int round = 0; round < 5000; round++) {
        size_t length = next_noise() % sizeof bytes;
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)next_noise();
        serve_bytes(bytes, length);
    }
    return 0;
}
