#include "store/timeline.h"

#include <pthread.h>
#include <stdlib.h>

struct ps_timeline {
    unsigned refs;
    pthread_mutex_t mutex; /* held for a few loads and stores */
    ps_timeline_state state;
    ps_snapshot *snapshot;
};

ps_timeline *
ps_timeline_make(const ps_timeline_state *state)
{
    ps_timeline *made = calloc(1, sizeof *made);
    if (made == NULL)
        return NULL;
    made->refs = 1;
    made->state = *state;
    pthread_mutex_init(&made->mutex, NULL);
    return made;
}

ps_timeline *
ps_timeline_retain(ps_timeline *timeline)
{
    __atomic_add_fetch(&timeline->refs, 1, __ATOMIC_RELAXED);
    return timeline;
}

void
ps_timeline_release(ps_timeline *timeline)
{
    if (timeline == NULL || __atomic_sub_fetch(&timeline->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    ps_snapshot_release(timeline->snapshot);
    pthread_mutex_destroy(&timeline->mutex);
    free(timeline);
}

void
ps_timeline_move(ps_timeline *timeline, uint64_t last_record_lsn, uint64_t prev_record_lsn)
{
    pthread_mutex_lock(&timeline->mutex);
    timeline->state.last_record_lsn = last_record_lsn;
    timeline->state.prev_record_lsn = prev_record_lsn;
    pthread_mutex_unlock(&timeline->mutex);
}

void
ps_timeline_keep(ps_timeline *timeline, uint64_t horizon)
{
    pthread_mutex_lock(&timeline->mutex);
    timeline->state.horizon = horizon;
    pthread_mutex_unlock(&timeline->mutex);
}

void
ps_timeline_publish(ps_timeline *timeline, const ps_snapshot *snapshot)
{
    ps_snapshot *kept = snapshot == NULL ? NULL : ps_snapshot_retain(snapshot);
    pthread_mutex_lock(&timeline->mutex);
    ps_snapshot *before = timeline->snapshot;
    timeline->snapshot = kept;
    pthread_mutex_unlock(&timeline->mutex);
    ps_snapshot_release(before); /* its files may go with it, which takes a while */
}

ps_timeline_state
ps_timeline_read(ps_timeline *timeline, ps_snapshot **snapshot)
{
    pthread_mutex_lock(&timeline->mutex);
    ps_timeline_state state = timeline->state;
    *snapshot = timeline->snapshot == NULL ? NULL : ps_snapshot_retain(timeline->snapshot);
    pthread_mutex_unlock(&timeline->mutex);
    return state;
}
