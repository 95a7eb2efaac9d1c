/* Inside of the pool: its lanes, and how a batch (batch.c) leases some of them. */
#ifndef PS_REDO_POOL_H
#define PS_REDO_POOL_H

#include <pthread.h>

#include "redo/lane.h"
#include "redo/quarantine.h"
#include "redo/redo.h"

#define PS_REDO_MAX_HELPERS 64u

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

/* Waits for one lane, and takes up to `wanted` that are free. How many; 0 when it is closed. */
size_t ps_redo_pool_lease(ps_redo_pool *pool, ps_redo_lane **lanes, size_t wanted);
/* The same without waiting, for a helper to start neither. 0 when none is free and running. */
size_t ps_redo_pool_lease_running(ps_redo_pool *pool, ps_redo_lane **lanes, size_t wanted);
/* `done` is added to the pool's counts; `running` of it counts nothing. */
void ps_redo_pool_give_back(ps_redo_pool *pool, ps_redo_lane *const *lanes, size_t count,
                            const ps_redo_stats *done);

#endif
