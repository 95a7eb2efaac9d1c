/*
 * GetPages from bytes to bytes: a serialized GetPagesRequest in, a serialized
 * GetPagesResponse out (proto/pagestore/v1/page.proto). The two messages are few enough in
 * fields that reading and writing them by hand costs less than an object a page would.
 * Everything that is wrong with a request is answered in-band.
 */
#ifndef PS_STORE_SERVE_H
#define PS_STORE_SERVE_H

#include "store/page_read.h"

#define PS_PAGES_MAX_BLOCKS 1024u
/* Enough for any status with its texts. */
#define PS_PAGES_STATUS_BYTES 1024u

typedef struct ps_pages_request {
    uint64_t request_id;
    uint8_t tenant[16];
    uint8_t timeline[16];
    uint64_t request_lsn;
    uint64_t not_modified_since_lsn;
    uint32_t spc;
    uint32_t db;
    uint32_t rel;
    uint32_t fork;
    uint32_t wait_ms;
    size_t block_count; /* may exceed the array: then it is refused */
    uint32_t blocks[PS_PAGES_MAX_BLOCKS];
} ps_pages_request;

/* A google.rpc.Code with a stable reason; code 0 is success. */
typedef struct ps_pages_status {
    uint32_t code;
    const char *reason;
    char message[sizeof((ps_error *)0)->text];
} ps_pages_status;

/* PS_ERR_INVALID with a text; request_id is set as far as it was read. */
int ps_pages_request_parse(const uint8_t *bytes, size_t length, ps_pages_request *request,
                           ps_error *err);

/* What parsing cannot see: counts and forks. Returns 0 when the request can be served. */
int ps_pages_request_check(const ps_pages_request *request, ps_pages_status *status);

size_t ps_pages_response_bytes(const ps_pages_request *request);

/* What a job waits for. */
typedef enum ps_pages_step {
    PS_PAGES_FILES,
    PS_PAGES_REDO,       /* for a helper to be free */
    PS_PAGES_REDO_BEGUN, /* for helpers that it holds */
    PS_PAGES_DONE
} ps_pages_step;

/* One GetPages on its way: its event loop begins it, and threads go on where it must wait. */
typedef struct ps_pages_job {
    /* To be set before it begins; checked. */
    ps_pages_request request;
    const ps_snapshot *snapshot;
    uint64_t lsn;
    ps_redo_pool *redo; /* or NULL */
    uint8_t *out;       /* ps_pages_response_bytes */

    ps_pages_step step;
    ps_pages_status status; /* once done: the response is in `out` if its code is 0 */
    ps_page_read read;
    struct ps_pages_job *next; /* in a queue of ps_readers */
} ps_pages_job;

/* All that takes a few hundred microseconds at most, and waits for no file. */
void ps_pages_begin(ps_pages_job *job);
/* The next step, however long it takes. */
void ps_pages_continue(ps_pages_job *job);
/* Instead of the next step, which must not be PS_PAGES_REDO_BEGUN. */
void ps_pages_abandon(ps_pages_job *job);

/* A response that is only a status. Returns its length; `out` has PS_PAGES_STATUS_BYTES. */
size_t ps_pages_status_encode(uint64_t request_id, const ps_pages_status *status, uint8_t *out);

#endif
