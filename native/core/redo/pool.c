/*
 * The pool: leases helpers to calls, and drives each call's batch over them.
 *
 * One thread drives all lanes of its call with poll. A request's `status` doubles as its
 * state while the call runs: waiting or sent, for the first time or again. When a helper dies,
 * the oldest few requests in flight are suspects: the one it was working on, and those whose
 * answers it held back. Suspects are sent again, each alone on its lane, so that a second
 * death has one possible culprit; those behind them wait as before. So one bad record costs
 * its own page and nobody else's.
 */
#include "redo/redo.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "redo/helper.h"
#include "redo/lane.h"
#include "redo/quarantine.h"

#define MAX_HELPERS 64u
/* A helper that was silent for so long may be hung: others need not wait for it. */
#define SILENT_MS 250u
/* A helper more for each so many requests, when one is free. */
#define REQUESTS_PER_LANE 16u
/* A longer chain is sent in parts, the page of one being the base of the next. */
#define PART_BYTES (8u << 20)
/* Encoded at once: enough to keep a helper busy, little enough to begin soon. */
#define TAKE_AT_ONCE 8u

struct ps_redo_pool {
    pthread_mutex_t mutex;
    pthread_cond_t freed;
    int closed;
    ps_redo_options options;
    ps_redo_stats stats;
    ps_redo_quarantine quarantine;
    size_t size; /* of lanes */
    ps_redo_lane *lanes;
};

/* States above PS_OK, never seen by callers. */
enum { WAITING = 1, WAITING_AGAIN, SENT, SENT_AGAIN };

typedef struct batch {
    ps_redo_pool *pool;
    ps_redo_request *requests;
    size_t count;
    size_t cursor; /* no request before it is waiting */
    size_t unfinished;
    size_t lane_count;
    ps_redo_lane *lanes[MAX_HELPERS]; /* leased from the pool */
    uint64_t started;
    uint64_t deaths;
    ps_error first; /* the first failure; code PS_OK when there is none */
} batch;

int
ps_redo_pool_open(ps_redo_pool **pool, const char *const *argv, const char *const *dirs,
                  const ps_redo_options *options, ps_error *err)
{
    *pool = NULL;
    if (options->size == 0 || options->size > options->dirs || options->dirs > MAX_HELPERS ||
        argv[0] == NULL || options->deadline_ms == 0 || options->start_ms == 0)
        return ps_fail(err, PS_ERR_INVALID,
                       "a redo pool has 1 to %u helpers, a directory for each, and deadlines",
                       MAX_HELPERS);
    ps_redo_pool *made = calloc(1, sizeof *made);
    if (made == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory");
    pthread_mutex_init(&made->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&made->freed, &attributes);
    pthread_condattr_destroy(&attributes);
    made->options = *options;
    made->lanes = calloc(options->dirs, sizeof *made->lanes);
    int rc = made->lanes == NULL ? PS_ERR_NOMEM : PS_OK;
    while (rc == PS_OK && made->size < options->dirs) {
        rc = ps_redo_helper_init(&made->lanes[made->size].helper, argv, dirs[made->size]);
        made->size++;
    }
    if (rc != PS_OK) {
        ps_redo_pool_free(made);
        return ps_fail(err, rc, "out of memory");
    }
    *pool = made;
    return PS_OK;
}

void
ps_redo_pool_close(ps_redo_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->closed = 1;
    pthread_cond_broadcast(&pool->freed);
    for (size_t i = 0; i < pool->size; i++) {
        while (pool->lanes[i].helper.leased)
            pthread_cond_wait(&pool->freed, &pool->mutex);
        ps_redo_helper_stop(&pool->lanes[i].helper, NULL);
    }
    pthread_mutex_unlock(&pool->mutex);
}

void
ps_redo_pool_free(ps_redo_pool *pool)
{
    if (pool == NULL)
        return;
    ps_redo_pool_close(pool);
    for (size_t i = 0; i < pool->size; i++)
        ps_redo_lane_free(&pool->lanes[i]);
    free(pool->lanes);
    pthread_cond_destroy(&pool->freed);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

void
ps_redo_pool_stop_idle(ps_redo_pool *pool, uint64_t idle_ms)
{
    uint64_t now = ps_redo_now_ms();
    pthread_mutex_lock(&pool->mutex);
    for (size_t i = 0; i < pool->size; i++) {
        ps_redo_helper *helper = &pool->lanes[i].helper;
        if (!helper->leased && helper->pid > 0 && now - helper->used_ms >= idle_ms)
            ps_redo_helper_stop(helper, NULL);
    }
    pthread_mutex_unlock(&pool->mutex);
}

ps_redo_stats
ps_redo_pool_stats(ps_redo_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    ps_redo_stats stats = pool->stats;
    for (size_t i = 0; i < pool->size; i++)
        stats.running += pool->lanes[i].helper.leased || pool->lanes[i].helper.pid > 0;
    pthread_mutex_unlock(&pool->mutex);
    return stats;
}

/* A running helper first, then one that must be started; NULL when none is free, or enough work
 * already. */
static ps_redo_lane *
free_lane(ps_redo_pool *pool)
{
    ps_redo_lane *found = NULL;
    size_t working = 0;
    uint64_t now = ps_redo_now_ms();
    for (size_t i = 0; i < pool->size; i++) {
        ps_redo_lane *lane = &pool->lanes[i];
        if (lane->helper.leased)
            working += ps_redo_lane_silence(lane, now) < SILENT_MS;
        else if (found == NULL || (found->helper.pid == 0 && lane->helper.pid > 0))
            found = lane;
    }
    if (found == NULL || working >= pool->options.size)
        return NULL;
    found->helper.leased = 1;
    return found;
}

/* Until a lane is given back, or one of those that work may have fallen silent. */
static void
wait_for_lane(ps_redo_pool *pool)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)SILENT_MS / 2 * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&pool->freed, &pool->mutex, &until);
}

/* Waits for one helper, and takes more that are free when the batch is long. */
static int
lease(batch *b)
{
    ps_redo_pool *pool = b->pool;
    size_t wanted = 1 + b->count / REQUESTS_PER_LANE;
    ps_redo_lane *lane = NULL;
    pthread_mutex_lock(&pool->mutex);
    while (!pool->closed && (lane = free_lane(pool)) == NULL)
        wait_for_lane(pool);
    while (lane != NULL) {
        b->lanes[b->lane_count++] = lane;
        lane = b->lane_count < wanted ? free_lane(pool) : NULL;
    }
    pthread_mutex_unlock(&pool->mutex);
    return b->lane_count > 0 ? PS_OK : PS_ERR_CLOSED;
}

static void
give_back(batch *b, uint64_t pages, uint64_t records, uint64_t busy_ns)
{
    ps_redo_pool *pool = b->pool;
    uint64_t now = ps_redo_now_ms();
    pthread_mutex_lock(&pool->mutex);
    for (size_t i = 0; i < b->lane_count; i++) {
        ps_redo_lane_clear(b->lanes[i]);
        b->lanes[i]->helper.leased = 0;
        b->lanes[i]->helper.used_ms = now;
    }
    pool->stats.pages += pages;
    pool->stats.records += records;
    pool->stats.busy_ns += busy_ns;
    pool->stats.started += b->started;
    pool->stats.deaths += b->deaths;
    pthread_cond_broadcast(&pool->freed);
    pthread_mutex_unlock(&pool->mutex);
}

static void
finish(batch *b, ps_redo_request *request, int code, const char *words)
{
    request->status = code;
    b->unfinished--;
    if (code == PS_OK || b->first.code != PS_OK)
        return;
    const ps_key *key = &request->key;
    uint64_t lsn = request->count > 0 ? request->items[request->count - 1].lsn : 0;
    ps_fail(&b->first, code,
            "redo of relation %u/%u/%u fork %u block %u at LSN %X/%X (%zu records) failed: %s",
            ps_key_spc(key), ps_key_db(key), ps_key_rel(key), ps_key_fork(key), ps_key_block(key),
            (unsigned)(lsn >> 32), (unsigned)lsn, request->count, words);
}

static const char *
fault_of(const ps_redo_request *request)
{
    if (ps_key_kind(&request->key) != PS_KIND_REL_BLOCK)
        return "it is not a block of a relation";
    for (size_t i = 0; i < request->count; i++) {
        const ps_redo_item *item = &request->items[i];
        if (item->kind != PS_VALUE_RECORD && item->kind != PS_VALUE_PATCH)
            return "an item is neither a record nor a patch";
        if (item->length > PS_REDO_MAX_REQUEST - 2 * PS_PAGE_SIZE)
            return "a record takes more than 256 MiB";
    }
    return NULL;
}

static int
apply_in_parts(ps_redo_pool *pool, const ps_redo_request *request, ps_error *err)
{
    ps_redo_request part = *request;
    size_t done = 0;
    int rc = PS_OK;
    while (rc == PS_OK && done < request->count) {
        uint64_t bytes = 0;
        part.items = request->items + done;
        for (part.count = 0; done < request->count; done++, part.count++) {
            bytes += sizeof(ps_redo_wire_item) + request->items[done].length;
            if (part.count > 0 && bytes > PART_BYTES)
                break;
        }
        rc = ps_redo_apply(pool, &part, 1, err);
        part.base = request->out;
    }
    return rc;
}

static int
is_long(const ps_redo_request *request)
{
    return request->count > 1 && ps_redo_wire_length(request) > 2 * PART_BYTES;
}

static void
do_in_parts(batch *b, ps_redo_request *request)
{
    ps_error err = {.text = ""};
    request->status = apply_in_parts(b->pool, request, &err);
    b->unfinished--;
    if (request->status != PS_OK && b->first.code == PS_OK)
        b->first = err;
}

/* Settles what is not for the lanes: faulty requests, empty chains and very long ones. */
static void
prepare(batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        ps_redo_request *request = &b->requests[i];
        const char *fault = fault_of(request);
        request->status = WAITING;
        if (fault != NULL) {
            finish(b, request, PS_ERR_UNSUPPORTED, fault);
        } else if (request->count == 0) {
            if (request->base != NULL)
                memcpy(request->out, request->base, PS_PAGE_SIZE);
            else
                memset(request->out, 0, PS_PAGE_SIZE);
            finish(b, request, PS_OK, NULL);
        } else if (is_long(request)) {
            do_in_parts(b, request);
        }
    }
}

static void
fail_waiting(batch *b, int code, const char *words)
{
    for (size_t i = 0; i < b->count; i++) {
        int status = b->requests[i].status;
        if (status == WAITING || status == WAITING_AGAIN)
            finish(b, &b->requests[i], code, words);
    }
}

/* Settles the requests that have made helpers hang a short while ago. */
static void
refuse_quarantined(batch *b)
{
    ps_redo_pool *pool = b->pool;
    uint64_t now = ps_redo_now_ms();
    pthread_mutex_lock(&pool->mutex);
    for (size_t i = 0; pool->quarantine.empty_at_ms > now && i < b->count; i++) {
        ps_redo_request *request = &b->requests[i];
        uint64_t left = ps_redo_quarantine_left(&pool->quarantine, ps_redo_identity(request), now);
        char words[100];
        if (request->status != WAITING || left == 0)
            continue;
        snprintf(words, sizeof words, "it made helpers hang; it is tried again in %u s",
                 (unsigned)(left / 1000 + 1));
        finish(b, request, PS_ERR_REDO, words);
    }
    pthread_mutex_unlock(&pool->mutex);
}

static void
quarantine(ps_redo_pool *pool, const ps_redo_request *request)
{
    pthread_mutex_lock(&pool->mutex);
    ps_redo_quarantine_add(&pool->quarantine, ps_redo_identity(request), ps_redo_now_ms());
    pthread_mutex_unlock(&pool->mutex);
}

static void
receive(batch *b, ps_redo_lane *lane, int *rc)
{
    ps_redo_request *done[PS_REDO_WINDOW];
    uint32_t count;
    *rc = ps_redo_lane_receive(lane, done, &count);
    for (uint32_t i = 0; i < count; i++)
        finish(b, done[i], PS_OK, NULL);
}

/* Ends a lane's helper and sorts its requests into the failed, the suspect and the others. */
static void
bury(batch *b, ps_redo_lane *lane, int hung)
{
    const char *cause = hung ? "the helper gave no answer in time" : "the helper died";
    char words[PS_REDO_WORDS];
    char text[PS_REDO_WORDS + 80];
    int rc = PS_OK;
    kill(lane->helper.pid, SIGKILL);
    while (lane->count > 0 && rc == PS_OK) { /* answers that it gave before it died */
        struct pollfd wait = {.fd = lane->helper.from, .events = POLLIN};
        (void)poll(&wait, 1, -1);
        receive(b, lane, &rc);
    }
    ps_redo_helper_stop(&lane->helper, words);
    b->deaths++;
    snprintf(text, sizeof text, "%s, twice; %s", cause, words);
    for (uint32_t i = 0; i < lane->count; i++) {
        ps_redo_request *request = lane->flight[(lane->head + i) % PS_REDO_WINDOW];
        size_t index = (size_t)(request - b->requests);
        if (request->status == SENT_AGAIN && hung)
            quarantine(b->pool, request);
        if (request->status == SENT_AGAIN)
            finish(b, request, PS_ERR_REDO, text);
        else
            request->status = i < PS_REDO_ANSWERS_AT_ONCE ? WAITING_AGAIN : WAITING;
        if (index < b->cursor)
            b->cursor = index;
    }
    ps_redo_lane_clear(lane);
}

/* Takes waiting requests for a lane that has room; a suspect only for itself. */
static uint32_t
choose(batch *b, const ps_redo_lane *lane, ps_redo_request **taken)
{
    uint32_t count = 0;
    if (lane->count > 0 && lane->flight[lane->head]->status == SENT_AGAIN)
        return 0;
    while (b->cursor < b->count && count < TAKE_AT_ONCE && lane->count + count < PS_REDO_WINDOW) {
        ps_redo_request *request = &b->requests[b->cursor];
        if (request->status == WAITING_AGAIN) {
            if (lane->count + count > 0)
                break;
            b->cursor++;
            taken[count++] = request;
            break;
        }
        b->cursor++;
        if (request->status == WAITING)
            taken[count++] = request;
    }
    return count;
}

/* Puts waiting requests in flight and sends; starts the helper when it is not running. */
static void
feed(batch *b, ps_redo_lane *lane)
{
    ps_redo_request *taken[TAKE_AT_ONCE];
    ps_error err = {.text = ""};
    uint32_t count = choose(b, lane, taken);
    if (count == 0)
        return;
    if (lane->helper.pid == 0) {
        ps_redo_lane_silent_since(lane, ps_redo_now_ms());
        int rc = ps_redo_helper_start(&lane->helper, b->pool->options.start_ms, &err);
        if (rc != PS_OK) /* it may have been killed from outside */
            rc = ps_redo_helper_start(&lane->helper, b->pool->options.start_ms, &err);
        if (rc != PS_OK) {
            fail_waiting(b, PS_ERR_REDO, err.text);
            return;
        }
        b->started++;
    }
    if (ps_redo_lane_take(lane, taken, count) != PS_OK) {
        fail_waiting(b, PS_ERR_NOMEM, "out of memory");
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        taken[i]->status += SENT - WAITING;
    if (ps_redo_lane_send(lane) != PS_OK)
        bury(b, lane, 0);
}

/* Waits until a lane can go on, but no longer than the first deadline. */
static void
wait_for_lanes(const batch *b, struct pollfd *fds)
{
    uint64_t now = ps_redo_now_ms();
    uint64_t deadline = b->pool->options.deadline_ms;
    uint64_t patience = deadline;
    for (size_t i = 0; i < b->lane_count; i++) {
        const ps_redo_lane *lane = b->lanes[i];
        uint64_t silence = ps_redo_lane_silence(lane, now);
        fds[2 * i] = (struct pollfd){.fd = lane->count > 0 ? lane->helper.from : -1,
                                     .events = POLLIN};
        fds[2 * i + 1] = (struct pollfd){
            .fd = ps_redo_lane_has_output(lane) ? lane->helper.to : -1, .events = POLLOUT};
        if (lane->count > 0 && silence > deadline - patience)
            patience = silence < deadline ? deadline - silence : 0;
    }
    if (poll(fds, 2 * b->lane_count, (int)patience + 1) < 0)
        for (size_t i = 0; i < 2 * b->lane_count; i++)
            fds[i].revents = 0;
}

static void
serve_lane(batch *b, ps_redo_lane *lane, const struct pollfd *fds)
{
    int rc = PS_OK;
    if (lane->count == 0)
        return;
    if (fds[0].revents != 0)
        receive(b, lane, &rc);
    if (rc == PS_OK && fds[1].revents != 0)
        rc = ps_redo_lane_send(lane);
    if (rc != PS_OK)
        bury(b, lane, 0);
    else if (lane->count > 0 &&
             ps_redo_lane_silence(lane, ps_redo_now_ms()) > b->pool->options.deadline_ms)
        bury(b, lane, 1);
}

static void
drive(batch *b)
{
    struct pollfd fds[2 * MAX_HELPERS];
    while (b->unfinished > 0) {
        uint32_t in_flight = 0;
        for (size_t i = 0; i < b->lane_count; i++) {
            if (!ps_redo_lane_has_output(b->lanes[i]))
                feed(b, b->lanes[i]);
            in_flight += b->lanes[i]->count;
        }
        if (in_flight == 0)
            continue; /* the helpers died as they were fed, or could not be started */
        wait_for_lanes(b, fds);
        for (size_t i = 0; i < b->lane_count; i++)
            serve_lane(b, b->lanes[i], fds + 2 * i);
    }
}

static uint64_t
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int
ps_redo_apply(ps_redo_pool *pool, ps_redo_request *requests, size_t count, ps_error *err)
{
    batch b = {.pool = pool, .requests = requests, .count = count, .unfinished = count};
    uint64_t begun = now_ns();
    uint64_t pages = 0;
    uint64_t records = 0;
    prepare(&b);
    refuse_quarantined(&b);
    if (b.unfinished > 0) {
        if (lease(&b) == PS_OK)
            drive(&b);
        else
            fail_waiting(&b, PS_ERR_CLOSED, "the redo pool is closed");
        for (size_t i = 0; i < count; i++) {
            pages += requests[i].status == PS_OK;
            records += requests[i].status == PS_OK ? requests[i].count : 0;
        }
        give_back(&b, pages, records, now_ns() - begun);
    }
    if (b.first.code != PS_OK && err != NULL)
        *err = b.first;
    return b.first.code;
}
