/*
 * A batch: the requests of one call, driven over the helpers leased to it.
 *
 * One thread drives all lanes of its batch with poll. A request's `status` doubles as its
 * state while the call runs: waiting or sent, for the first time or again. When a helper dies,
 * the oldest few requests in flight are suspects: the one it was working on, and those whose
 * answers it held back. Suspects are sent again, each alone on its lane, so that a second
 * death has one possible culprit; those behind them wait as before. So one bad record costs
 * its own page and nobody else's.
 *
 * An event loop may begin a batch, for most are done within some ten microseconds, sooner than a
 * thread would wake. It is *hasty*: it takes only helpers that run and are free, and stops at its
 * time's end and before whatever takes longer (a death to be looked into, a helper to be started,
 * much to be copied). A thread then goes on with the same batch from where it is.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "redo/pool.h"

/* A helper more for each so many requests, when one is free. */
#define REQUESTS_PER_LANE 16u
/* A longer chain is sent in parts, the page of one being the base of the next. */
#define PART_BYTES (8u << 20)
/* Encoded at once: enough to keep a helper busy, little enough to begin soon. */
#define TAKE_AT_ONCE 8u
/* What the hasty begin at most, on the wire: it is copied twice. */
#define HASTY_BYTES (1u << 20)

/* States above PS_OK, never seen by callers. */
enum { WAITING = 1, WAITING_AGAIN, SENT, SENT_AGAIN };

typedef struct ps_redo_batch {
    ps_redo_pool *pool;
    ps_redo_request *requests;
    size_t count;
    size_t cursor; /* no request before it is waiting */
    size_t unfinished;
    size_t lane_count;
    ps_redo_lane *lanes[PS_REDO_MAX_HELPERS]; /* leased from the pool */
    uint64_t begun_ns;
    uint64_t hasty_until_ns; /* 0: not hasty */
    uint64_t started;
    uint64_t deaths;
    ps_error first; /* the first failure; code PS_OK when there is none */
} batch;

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
bury(batch *b, ps_redo_lane *lane)
{
    int hung = lane->fate == PS_REDO_HUNG;
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
            /* It may hold back so many answers: any of these may be what it died of. */
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
        lane->fate = PS_REDO_DEAD;
}

static uint64_t
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Waits until a lane can go on, but no longer than the first deadline. 0 when the hasty have no
 * time left. */
static int
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
    uint64_t wait = (patience + 1) * 1000000;
    if (b->hasty_until_ns != 0) {
        uint64_t so_far = now_ns();
        if (so_far >= b->hasty_until_ns)
            return 0;
        wait = b->hasty_until_ns - so_far;
    }
    struct timespec until = {.tv_sec = (time_t)(wait / 1000000000),
                             .tv_nsec = (long)(wait % 1000000000)};
    if (ppoll(fds, 2 * b->lane_count, &until, NULL) < 0)
        for (size_t i = 0; i < 2 * b->lane_count; i++)
            fds[i].revents = 0;
    return 1;
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
        lane->fate = PS_REDO_DEAD;
    else if (lane->count > 0 &&
             ps_redo_lane_silence(lane, ps_redo_now_ms()) > b->pool->options.deadline_ms)
        lane->fate = PS_REDO_HUNG;
}

/* 1 when all is done; 0 when the hasty must leave the rest to a thread. */
static int
drive(batch *b)
{
    struct pollfd fds[2 * PS_REDO_MAX_HELPERS];
    while (b->unfinished > 0) {
        uint32_t in_flight = 0;
        int lost = 0;
        for (size_t i = 0; i < b->lane_count; i++) {
            ps_redo_lane *lane = b->lanes[i];
            if (lane->fate != PS_REDO_ALIVE && b->hasty_until_ns != 0)
                return 0;
            if (lane->fate != PS_REDO_ALIVE)
                bury(b, lane);
            if (!ps_redo_lane_has_output(lane))
                feed(b, lane);
            in_flight += lane->count;
            lost |= lane->fate != PS_REDO_ALIVE;
        }
        if (lost || in_flight == 0)
            continue; /* helpers died as they were fed, or could not be started */
        if (!wait_for_lanes(b, fds))
            return 0;
        for (size_t i = 0; i < b->lane_count; i++)
            serve_lane(b, b->lanes[i], fds + 2 * i);
    }
    return 1;
}

static int
end(batch *b, ps_error *err)
{
    ps_redo_stats done = {
        .started = b->started, .deaths = b->deaths, .busy_ns = now_ns() - b->begun_ns};
    for (size_t i = 0; i < b->count; i++) {
        int made = b->requests[i].status == PS_OK;
        done.pages += made;
        done.records += made ? b->requests[i].count : 0;
    }
    if (b->lane_count > 0)
        ps_redo_pool_give_back(b->pool, b->lanes, b->lane_count, &done);
    if (b->first.code != PS_OK && err != NULL)
        *err = b->first;
    return b->first.code;
}

int
ps_redo_apply(ps_redo_pool *pool, ps_redo_request *requests, size_t count, ps_error *err)
{
    batch b = {.pool = pool,
               .requests = requests,
               .count = count,
               .unfinished = count,
               .begun_ns = now_ns()};
    prepare(&b);
    refuse_quarantined(&b);
    if (b.unfinished > 0) {
        b.lane_count = ps_redo_pool_lease(pool, b.lanes, 1 + count / REQUESTS_PER_LANE);
        if (b.lane_count > 0)
            drive(&b);
        else
            fail_waiting(&b, PS_ERR_CLOSED, "the redo pool is closed");
    }
    return end(&b, err);
}

int
ps_redo_begin(ps_redo_pool *pool, ps_redo_request *requests, size_t count, uint64_t wait_ns,
              ps_redo_batch **begun, ps_error *err)
{
    uint64_t bytes = 0;
    *begun = NULL;
    for (size_t i = 0; i < count; i++)
        bytes += ps_redo_wire_length(&requests[i]);
    batch *b = bytes > HASTY_BYTES ? NULL : calloc(1, sizeof *b);
    if (b == NULL)
        return PS_ERR_WOULD_WAIT;
    *b = (batch){.pool = pool,
                 .requests = requests,
                 .count = count,
                 .unfinished = count,
                 .begun_ns = now_ns()};
    b->lane_count = ps_redo_pool_lease_running(pool, b->lanes, 1 + count / REQUESTS_PER_LANE);
    if (b->lane_count == 0) {
        free(b);
        return PS_ERR_WOULD_WAIT;
    }
    b->hasty_until_ns = b->begun_ns + wait_ns;
    prepare(b);
    refuse_quarantined(b);
    if (!drive(b)) {
        *begun = b;
        return PS_ERR_WOULD_WAIT;
    }
    int rc = end(b, err);
    free(b);
    return rc;
}

int
ps_redo_finish(ps_redo_batch *b, ps_error *err)
{
    b->hasty_until_ns = 0;
    drive(b);
    int rc = end(b, err);
    free(b);
    return rc;
}
