/* Which layers have a cached file, and that these are within their limit together. */
#include "layer/remote.h"

#include <stdlib.h>

#include "layer/cached.h"

enum { BUCKETS = 4096 };

struct ps_remote {
    unsigned refs;
    char *directory;
    ps_remote_hooks hooks;
    uint64_t limit;
    ps_remote_stats stats; /* each by itself, atomically */
    pthread_mutex_t lock;
    size_t count;
    ps_cached *buckets[BUCKETS];
};

int
ps_remote_make(ps_remote **remote, const char *directory, uint64_t limit,
               const ps_remote_hooks *hooks, ps_error *err)
{
    ps_remote *made = calloc(1, sizeof *made);
    char *copy = strdup(directory);
    *remote = NULL;
    if (made == NULL || copy == NULL) {
        free(made);
        free(copy);
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for remote layers");
    }
    made->refs = 1;
    made->directory = copy;
    made->hooks = *hooks;
    made->limit = limit;
    pthread_mutex_init(&made->lock, NULL);
    *remote = made;
    return PS_OK;
}

ps_remote *
ps_remote_retain(ps_remote *remote)
{
    __atomic_add_fetch(&remote->refs, 1, __ATOMIC_RELAXED);
    return remote;
}

/* Who has a file open has a reference, so none is open. */
void
ps_remote_release(ps_remote *remote)
{
    if (remote == NULL || __atomic_sub_fetch(&remote->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; i < BUCKETS; i++) {
        while (remote->buckets[i] != NULL) {
            ps_cached *first = remote->buckets[i];
            remote->buckets[i] = first->next;
            ps_cached_free(first);
        }
    }
    remote->hooks.release(remote->hooks.arg);
    pthread_mutex_destroy(&remote->lock);
    free(remote->directory);
    free(remote);
}

static void
count(uint64_t *which, uint64_t more)
{
    __atomic_add_fetch(which, more, __ATOMIC_RELAXED);
}

int
ps_remote_fetch(ps_remote *remote, const ps_cached *cached, uint64_t offset, size_t length,
                uint8_t *out, ps_error *err)
{
    int rc = remote->hooks.fetch(remote->hooks.arg, &cached->id, cached->kind, offset, length, out,
                                 err);
    count(&remote->stats.fetches, 1);
    count(rc == PS_OK ? &remote->stats.fetched_bytes : &remote->stats.failures,
          rc == PS_OK ? length : 1);
    return rc;
}

int
ps_remote_damaged(ps_remote *remote, const ps_layer_id *id, uint8_t kind, const char *what)
{
    return remote->hooks.damaged(remote->hooks.arg, id, kind, what);
}

static ps_cached **
place_of(ps_remote *remote, const ps_layer_id *id)
{
    uint64_t hash = id->number;
    for (size_t i = 0; i < 16; i++)
        hash = (hash ^ id->timeline[i]) * 1099511628211u;
    ps_cached **at = &remote->buckets[(hash >> 20) % BUCKETS];
    while (*at != NULL && ((*at)->id.number != id->number ||
                           memcmp((*at)->id.timeline, id->timeline, 16) != 0 ||
                           memcmp((*at)->id.tenant, id->tenant, 16) != 0))
        at = &(*at)->next;
    return at;
}

int
ps_cached_open(ps_cached **cached, ps_remote *remote, const ps_layer_id *id, uint8_t kind,
               uint64_t size, ps_error *err)
{
    pthread_mutex_lock(&remote->lock);
    ps_cached **at = place_of(remote, id);
    if (*at == NULL) {
        *at = ps_cached_make(remote, id, kind, size, remote->directory);
        remote->count += *at != NULL;
    }
    ps_cached *found = *at;
    if (found != NULL)
        found->users++;
    pthread_mutex_unlock(&remote->lock);
    *cached = NULL;
    if (found == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a cached file");
    ps_remote_retain(remote);
    int rc = ps_cached_open_file(found, err);
    if (rc < 0)
        ps_cached_close(found);
    else
        *cached = found;
    return rc;
}

/* With the lock. */
static void
leave(ps_remote *remote, ps_cached *cached)
{
    if (--cached->users > 0)
        return;
    ps_cached_close_file(cached);
    if (!cached->forgotten)
        return;
    ps_remote_shrunk(remote, cached->bytes);
    ps_cached_free(cached);
}

void
ps_cached_close(ps_cached *cached)
{
    ps_remote *remote = cached->remote;
    pthread_mutex_lock(&remote->lock);
    leave(remote, cached);
    pthread_mutex_unlock(&remote->lock);
    ps_remote_release(remote);
}

void
ps_remote_forget(ps_remote *remote, const ps_layer_id *id)
{
    pthread_mutex_lock(&remote->lock);
    ps_cached **at = place_of(remote, id);
    ps_cached *found = *at;
    if (found != NULL) {
        *at = found->next;
        remote->count--;
        found->forgotten = 1;
        found->users++;
        leave(remote, found);
    }
    pthread_mutex_unlock(&remote->lock);
}

typedef struct candidate {
    uint64_t used;
    ps_cached *file;
} candidate;

static int
by_use(const void *a, const void *b)
{
    uint64_t left = ((const candidate *)a)->used, right = ((const candidate *)b)->used;
    return left < right ? -1 : left > right;
}

/* All cached files, those read least recently first, as of who uses them; NULL out of memory. */
static candidate *
candidates(ps_remote *remote, size_t *found)
{
    pthread_mutex_lock(&remote->lock);
    candidate *all = malloc((remote->count + 1) * sizeof *all);
    *found = 0;
    for (size_t i = 0; all != NULL && i < BUCKETS; i++) {
        for (ps_cached *at = remote->buckets[i]; at != NULL; at = at->next) {
            at->users++;
            all[(*found)++] =
                (candidate){.used = __atomic_load_n(&at->used, __ATOMIC_RELAXED), .file = at};
        }
    }
    pthread_mutex_unlock(&remote->lock);
    if (all != NULL)
        qsort(all, *found, sizeof *all, by_use);
    return all;
}

static uint64_t
bytes_now(const ps_remote *remote)
{
    return __atomic_load_n(&remote->stats.cached_bytes, __ATOMIC_RELAXED);
}

/* A little below the limit, so that not every fetch makes room anew. To empty a large file takes
 * its time, and is done without the lock. */
static void
shrink(ps_remote *remote, uint64_t limit)
{
    size_t found = 0;
    if (bytes_now(remote) <= limit)
        return;
    candidate *all = candidates(remote, &found);
    for (size_t i = 0; i < found && bytes_now(remote) > limit - limit / 8; i++)
        count(&remote->stats.emptied_bytes, ps_cached_empty(all[i].file));
    pthread_mutex_lock(&remote->lock);
    for (size_t i = 0; i < found; i++)
        leave(remote, all[i].file);
    pthread_mutex_unlock(&remote->lock);
    free(all);
}

void
ps_remote_make_room(ps_remote *remote, int all)
{
    shrink(remote, all ? 0 : __atomic_load_n(&remote->limit, __ATOMIC_RELAXED));
}

void
ps_remote_grown(ps_remote *remote, uint64_t bytes)
{
    count(&remote->stats.cached_bytes, bytes);
}

void
ps_remote_shrunk(ps_remote *remote, uint64_t bytes)
{
    __atomic_sub_fetch(&remote->stats.cached_bytes, bytes, __ATOMIC_RELAXED);
}

void
ps_remote_limit(ps_remote *remote, uint64_t limit)
{
    __atomic_store_n(&remote->limit, limit, __ATOMIC_RELAXED);
    ps_remote_make_room(remote, 0);
}

ps_remote_stats
ps_remote_read_stats(ps_remote *remote)
{
    ps_remote_stats stats = remote->stats;
    pthread_mutex_lock(&remote->lock);
    for (size_t i = 0; i < BUCKETS; i++)
        for (ps_cached *at = remote->buckets[i]; at != NULL; at = at->next) {
            uint64_t used = __atomic_load_n(&at->used, __ATOMIC_RELAXED) / 1000000000u;
            if (__atomic_load_n(&at->bytes, __ATOMIC_RELAXED) > 0 &&
                (stats.oldest == 0 || used < stats.oldest))
                stats.oldest = used;
        }
    pthread_mutex_unlock(&remote->lock);
    return stats;
}
