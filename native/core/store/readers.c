#include "store/readers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { QUEUES = PS_PAGES_DONE }; /* one for each step that waits */

typedef struct queue {
    ps_readers *readers;
    ps_pages_job *first;
    ps_pages_job **end;
    size_t length;
    unsigned idle; /* threads that wait for a job */
    unsigned started;
    unsigned most;
    pthread_cond_t filled;
    pthread_t *threads;
} queue;

struct ps_readers {
    pthread_mutex_t mutex;
    int wake;
    int closed;
    ps_pages_job *done;
    ps_pages_job **done_end;
    queue queues[QUEUES];
};

static void
append(queue *q, ps_pages_job *job)
{
    job->next = NULL;
    *q->end = job;
    q->end = &job->next;
    q->length++;
}

static ps_pages_job *
remove_at(queue *q, ps_pages_job **at)
{
    ps_pages_job *job = *at;
    *at = job->next;
    if (job->next == NULL)
        q->end = at;
    q->length--;
    return job;
}

/* The first of those that wait to be taken wakes the loop, which then takes them all. */
static void
complete(ps_readers *readers, ps_pages_job *job)
{
    const uint64_t one = 1;
    int first = readers->done == NULL;
    job->next = NULL;
    *readers->done_end = job;
    readers->done_end = &job->next;
    if (first)
        (void)!write(readers->wake, &one, sizeof one);
}

static void *work(void *arg);

/* The threads leave signals to the others of the process. An error of errno, or 0. */
static int
start_thread(queue *q)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&q->threads[q->started], NULL, work, q);
    q->started += error == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

/* Under the lock, as all above. If no thread more can be had, those that there are do it. */
static void
enqueue(ps_readers *readers, ps_pages_job *job)
{
    queue *q = &readers->queues[job->step];
    append(q, job);
    /* Threads that were signalled count as idle until they have the lock, and each has one of the
     * waiting jobs to take: so one is free only where there are as many as jobs. */
    if (q->idle >= q->length)
        pthread_cond_signal(&q->filled);
    else if (q->started < q->most)
        (void)start_thread(q);
}

static void *
work(void *arg)
{
    queue *q = arg;
    ps_readers *readers = q->readers;
    pthread_mutex_lock(&readers->mutex);
    for (;;) {
        while (q->first == NULL && !readers->closed) {
            q->idle++;
            pthread_cond_wait(&q->filled, &readers->mutex);
            q->idle--;
        }
        if (q->first == NULL)
            break;
        ps_pages_job *job = remove_at(q, &q->first);
        pthread_mutex_unlock(&readers->mutex);
        ps_pages_continue(job);
        pthread_mutex_lock(&readers->mutex);
        if (job->step != PS_PAGES_DONE && readers->closed) /* nobody will come for it */
            ps_pages_abandon(job);
        if (job->step == PS_PAGES_DONE)
            complete(readers, job);
        else
            enqueue(readers, job);
    }
    pthread_mutex_unlock(&readers->mutex);
    return NULL;
}

/* Each queue has one thread from the beginning, so that there always is one. */
static int
open_queue(ps_readers *readers, queue *q, unsigned most)
{
    *q = (queue){.readers = readers, .most = most, .end = &q->first};
    pthread_cond_init(&q->filled, NULL);
    q->threads = calloc(most, sizeof *q->threads);
    return q->threads == NULL ? ENOMEM : start_thread(q);
}

ps_readers *
ps_readers_open(unsigned files, unsigned helpers, ps_error *err)
{
    const unsigned most[QUEUES] = {files, helpers, helpers};
    ps_readers *readers = calloc(1, sizeof *readers);
    if (readers == NULL) {
        ps_fail(err, PS_ERR_NOMEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&readers->mutex, NULL);
    readers->done_end = &readers->done;
    readers->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int error = readers->wake < 0 ? errno : 0;
    for (size_t i = 0; i < QUEUES; i++) {
        int failed = open_queue(readers, &readers->queues[i], most[i]);
        error = error != 0 ? error : failed;
    }
    if (error == 0)
        return readers;
    ps_fail(err, error == ENOMEM ? PS_ERR_NOMEM : PS_ERR_IO, "no threads that read: %s",
            strerror(error));
    ps_readers_close(readers);
    ps_readers_free(readers);
    return NULL;
}

static void
abandon_waiting(ps_readers *readers, queue *q)
{
    while (q->first != NULL) {
        ps_pages_job *job = remove_at(q, &q->first);
        ps_pages_abandon(job);
        complete(readers, job);
    }
}

void
ps_readers_close(ps_readers *readers)
{
    pthread_mutex_lock(&readers->mutex);
    readers->closed = 1;
    /* Not what a helper has begun: its answer goes into the job's memory. */
    abandon_waiting(readers, &readers->queues[PS_PAGES_FILES]);
    abandon_waiting(readers, &readers->queues[PS_PAGES_REDO]);
    for (size_t i = 0; i < QUEUES; i++)
        pthread_cond_broadcast(&readers->queues[i].filled);
    pthread_mutex_unlock(&readers->mutex);
    for (size_t i = 0; i < QUEUES; i++) {
        queue *q = &readers->queues[i];
        for (unsigned t = 0; t < q->started; t++)
            pthread_join(q->threads[t], NULL);
        q->started = 0;
    }
}

void
ps_readers_free(ps_readers *readers)
{
    for (size_t i = 0; i < QUEUES; i++) {
        pthread_cond_destroy(&readers->queues[i].filled);
        free(readers->queues[i].threads);
    }
    if (readers->wake >= 0)
        close(readers->wake);
    pthread_mutex_destroy(&readers->mutex);
    free(readers);
}

int
ps_readers_fd(const ps_readers *readers)
{
    return readers->wake;
}

void
ps_readers_submit(ps_readers *readers, ps_pages_job *job)
{
    pthread_mutex_lock(&readers->mutex);
    if (readers->closed && job->step != PS_PAGES_REDO_BEGUN) {
        ps_pages_abandon(job);
        complete(readers, job);
    } else {
        enqueue(readers, job);
    }
    pthread_mutex_unlock(&readers->mutex);
}

void
ps_readers_cancel(ps_readers *readers, const ps_pages_job *job)
{
    pthread_mutex_lock(&readers->mutex);
    for (size_t i = 0; i < PS_PAGES_REDO_BEGUN; i++) { /* what is begun ends by itself */
        queue *q = &readers->queues[i];
        for (ps_pages_job **at = &q->first; *at != NULL; at = &(*at)->next) {
            if (*at != job)
                continue;
            ps_pages_job *found = remove_at(q, at);
            ps_pages_abandon(found);
            complete(readers, found);
            break;
        }
    }
    pthread_mutex_unlock(&readers->mutex);
}

ps_pages_job *
ps_readers_take(ps_readers *readers)
{
    uint64_t count;
    pthread_mutex_lock(&readers->mutex);
    ps_pages_job *done = readers->done;
    readers->done = NULL;
    readers->done_end = &readers->done;
    if (done != NULL)
        (void)!read(readers->wake, &count, sizeof count);
    pthread_mutex_unlock(&readers->mutex);
    return done;
}
