/*
 * The pool against a scripted helper: this program again, started with "--helper". Its block
 * number tells it how to misbehave, in ways that the real helper cannot be made to at will.
 */
#define _GNU_SOURCE
#undef NDEBUG
#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "redo/protocol.h"
#include "redo/redo.h"

enum { DIE = 1000, DIE_ONCE_HALFWAY, HANG, LIE, DIE_ONCE_AFTER_TWO };

#define PAGE PS_PAGE_SIZE
#define DEADLINE_MS 1000

/* ---- the helper ---- */

static void
put(const void *data, size_t length)
{
    const char *at = data;
    while (length > 0) {
        ssize_t n = write(1, at, length);
        if (n <= 0)
            _exit(3);
        at += n;
        length -= (size_t)n;
    }
}

static void
take(void *data, size_t length)
{
    char *at = data;
    while (length > 0) {
        ssize_t n = read(0, at, length);
        if (n <= 0)
            _exit(0);
        at += n;
        length -= (size_t)n;
    }
}

/* True the first time in this directory: the mark outlives the process. */
static int
first_time(const char *mark)
{
    int fd = open(mark, O_CREAT | O_EXCL | O_WRONLY, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void
die(const char *words)
{
    (void)!write(2, words, strlen(words));
    _exit(7);
}

/* Adds one to each byte of the base for each item. */
static int
serve_requests(void)
{
    static uint8_t body[1 << 20];
    ps_redo_wire_answer hello = {.magic = PS_REDO_MAGIC, .sequence = 150000};
    put(&hello, sizeof hello);
    for (;;) {
        ps_redo_wire_request request;
        uint8_t page[PAGE] = {0};
        take(&request, sizeof request);
        assert(request.magic == PS_REDO_MAGIC && request.length - sizeof request < sizeof body);
        take(body, request.length - sizeof request);
        if (request.has_base)
            memcpy(page, body, PAGE);
        for (size_t i = 0; i < PAGE; i++)
            page[i] = (uint8_t)(page[i] + request.items);
        ps_redo_wire_answer answer = {.magic = PS_REDO_MAGIC, .sequence = request.sequence};
        if (request.block == DIE)
            die("cannot\nbear it\n");
        if (request.block == HANG) {
            (void)first_time("hangs");
            pause();
        }
        if (request.block == LIE)
            answer.sequence += 5;
        put(&answer, sizeof answer);
        if (request.block == DIE_ONCE_HALFWAY && first_time("halfway")) {
            put(page, PAGE / 2);
            die("halfway");
        }
        put(page, PAGE);
        if (request.block == DIE_ONCE_AFTER_TWO && first_time("after"))
            die("after");
    }
}

/* ---- the tests ---- */

static char self[4096];
static char dirs[3][64];

static ps_redo_pool *
open_pool_with_spares(size_t working, size_t size)
{
    const char *argv[] = {self, "--helper", "{dir}", NULL};
    const char *names[3];
    ps_redo_pool *pool;
    ps_error err;
    for (size_t i = 0; i < size; i++) {
        strcpy(dirs[i], "/tmp/ps-test-redo-XXXXXX");
        assert(mkdtemp(dirs[i]) != NULL);
        names[i] = dirs[i];
    }
    ps_redo_options options = {
        .dirs = size, .size = working, .start_ms = 10000, .deadline_ms = DEADLINE_MS};
    assert(ps_redo_pool_open(&pool, argv, names, &options, &err) == PS_OK);
    return pool;
}

static ps_redo_pool *
open_pool(size_t size)
{
    return open_pool_with_spares(size, size);
}

static void
close_pool(ps_redo_pool *pool, size_t size)
{
    ps_redo_pool_free(pool);
    for (size_t i = 0; i < size; i++) {
        char command[128];
        snprintf(command, sizeof command, "rm -r %s", dirs[i]);
        assert(system(command) == 0);
    }
}

typedef struct {
    ps_redo_request requests[100];
    uint8_t pages[100][PAGE];
    ps_redo_item items[4];
    size_t count;
} Batch;

/* Requests for blocks 0, 1, ... with base bytes = block, in place, each with two items. */
static Batch *
make_batch(size_t count)
{
    static uint8_t large[5000];
    Batch *b = calloc(1, sizeof *b);
    assert(b != NULL);
    b->items[0] = (ps_redo_item){.lsn = 8, .kind = PS_VALUE_RECORD, .length = 3,
                                 .data = (const uint8_t *)"abc"};
    b->items[1] = (ps_redo_item){.lsn = 0x100000010, .kind = PS_VALUE_RECORD,
                                 .length = sizeof large, .data = large};
    b->count = count;
    for (size_t i = 0; i < count; i++) {
        memset(b->pages[i], (int)i, PAGE);
        b->requests[i] = (ps_redo_request){
            .key = ps_key_make(PS_KIND_REL_BLOCK, 1663, 5, 77, 0, (uint32_t)i),
            .base = b->pages[i],
            .out = b->pages[i],
            .items = b->items,
            .count = 2};
    }
    return b;
}

static void
misbehave(Batch *b, size_t index, uint32_t how)
{
    b->requests[index].key = ps_key_make(PS_KIND_REL_BLOCK, 1663, 5, 77, 0, how);
}

static void
check_page(const Batch *b, size_t index)
{
    assert(b->requests[index].status == PS_OK);
    for (size_t i = 0; i < PAGE; i++)
        assert(b->pages[index][i] == (uint8_t)(index + 2));
}

static void
test_batch_in_place(void)
{
    ps_redo_pool *pool = open_pool(2);
    Batch *b = make_batch(100);
    ps_error err;
    assert(ps_redo_apply(pool, b->requests, b->count, &err) == PS_OK);
    for (size_t i = 0; i < b->count; i++)
        check_page(b, i);
    ps_redo_stats stats = ps_redo_pool_stats(pool);
    assert(stats.pages == 100 && stats.records == 200 && stats.started == 2 && stats.deaths == 0);
    free(b);
    close_pool(pool, 2);
}

static void
test_death_halfway_through_an_answer_spares_the_base(void)
{
    ps_redo_pool *pool = open_pool(1);
    Batch *b = make_batch(20);
    ps_error err;
    misbehave(b, 5, DIE_ONCE_HALFWAY);
    misbehave(b, 12, DIE_ONCE_AFTER_TWO);
    assert(ps_redo_apply(pool, b->requests, b->count, &err) == PS_OK);
    for (size_t i = 0; i < b->count; i++)
        check_page(b, i);
    assert(ps_redo_pool_stats(pool).deaths == 2);
    free(b);
    close_pool(pool, 1);
}

static void
test_each_kind_of_failure_costs_its_own_page(void)
{
    ps_redo_pool *pool = open_pool(2);
    Batch *b = make_batch(60);
    ps_error err;
    misbehave(b, 3, DIE);
    misbehave(b, 4, LIE);
    misbehave(b, 40, HANG);
    assert(ps_redo_apply(pool, b->requests, b->count, &err) == PS_ERR_REDO);
    for (size_t i = 0; i < b->count; i++) {
        if (i == 3 || i == 4 || i == 40)
            assert(b->requests[i].status == PS_ERR_REDO);
        else
            check_page(b, i);
    }
    assert(strstr(err.text, "relation 1663/5/77 fork 0 block 100") != NULL);
    assert(strstr(err.text, "LSN 1/10") != NULL);
    free(b);

    b = make_batch(1);
    misbehave(b, 0, DIE);
    assert(ps_redo_apply(pool, b->requests, 1, &err) == PS_ERR_REDO);
    assert(strstr(err.text, "exit status 7: cannot bear it") != NULL);
    misbehave(b, 0, HANG);
    b->items[0].lsn = 9; /* the page of other records than the one that hung above */
    assert(ps_redo_apply(pool, b->requests, 1, &err) == PS_ERR_REDO);
    assert(strstr(err.text, "no answer in time") != NULL);
    free(b);
    close_pool(pool, 2);
}

static void
test_without_items_no_helper_is_asked(void)
{
    ps_redo_pool *pool = open_pool(1);
    Batch *b = make_batch(2);
    b->requests[0].count = b->requests[1].count = 0;
    b->requests[1].base = NULL;
    assert(ps_redo_apply(pool, b->requests, 2, NULL) == PS_OK);
    assert(b->pages[0][17] == 0 && b->pages[1][17] == 0);
    assert(ps_redo_pool_stats(pool).started == 0);
    free(b);
    close_pool(pool, 1);
}

static void *
work(void *arg)
{
    ps_redo_pool *pool = arg;
    for (int round = 0; round < 10; round++) {
        Batch *b = make_batch((size_t)(1 + round * 5));
        if (round % 4 == 3)
            misbehave(b, 1, DIE);
        (void)ps_redo_apply(pool, b->requests, b->count, NULL);
        for (size_t i = 0; i < b->count; i++)
            if (round % 4 != 3 || i != 1)
                check_page(b, i);
        ps_redo_pool_stop_idle(pool, 0);
        free(b);
    }
    return NULL;
}

static void
test_threads(void)
{
    ps_redo_pool *pool = open_pool(3);
    pthread_t threads[5];
    for (size_t i = 0; i < 5; i++)
        assert(pthread_create(&threads[i], NULL, work, pool) == 0);
    for (size_t i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    close_pool(pool, 3);
}

static void *
hang(void *arg)
{
    Batch *b = make_batch(1);
    misbehave(b, 0, HANG);
    assert(ps_redo_apply(arg, b->requests, 1, NULL) == PS_ERR_REDO);
    free(b);
    return NULL;
}

static void
wait_until_one_hangs(size_t size)
{
    char mark[80];
    for (size_t i = 0;; i = (i + 1) % size) {
        snprintf(mark, sizeof mark, "%s/hangs", dirs[i]);
        if (access(mark, F_OK) == 0)
            return;
        usleep(1000);
    }
}

static uint64_t
milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void
test_a_spare_works_while_a_helper_hangs_and_who_hung_is_refused_then(void)
{
    ps_redo_pool *pool = open_pool_with_spares(1, 2);
    Batch *b = make_batch(20);
    pthread_t hanging;
    ps_error err;
    assert(ps_redo_apply(pool, b->requests, b->count, &err) == PS_OK);
    assert(ps_redo_pool_stats(pool).running == 1);
    free(b);
    uint64_t begun = milliseconds();
    assert(pthread_create(&hanging, NULL, hang, pool) == 0);
    wait_until_one_hangs(2);
    b = make_batch(20);
    assert(ps_redo_apply(pool, b->requests, b->count, &err) == PS_OK);
    assert(milliseconds() - begun < DEADLINE_MS);
    pthread_join(hanging, NULL);
    assert(milliseconds() - begun >= 2 * DEADLINE_MS);
    free(b);

    begun = milliseconds();
    b = make_batch(3);
    misbehave(b, 1, HANG);
    assert(ps_redo_apply(pool, b->requests, b->count, &err) == PS_ERR_REDO);
    assert(milliseconds() - begun < DEADLINE_MS);
    assert(strstr(err.text, "it made helpers hang; it is tried again in ") != NULL);
    check_page(b, 0);
    check_page(b, 2);
    free(b);
    close_pool(pool, 2);
}

static void
test_what_cannot_start(void)
{
    const char *argv[] = {"/nonexistent/postgres", NULL};
    const char *names[] = {"/tmp"};
    ps_redo_pool *pool;
    ps_error err;
    ps_redo_options options = {.dirs = 1, .size = 0, .start_ms = 1000, .deadline_ms = 1000};
    assert(ps_redo_pool_open(&pool, argv, names, &options, &err) == PS_ERR_INVALID);
    options.size = 1;
    assert(ps_redo_pool_open(&pool, argv, names, &options, &err) == PS_OK);
    Batch *b = make_batch(3);
    assert(ps_redo_apply(pool, b->requests, 3, &err) == PS_ERR_REDO);
    assert(strstr(err.text, "could not start the redo helper /nonexistent/postgres") != NULL);
    ps_redo_pool_close(pool);
    assert(ps_redo_apply(pool, b->requests, 3, &err) == PS_ERR_CLOSED);
    ps_redo_pool_free(pool);
    free(b);
}

static size_t
descriptors(void)
{
    size_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert(dir != NULL);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

int
main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--helper") == 0)
        return serve_requests();
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert(n > 0);
    signal(SIGPIPE, SIG_IGN);
    size_t before = descriptors();
    test_batch_in_place();
    test_death_halfway_through_an_answer_spares_the_base();
    test_each_kind_of_failure_costs_its_own_page();
    test_without_items_no_helper_is_asked();
    test_threads();
    test_a_spare_works_while_a_helper_hangs_and_who_hung_is_refused_then();
    test_what_cannot_start();
    assert(descriptors() == before);
    return 0;
}
