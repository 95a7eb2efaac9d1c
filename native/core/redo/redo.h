/*
 * The redo pool: pages from a base and WAL records, by Postgres's own redo routines.
 *
 * A pool owns some helper processes (native/postgres/redo), each a stock server binary that
 * does nothing but redo inside a sandbox. Helpers are started when first needed. Threads
 * share the pool: a call leases helpers, keeps several requests in flight on each, and gives
 * them back. docs/formats/redo-protocol.md describes the bytes between the two.
 */
#ifndef PS_REDO_H
#define PS_REDO_H

#include <stddef.h>
#include <stdint.h>

#include "key.h"
#include "redo/protocol.h"
#include "status.h"
#include "value.h"

typedef struct ps_redo_item {
    uint64_t lsn;        /* the record's end: the page's LSN once it is applied */
    uint8_t kind;        /* ps_value_kind: RECORD or PATCH */
    uint8_t flags;       /* ps_value_flag */
    uint32_t length;
    const uint8_t *data;
} ps_redo_item;

typedef struct ps_redo_request {
    ps_key key;
    uint8_t flags;       /* ps_redo_flag */
    const uint8_t *base; /* 8192 bytes; NULL is a page of zeros */
    const ps_redo_item *items; /* oldest first */
    size_t count;
    uint8_t *out; /* 8192 bytes; may be `base`. Undefined unless status is PS_OK */
    int status;   /* set by ps_redo_apply */
} ps_redo_request;

typedef struct ps_redo_pool ps_redo_pool;

typedef struct ps_redo_stats {
    uint64_t pages;   /* made */
    uint64_t records; /* items applied for them */
    uint64_t busy_ns; /* spent in ps_redo_apply, over all threads */
    uint64_t started; /* helpers, since the pool was opened */
    uint64_t deaths;  /* helpers that ended without being asked to */
    uint32_t running; /* helpers, and those about to be started */
} ps_redo_stats;

typedef struct ps_redo_options {
    size_t dirs;          /* how many there are: 1 to 64 */
    size_t size;          /* helpers that work at a time, at most `dirs` */
    uint32_t start_ms;    /* without a hello for so long: it did not come up */
    uint32_t deadline_ms; /* without an answer for so long: it hangs, and is killed */
} ps_redo_options;

/*
 * None is started yet. `argv` (NULL-terminated) starts one: the word "{dir}" stands for the
 * helper's own directory, dirs[i]. A helper that is silent does not count among those that work:
 * as long as there is a directory, another takes its place for the calls that wait, while its own
 * call waits for the deadline. Copies what it is given. The process must ignore SIGPIPE, as
 * Python does.
 */
int ps_redo_pool_open(ps_redo_pool **pool, const char *const *argv, const char *const *dirs,
                      const ps_redo_options *options, ps_error *err);
/* Ends all helpers, after the calls under way; later calls give PS_ERR_CLOSED. */
void ps_redo_pool_close(ps_redo_pool *pool);
void ps_redo_pool_free(ps_redo_pool *pool); /* closes it too */
/* Ends the helpers that were not used for so long; the next call starts one again. */
void ps_redo_pool_stop_idle(ps_redo_pool *pool, uint64_t idle_ms);
ps_redo_stats ps_redo_pool_stats(ps_redo_pool *pool);

/*
 * Does all requests, in any order, and sets the status of each. PS_OK when each is PS_OK;
 * else the first failure's code, with its key and LSN named in *err, after all the others
 * have been tried. A helper that dies is replaced and its request tried once more; one that makes
 * helpers hang is refused at once for some time after.
 */
int ps_redo_apply(ps_redo_pool *pool, ps_redo_request *requests, size_t count, ps_error *err);

/*
 * The same for who must not wait: when helpers that run are free, and the requests are not large,
 * it begins, and goes on for at most `wait_ns`. PS_ERR_WOULD_WAIT when not all is done then:
 * if *begun is set, ps_redo_finish must do the rest, soon, for the batch holds helpers; if it is
 * NULL, nothing was begun. Until then the requests and all they point to must stay.
 */
typedef struct ps_redo_batch ps_redo_batch;
int ps_redo_begin(ps_redo_pool *pool, ps_redo_request *requests, size_t count, uint64_t wait_ns,
                  ps_redo_batch **begun, ps_error *err);
/* Waits as ps_redo_apply does, and gives what it gives; the batch is gone then. */
int ps_redo_finish(ps_redo_batch *begun, ps_error *err);

#endif
