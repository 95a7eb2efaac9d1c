/* One cached file: which of its chunks are there, and one fetch for all who wait for a chunk. */
#include "layer/cached.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "layer/patience.h"

/* Who reads on where somebody has read before gets so many chunks at once. */
#define CHUNKS_AHEAD 4u

ps_cached *
ps_cached_make(ps_remote *remote, const ps_layer_id *id, uint8_t kind, uint64_t size,
               const char *directory)
{
    static uint64_t next;
    size_t room = strlen(directory) + 32;
    ps_cached *made = calloc(1, sizeof *made);
    if (made == NULL)
        return NULL;
    made->chunks = (uint32_t)((size + PS_REMOTE_CHUNK_BYTES - 1) / PS_REMOTE_CHUNK_BYTES);
    made->path = malloc(room);
    made->states = calloc(made->chunks + 1, 1);
    if (made->path == NULL || made->states == NULL) {
        free(made->path);
        free(made->states);
        free(made);
        return NULL;
    }
    snprintf(made->path, room, "%s/%016llx", directory,
             (unsigned long long)__atomic_add_fetch(&next, 1, __ATOMIC_RELAXED));
    made->remote = remote;
    made->id = *id;
    made->kind = kind;
    made->size = size;
    made->fd = -1;
    pthread_mutex_init(&made->mutex, NULL);
    pthread_cond_init(&made->changed, NULL);
    return made;
}

/* Of one that nobody uses. */
void
ps_cached_free(ps_cached *cached)
{
    if (cached->fd >= 0)
        close(cached->fd);
    unlink(cached->path);
    pthread_cond_destroy(&cached->changed);
    pthread_mutex_destroy(&cached->mutex);
    free(cached->states);
    free(cached->path);
    free(cached);
}

int
ps_cached_fd(const ps_cached *cached)
{
    return cached->fd;
}

static void
clear(ps_cached *cached)
{
    memset(cached->states, PS_CHUNK_ABSENT, cached->chunks);
    ps_remote_shrunk(cached->remote, cached->bytes);
    cached->bytes = 0;
}

static int
open_locked(ps_cached *cached, ps_error *err)
{
    if (cached->fd >= 0)
        return PS_OK;
    int fd = open(cached->path, O_RDWR | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) { /* new, or removed by somebody: nothing of it is there */
        clear(cached);
        fd = open(cached->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    }
    if (fd >= 0 && ftruncate(fd, (off_t)cached->size) == 0) {
        cached->fd = fd;
        return PS_OK;
    }
    int rc = ps_fail(err, PS_ERR_IO, "%s: cannot be made: %s", cached->path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc;
}

int
ps_cached_open_file(ps_cached *cached, ps_error *err)
{
    pthread_mutex_lock(&cached->mutex);
    int rc = open_locked(cached, err);
    pthread_mutex_unlock(&cached->mutex);
    return rc;
}

void
ps_cached_close_file(ps_cached *cached)
{
    if (pthread_mutex_trylock(&cached->mutex) != 0)
        return; /* it is being emptied, which nobody is to wait for: it stays open */
    if (cached->fd >= 0)
        close(cached->fd);
    cached->fd = -1;
    pthread_mutex_unlock(&cached->mutex);
}

uint64_t
ps_cached_empty(ps_cached *cached)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&cached->mutex);
    int idle = cached->readers == 0 && cached->fetching == 0;
    if (idle && cached->fd < 0)
        idle = unlink(cached->path) == 0 || errno == ENOENT;
    else if (idle)
        idle = ftruncate(cached->fd, 0) == 0 && ftruncate(cached->fd, (off_t)cached->size) == 0;
    if (idle) {
        bytes = cached->bytes;
        clear(cached);
    }
    pthread_mutex_unlock(&cached->mutex);
    return bytes;
}

static uint64_t
chunk_begin(uint32_t chunk)
{
    return chunk * PS_REMOTE_CHUNK_BYTES;
}

static uint64_t
chunk_end(const ps_cached *cached, uint32_t chunk)
{
    uint64_t end = chunk_begin(chunk + 1);
    return end < cached->size ? end : cached->size;
}

static int
write_all(int fd, const uint8_t *from, size_t length, uint64_t offset)
{
    while (length > 0) {
        ssize_t put = pwrite(fd, from, length, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        from += put;
        length -= (size_t)put;
        offset += (uint64_t)put;
    }
    return 0;
}

/* Chunks [first, end) into the file; without the lock. */
static int
fetch(ps_cached *cached, uint32_t first, uint32_t end, ps_error *err)
{
    uint64_t offset = chunk_begin(first);
    size_t length = (size_t)(chunk_end(cached, end - 1) - offset);
    uint8_t *bytes = malloc(length);
    if (bytes == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "%s: out of memory for a range", cached->path);
    int rc = ps_remote_fetch(cached->remote, cached, offset, length, bytes, err);
    int failed = rc == PS_OK ? write_all(cached->fd, bytes, length, offset) : 0;
    if (failed && errno == ENOSPC) { /* a full disk stops nobody who reads */
        ps_remote_make_room(cached->remote, 1);
        failed = write_all(cached->fd, bytes, length, offset);
    }
    if (failed)
        rc = ps_fail(err, PS_ERR_IO, "%s: offset %llu: cannot write: %s", cached->path,
                     (unsigned long long)offset, strerror(errno));
    free(bytes);
    return rc;
}

/* Where what is fetched at once ends: all that is needed, and more for who reads in order. */
static uint32_t
flight_end(const ps_cached *cached, uint32_t first, uint32_t needed)
{
    int in_order = first > 0 && cached->states[first - 1] == PS_CHUNK_PRESENT;
    uint32_t most = in_order && first + CHUNKS_AHEAD > needed ? first + CHUNKS_AHEAD : needed;
    uint32_t end = first + 1;
    while (end < most && end < cached->chunks && cached->states[end] == PS_CHUNK_ABSENT)
        end++;
    return end;
}

static void
mark(ps_cached *cached, uint32_t first, uint32_t end, enum ps_chunk_state state)
{
    memset(cached->states + first, state, end - first);
}

/* With the lock, which it lets go of meanwhile. */
static int
fly(ps_cached *cached, uint32_t first, uint32_t needed, ps_error *err)
{
    uint32_t end = flight_end(cached, first, needed);
    uint64_t bytes = chunk_end(cached, end - 1) - chunk_begin(first);
    ps_error failure = {0};
    mark(cached, first, end, PS_CHUNK_FETCHED);
    cached->fetching++;
    pthread_mutex_unlock(&cached->mutex);
    int rc = fetch(cached, first, end, &failure);
    pthread_mutex_lock(&cached->mutex);
    cached->fetching--;
    mark(cached, first, end, rc == PS_OK ? PS_CHUNK_PRESENT : PS_CHUNK_ABSENT);
    if (rc == PS_OK) {
        cached->bytes += bytes;
        ps_remote_grown(cached->remote, bytes);
    } else {
        cached->failures++;
        cached->failure = failure;
        ps_fail(err, rc, "%s", failure.text);
    }
    pthread_cond_broadcast(&cached->changed);
    return rc;
}

/* Waits for whoever fetches it. What fails for one has failed for all who waited: else each
 * would try in turn, and the last be told after as many times as long. */
static int
await(ps_cached *cached, uint32_t chunk, ps_error *err)
{
    uint64_t failures = cached->failures;
    while (cached->states[chunk] == PS_CHUNK_FETCHED)
        pthread_cond_wait(&cached->changed, &cached->mutex);
    if (cached->states[chunk] == PS_CHUNK_PRESENT || cached->failures == failures)
        return PS_OK;
    return ps_fail(err, cached->failure.code, "%s", cached->failure.text);
}

static uint64_t
coarse_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int
ps_cached_enter(ps_cached *cached, uint64_t offset, uint64_t length, ps_error *err)
{
    uint32_t at = (uint32_t)(offset / PS_REMOTE_CHUNK_BYTES);
    uint32_t end = (uint32_t)((offset + length + PS_REMOTE_CHUNK_BYTES - 1) /
                              PS_REMOTE_CHUNK_BYTES);
    int rc = PS_OK;
    if (end > cached->chunks) /* as of a file that is too short */
        return ps_fail(err, PS_ERR_CORRUPT, "%s: offset %llu: the file ends here", cached->path,
                       (unsigned long long)cached->size);
    pthread_mutex_lock(&cached->mutex);
    cached->readers++; /* what is there of it stays while the rest is fetched */
    __atomic_store_n(&cached->used, coarse_now(), __ATOMIC_RELAXED);
    while (rc == PS_OK && at < end) {
        if (cached->states[at] == PS_CHUNK_PRESENT)
            at++;
        else if (!ps_patience_allows_files())
            rc = ps_fail(err, PS_ERR_WOULD_WAIT, "%s is to be fetched", cached->path);
        else if (cached->states[at] == PS_CHUNK_FETCHED)
            rc = await(cached, at, err);
        else
            rc = fly(cached, at, end, err);
    }
    if (rc < 0)
        cached->readers--;
    pthread_mutex_unlock(&cached->mutex);
    return rc;
}

void
ps_cached_leave(ps_cached *cached)
{
    pthread_mutex_lock(&cached->mutex);
    int idle = --cached->readers == 0;
    pthread_mutex_unlock(&cached->mutex);
    if (idle) /* now it may be emptied, too */
        ps_remote_make_room(cached->remote, 0);
}

void
ps_cached_spoil(ps_cached *cached, uint64_t offset, uint64_t length)
{
    uint32_t end = (uint32_t)((offset + length + PS_REMOTE_CHUNK_BYTES - 1) /
                              PS_REMOTE_CHUNK_BYTES);
    pthread_mutex_lock(&cached->mutex);
    for (uint32_t at = (uint32_t)(offset / PS_REMOTE_CHUNK_BYTES); at < end && at < cached->chunks;
         at++) {
        if (cached->states[at] != PS_CHUNK_PRESENT)
            continue;
        uint64_t bytes = chunk_end(cached, at) - chunk_begin(at);
        cached->states[at] = PS_CHUNK_ABSENT;
        cached->bytes -= bytes;
        ps_remote_shrunk(cached->remote, bytes);
    }
    pthread_mutex_unlock(&cached->mutex);
}
