/*
 * Reads that begin on one thread and go on in others, against a scripted helper: this program
 * again, started with "--helper". Its block number tells it how long to take.
 */
#define _GNU_SOURCE
#undef NDEBUG
#include <assert.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "layer/open.h"
#include "redo/protocol.h"
#include "store/readers.h"

enum { SLOW = 100, DIES = 200, HANGS = 300, BLOCKS = 400, DEADLINE_MS = 2000 };
enum { RECORDS = 77, IMAGES = 78, LSN = 100 };

/* ---- the helper: a page of its block's number ---- */

static void
take(void *data, size_t length)
{
    for (char *at = data; length > 0;) {
        ssize_t n = read(0, at, length);
        if (n <= 0)
            _exit(0);
        at += n;
        length -= (size_t)n;
    }
}

static int
serve_requests(void)
{
    static uint8_t body[1 << 20];
    static struct {
        ps_redo_wire_answer head;
        uint8_t page[PS_PAGE_SIZE];
    } answer;
    ps_redo_wire_answer hello = {.magic = PS_REDO_MAGIC, .sequence = 150000};
    if (write(1, &hello, sizeof hello) != sizeof hello)
        return 1;
    for (;;) {
        ps_redo_wire_request request;
        take(&request, sizeof request);
        take(body, request.length - sizeof request);
        if (request.block >= HANGS)
            pause();
        if (request.block >= DIES)
            _exit(7);
        if (request.block >= SLOW)
            usleep(20000);
        answer.head = (ps_redo_wire_answer){.magic = PS_REDO_MAGIC, .sequence = request.sequence};
        memset(answer.page, (int)request.block, PS_PAGE_SIZE);
        if (write(1, &answer, sizeof answer) != sizeof answer)
            return 1;
    }
}

/* ---- the tests ---- */

static char self[4096];
static ps_open_layer *layer;
static ps_snapshot *snapshot;
static ps_redo_pool *pool;

static void
put(ps_batch *batch, ps_key key, uint8_t kind, uint8_t flags, const void *data, uint32_t length)
{
    uint64_t offset;
    assert(ps_batch_payload(batch, data, length, &offset) == PS_OK);
    assert(ps_batch_entry(batch, &key, kind, flags, LSN, offset, length) == PS_OK);
}

/* Relation 77 has pages of one record each, relation 78 images. */
static void
make_snapshot(void)
{
    static uint8_t image[PS_PAGE_SIZE];
    ps_batch batch;
    ps_batch_init(&batch);
    assert(ps_open_layer_make(&layer, NULL) == PS_OK);
    for (uint32_t rel = RECORDS; rel <= IMAGES; rel++)
        put(&batch, ps_key_make(PS_KIND_REL_SIZE, 1663, 5, rel, 0, 0), PS_VALUE_IMAGE, 0,
            &(uint32_t){BLOCKS}, 4);
    for (uint32_t block = 0; block < BLOCKS; block++) {
        memset(image, (int)block, sizeof image);
        put(&batch, ps_key_make(PS_KIND_REL_BLOCK, 1663, 5, RECORDS, 0, block), PS_VALUE_RECORD,
            PS_WILL_INIT, "a record of some bytes", 22);
        put(&batch, ps_key_make(PS_KIND_REL_BLOCK, 1663, 5, IMAGES, 0, block), PS_VALUE_IMAGE, 0,
            image, sizeof image);
    }
    assert(ps_open_layer_put(layer, &batch, NULL) == PS_OK);
    ps_batch_free(&batch);
    ps_snapshot *empty = ps_snapshot_empty();
    ps_source source = {.open = layer, .upper = UINT64_MAX};
    snapshot = ps_snapshot_replace(empty, NULL, 0, &source, 1);
    assert(snapshot != NULL);
    ps_snapshot_release(empty);
}

/* One helper works at a time, and a spare. */
static ps_readers *
open_all(void)
{
    const char *argv[] = {self, "--helper", "{dir}", NULL};
    const char *names[] = {"/tmp", "/tmp"};
    ps_redo_options options = {
        .dirs = 2, .size = 1, .start_ms = 10000, .deadline_ms = DEADLINE_MS};
    ps_error err;
    assert(ps_redo_pool_open(&pool, argv, names, &options, &err) == PS_OK);
    ps_readers *readers = ps_readers_open(2, 2, &err);
    assert(readers != NULL);
    return readers;
}

static void
close_all(ps_readers *readers)
{
    ps_readers_close(readers);
    assert(ps_readers_take(readers) == NULL);
    ps_readers_free(readers);
    ps_redo_pool_free(pool);
}

static ps_pages_job *
begin(uint32_t rel, uint32_t first, uint32_t count)
{
    ps_pages_job *job = calloc(1, sizeof *job);
    job->request = (ps_pages_request){.request_id = 1, .spc = 1663, .db = 5, .rel = rel};
    for (uint32_t i = 0; i < count; i++)
        job->request.blocks[job->request.block_count++] = first + i;
    job->snapshot = snapshot;
    job->lsn = LSN;
    job->redo = pool;
    job->out = malloc(ps_pages_response_bytes(&job->request));
    ps_pages_begin(job);
    return job;
}

static void
drop(ps_pages_job *job)
{
    free(job->out);
    free(job);
}

static void
check_and_drop(ps_pages_job *job)
{
    assert(job->step == PS_PAGES_DONE && job->status.code == 0);
    const uint8_t *at = job->out + 2;
    for (size_t i = 0; i < job->request.block_count; i++) {
        at += 3;
        for (size_t byte = 0; byte < PS_PAGE_SIZE; byte++)
            assert(*at++ == (uint8_t)job->request.blocks[i]);
    }
    drop(job);
}

static uint64_t
milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The next that is done, as an event loop waits for it. */
static ps_pages_job *
wait_for_one(ps_readers *readers)
{
    struct pollfd fd = {.fd = ps_readers_fd(readers), .events = POLLIN};
    assert(poll(&fd, 1, 20000) == 1);
    ps_pages_job *job = ps_readers_take(readers);
    assert(job != NULL && job->next == NULL);
    assert(poll(&fd, 1, 0) == 0);
    return job;
}

/* Waits until so many are done, and checks the pages of each. */
static void
check_and_drop_next(ps_readers *readers, int left)
{
    while (left > 0) {
        struct pollfd fd = {.fd = ps_readers_fd(readers), .events = POLLIN};
        assert(poll(&fd, 1, 20000) == 1);
        for (ps_pages_job *job = ps_readers_take(readers), *next; job != NULL; job = next, left--) {
            next = job->next;
            check_and_drop(job);
        }
    }
    assert(left == 0);
}

static void
start_helper(ps_readers *readers)
{
    ps_pages_job *job = begin(RECORDS, 0, 1);
    assert(job->step == PS_PAGES_REDO); /* none runs */
    ps_readers_submit(readers, job);
    assert(wait_for_one(readers) == job);
    check_and_drop(job);
}

static void
what_is_in_memory_is_done_at_once(void)
{
    ps_readers *readers = open_all();
    check_and_drop(begin(IMAGES, 0, 64));
    start_helper(readers);
    close_all(readers);
}

static void
a_large_read_goes_from_files_to_redo(void)
{
    ps_readers *readers = open_all();
    for (uint32_t rel = RECORDS; rel <= IMAGES; rel++) {
        ps_pages_job *job = begin(rel, 0, 90);
        assert(job->step == PS_PAGES_FILES);
        ps_readers_submit(readers, job);
        assert(wait_for_one(readers) == job);
        check_and_drop(job);
    }
    close_all(readers);
}

static void
redo_that_takes_longer_goes_on_in_a_thread(void)
{
    ps_readers *readers = open_all();
    start_helper(readers);
    ps_pages_job *slow = begin(RECORDS, SLOW, 3);
    assert(slow->step == PS_PAGES_REDO_BEGUN);
    ps_readers_submit(readers, slow);
    check_and_drop(begin(IMAGES, 5, 1));
    ps_pages_job *behind = begin(RECORDS, 1, 1);
    assert(behind->step == PS_PAGES_REDO);
    ps_readers_submit(readers, behind);
    uint64_t begun = milliseconds();
    check_and_drop_next(readers, 2);
    assert(milliseconds() - begun >= 30); /* the one behind, too, waited for the helper */
    close_all(readers);
}

static void
a_helper_that_dies_costs_its_own_page_only(void)
{
    ps_readers *readers = open_all();
    start_helper(readers);
    ps_pages_job *job = begin(RECORDS, DIES, 1);
    assert(job->step == PS_PAGES_REDO_BEGUN); /* its end is looked into by a thread */
    ps_readers_submit(readers, job);
    assert(wait_for_one(readers) == job);
    assert(strcmp(job->status.reason, "REDO_FAILED") == 0);
    assert(strstr(job->status.message, "the helper died, twice; exit status 7") != NULL);
    drop(job);
    start_helper(readers);
    close_all(readers);
}

static void
a_helper_that_hangs_holds_neither_redo_nor_files(void)
{
    ps_readers *readers = open_all();
    start_helper(readers);
    uint64_t begun = milliseconds();
    ps_pages_job *hung = begin(RECORDS, HANGS, 1);
    assert(hung->step == PS_PAGES_REDO_BEGUN);
    ps_readers_submit(readers, hung);
    for (uint32_t i = 0; i < 20; i++) {
        ps_pages_job *other = begin(i % 2 ? RECORDS : IMAGES, 0, 65 + i);
        ps_readers_submit(readers, other);
        assert(wait_for_one(readers) == other);
        check_and_drop(other);
    }
    assert(milliseconds() - begun < 2 * DEADLINE_MS);
    assert(wait_for_one(readers) == hung);
    assert(strcmp(hung->status.reason, "REDO_FAILED") == 0);
    drop(hung);
    close_all(readers);
}

static void
what_nobody_waits_for_is_not_begun_any_more(void)
{
    ps_readers *readers = open_all();
    start_helper(readers);
    ps_pages_job *slow = begin(RECORDS, SLOW, 20);
    ps_readers_submit(readers, slow);
    ps_pages_job *waiting[4];
    for (uint32_t i = 0; i < 4; i++) {
        waiting[i] = begin(RECORDS, i, 1);
        ps_readers_submit(readers, waiting[i]);
    }
    ps_readers_cancel(readers, waiting[3]); /* threads may take the first two, and no more */
    assert(wait_for_one(readers) == waiting[3]);
    assert(strcmp(waiting[3]->status.reason, "CLOSED") == 0);
    drop(waiting[3]);
    ps_readers_cancel(readers, slow); /* goes on, since it holds a helper */
    ps_readers_cancel(readers, waiting[3]);
    check_and_drop_next(readers, 4);
    close_all(readers);
}

static void
closing_waits_for_what_is_under_way_and_answers_the_rest(void)
{
    ps_readers *readers = open_all();
    start_helper(readers);
    ps_pages_job *slow = begin(RECORDS, SLOW, 20);
    ps_readers_submit(readers, slow);
    for (uint32_t i = 0; i < 10; i++)
        ps_readers_submit(readers, begin(RECORDS, i, 1));
    for (uint32_t i = 0; i < 10; i++)
        ps_readers_submit(readers, begin(IMAGES, i, 100));
    ps_readers_close(readers);
    ps_readers_submit(readers, begin(IMAGES, 0, 100));
    int all = 0, refused = 0;
    for (ps_pages_job *job = ps_readers_take(readers), *next; job != NULL; job = next, all++) {
        next = job->next;
        refused += job->status.code != 0;
        if (job->status.code == 0) {
            check_and_drop(job);
        } else {
            assert(job != slow && strcmp(job->status.reason, "CLOSED") == 0);
            drop(job);
        }
    }
    assert(all == 22 && refused >= 9);
    close_all(readers);
}

static void
all_of_many_are_done_once(void)
{
    ps_readers *readers = open_all();
    uint32_t noise = 7;
    for (int round = 0; round < 20; round++) {
        int left = 0;
        for (int i = 0; i < 20; i++) {
            noise = noise * 1664525u + 1013904223u;
            uint32_t count = (noise >> 8) % 3 == 0 ? 70 : 1 + (noise >> 10) % 5;
            uint32_t slow = (noise >> 16) % 40 == 0 ? SLOW : 0;
            ps_pages_job *job = begin((noise >> 20) % 3 ? RECORDS : IMAGES, slow, slow ? 1 : count);
            if (job->step == PS_PAGES_DONE) {
                check_and_drop(job);
            } else {
                ps_readers_submit(readers, job);
                left++;
            }
        }
        check_and_drop_next(readers, left);
    }
    close_all(readers);
}

int
main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--helper") == 0)
        return serve_requests();
    assert(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    signal(SIGPIPE, SIG_IGN);
    make_snapshot();
    what_is_in_memory_is_done_at_once();
    a_large_read_goes_from_files_to_redo();
    redo_that_takes_longer_goes_on_in_a_thread();
    a_helper_that_dies_costs_its_own_page_only();
    a_helper_that_hangs_holds_neither_redo_nor_files();
    what_nobody_waits_for_is_not_begun_any_more();
    closing_waits_for_what_is_under_way_and_answers_the_rest();
    all_of_many_are_done_once();
    ps_snapshot_release(snapshot);
    ps_open_layer_release(layer);
    return 0;
}
