/*
 * Layer files that are elsewhere, and what of them was fetched.
 *
 * A page server with an object store need not have every layer file here. One that it has not is
 * read by ranges: the reader asks for bytes, and the chunks that hold them are fetched into a
 * sparse *cached file*, once, however many readers wait for them. Which chunks are there stands in
 * memory, so what an earlier process left in the directory is worth nothing and is to be removed.
 *
 * Who fetches is whoever made the ps_remote: the core knows no object store. A fetch blocks the
 * thread that reads. Threads without patience (layer/patience.h) never fetch and never wait.
 * No lock of the core but a layer's `loading` is held meanwhile.
 *
 * Cached files have a limit in bytes together; over it those that were read least recently are
 * emptied, whole, except while somebody reads them.
 */
#ifndef PS_LAYER_REMOTE_H
#define PS_LAYER_REMOTE_H

#include "layer/format.h"

#define PS_REMOTE_CHUNK_BYTES ((uint64_t)256 << 10)

typedef struct ps_remote ps_remote;
typedef struct ps_cached ps_cached;

typedef struct ps_remote_hooks {
    void *arg;
    /* All of the range, or PS_ERR_REMOTE: it cannot be had now; PS_ERR_NOT_FOUND: the layer is in
     * no object store. */
    int (*fetch)(void *arg, const ps_layer_id *id, uint8_t kind, uint64_t offset, size_t length,
                 uint8_t *out, ps_error *err);
    /* The file that is here does not hold; 1 when it can be fetched instead. */
    int (*damaged)(void *arg, const ps_layer_id *id, uint8_t kind, const char *what);
    /* Nobody calls any more. From any thread. */
    void (*release)(void *arg);
} ps_remote_hooks;

/* The directory is there, and empty. */
int ps_remote_make(ps_remote **remote, const char *directory, uint64_t limit,
                   const ps_remote_hooks *hooks, ps_error *err);
ps_remote *ps_remote_retain(ps_remote *remote);
void ps_remote_release(ps_remote *remote);
/* Empties cached files if it is less than what they hold. */
void ps_remote_limit(ps_remote *remote, uint64_t limit);

typedef struct ps_remote_stats {
    uint64_t cached_bytes;
    uint64_t fetches;
    uint64_t fetched_bytes;
    uint64_t failures;
    uint64_t emptied_bytes;
    uint64_t oldest; /* second of ps_layers_now at which the first to go was read; 0 of none */
} ps_remote_stats;
ps_remote_stats ps_remote_read_stats(ps_remote *remote);

int ps_remote_damaged(ps_remote *remote, const ps_layer_id *id, uint8_t kind, const char *what);
/* The layer's cached file goes, with its last user. */
void ps_remote_forget(ps_remote *remote, const ps_layer_id *id);

/* The cached file of a layer of so many bytes, held open until it is closed. */
int ps_cached_open(ps_cached **cached, ps_remote *remote, const ps_layer_id *id, uint8_t kind,
                   uint64_t size, ps_error *err);
void ps_cached_close(ps_cached *cached);
int ps_cached_fd(const ps_cached *cached);
/* Has the range there, and keeps it until `leave`. PS_ERR_WOULD_WAIT without patience. */
int ps_cached_enter(ps_cached *cached, uint64_t offset, uint64_t length, ps_error *err);
void ps_cached_leave(ps_cached *cached);
/* What is there of the range does not hold: it is fetched again when it is next needed. */
void ps_cached_spoil(ps_cached *cached, uint64_t offset, uint64_t length);

#endif
