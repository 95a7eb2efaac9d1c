/* How one thread holds up, or ends, the work of another. */
#ifndef PS_STORE_PACE_H
#define PS_STORE_PACE_H

#include <time.h>

#include "status.h"

typedef struct ps_pace {
    int paused;
    int cancelled;
} ps_pace;

static inline void
ps_pace_pause(ps_pace *pace, int paused)
{
    __atomic_store_n(&pace->paused, paused, __ATOMIC_RELAXED);
}

static inline void
ps_pace_cancel(ps_pace *pace)
{
    __atomic_store_n(&pace->cancelled, 1, __ATOMIC_RELAXED);
}

/* Waits while it is paused. PS_ERR_CLOSED if it is cancelled. */
static inline int
ps_pace_go_on(const ps_pace *pace, ps_error *err)
{
    const struct timespec two_ms = {.tv_nsec = 2000000};
    while (!__atomic_load_n(&pace->cancelled, __ATOMIC_RELAXED)) {
        if (!__atomic_load_n(&pace->paused, __ATOMIC_RELAXED))
            return PS_OK;
        nanosleep(&two_ms, NULL);
    }
    return ps_fail(err, PS_ERR_CLOSED, "the work was cancelled");
}

#endif
