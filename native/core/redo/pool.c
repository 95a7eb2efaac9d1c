/* The pool: leases helpers to batches. */
#include "redo/pool.h"

#include <string.h>
#include <time.h>

/* A helper that was silent for so long may be hung: others need not wait for it. */
#define SILENT_MS 250u

int
ps_redo_pool_open(ps_redo_pool **pool, const char *const *argv, const char *const *dirs,
                  const ps_redo_options *options, ps_error *err)
{
    *pool = NULL;
    if (options->size == 0 || options->size > options->dirs ||
        options->dirs > PS_REDO_MAX_HELPERS || argv[0] == NULL ||
        options->deadline_ms == 0 || options->start_ms == 0)
        return ps_fail(err, PS_ERR_INVALID,
                       "a redo pool has 1 to %u helpers, a directory for each, and deadlines",
                       PS_REDO_MAX_HELPERS);
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

/* The lock is not held while processes end: an event loop may want it. */
void
ps_redo_pool_stop_idle(ps_redo_pool *pool, uint64_t idle_ms)
{
    for (size_t i = 0; i < pool->size; i++) {
        ps_redo_helper *helper = &pool->lanes[i].helper;
        pthread_mutex_lock(&pool->mutex);
        uint64_t now = ps_redo_now_ms();
        int idle = !helper->leased && helper->pid > 0 && now - helper->used_ms >= idle_ms;
        if (idle)
            helper->leased = 1;
        pthread_mutex_unlock(&pool->mutex);
        if (!idle)
            continue;
        ps_redo_helper_stop(helper, NULL);
        pthread_mutex_lock(&pool->mutex);
        helper->leased = 0;
        pthread_cond_broadcast(&pool->freed);
        pthread_mutex_unlock(&pool->mutex);
    }
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
take_lane(ps_redo_pool *pool, int running)
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
    if (found == NULL || working >= pool->options.size || (running && found->helper.pid == 0))
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

static size_t
take_lanes(ps_redo_pool *pool, ps_redo_lane *first, ps_redo_lane **lanes, size_t wanted,
           int running)
{
    size_t count = 0;
    for (ps_redo_lane *lane = first; lane != NULL;) {
        lanes[count++] = lane;
        lane = count < wanted ? take_lane(pool, running) : NULL;
    }
    return count;
}

size_t
ps_redo_pool_lease(ps_redo_pool *pool, ps_redo_lane **lanes, size_t wanted)
{
    ps_redo_lane *lane = NULL;
    pthread_mutex_lock(&pool->mutex);
    while (!pool->closed && (lane = take_lane(pool, 0)) == NULL)
        wait_for_lane(pool);
    size_t count = take_lanes(pool, lane, lanes, wanted, 0);
    pthread_mutex_unlock(&pool->mutex);
    return count;
}

size_t
ps_redo_pool_lease_running(ps_redo_pool *pool, ps_redo_lane **lanes, size_t wanted)
{
    pthread_mutex_lock(&pool->mutex);
    ps_redo_lane *lane = pool->closed ? NULL : take_lane(pool, 1);
    size_t count = take_lanes(pool, lane, lanes, wanted, 1);
    pthread_mutex_unlock(&pool->mutex);
    return count;
}

void
ps_redo_pool_give_back(ps_redo_pool *pool, ps_redo_lane *const *lanes, size_t count,
                       const ps_redo_stats *done)
{
    uint64_t now = ps_redo_now_ms();
    pthread_mutex_lock(&pool->mutex);
    for (size_t i = 0; i < count; i++) {
        ps_redo_lane_clear(lanes[i]);
        lanes[i]->helper.leased = 0;
        lanes[i]->helper.used_ms = now;
    }
    pool->stats.pages += done->pages;
    pool->stats.records += done->records;
    pool->stats.busy_ns += done->busy_ns;
    pool->stats.started += done->started;
    pool->stats.deaths += done->deaths;
    pthread_cond_broadcast(&pool->freed);
    pthread_mutex_unlock(&pool->mutex);
}
