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
    const uint8_t *base; /* 8192 bytes; NULL is a page of zeros */
    const ps_redo_item *items; /* oldest first */
    size_t count;
    uint8_t *out; /* 8192 bytes; may be `base` */
    int status;   /* set by ps_redo_apply: PS_OK, or why `out` must not be used */
} ps_redo_request;

typedef struct ps_redo_pool ps_redo_pool;

/*
 * Does all requests, in any order, and sets the status of each. PS_OK when each is PS_OK;
 * else the first failure's code, with its key and LSN named in *err, after all the others
 * have been tried. A helper that dies is replaced and its request tried once more.
 */
int ps_redo_apply(ps_redo_pool *pool, ps_redo_request *requests, size_t count, ps_error *err);

#endif
