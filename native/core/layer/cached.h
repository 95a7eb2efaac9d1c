/* Inside of what was fetched: what remote.c (which files, their limit) and cached.c (which chunks
 * of one) share. Locks, in the order in which they are taken: the remote's, a file's. */
#ifndef PS_LAYER_CACHED_H
#define PS_LAYER_CACHED_H

#include <pthread.h>

#include "layer/remote.h"

enum ps_chunk_state { PS_CHUNK_ABSENT, PS_CHUNK_FETCHED, PS_CHUNK_PRESENT };

struct ps_cached {
    ps_remote *remote;
    ps_layer_id id;
    uint8_t kind;
    uint64_t size;
    uint32_t chunks;
    char *path;

    /* Guarded by the remote's lock. */
    ps_cached *next; /* in its bucket */
    unsigned users; /* who have it open, or are about to empty it */
    int forgotten;  /* in no bucket: it goes with its last user */

    pthread_mutex_t mutex; /* what follows */
    pthread_cond_t changed;
    int fd; /* -1 unless somebody uses it */
    unsigned readers; /* that rely on chunks; none is emptied under them */
    unsigned fetching;
    uint64_t used; /* coarse nanoseconds */
    uint64_t bytes;
    uint64_t failures;
    ps_error failure; /* the last */
    uint8_t *states;
};

ps_cached *ps_cached_make(ps_remote *remote, const ps_layer_id *id, uint8_t kind, uint64_t size,
                          const char *directory);
void ps_cached_free(ps_cached *cached);
int ps_cached_open_file(ps_cached *cached, ps_error *err);
void ps_cached_close_file(ps_cached *cached);
/* Lets go of all chunks unless somebody reads; how many bytes that were. */
uint64_t ps_cached_empty(ps_cached *cached);

int ps_remote_fetch(ps_remote *remote, const ps_cached *cached, uint64_t offset, size_t length,
                    uint8_t *out, ps_error *err);
/* So many bytes more, or fewer, are cached. */
void ps_remote_grown(ps_remote *remote, uint64_t bytes);
void ps_remote_shrunk(ps_remote *remote, uint64_t bytes);
/* Empties files until the limit is kept, or all that nobody reads. No file's lock is held. */
void ps_remote_make_room(ps_remote *remote, int all);

#endif
