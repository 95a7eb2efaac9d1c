/*
 * GetPages from bytes to bytes: a serialized GetPagesRequest in, a serialized
 * GetPagesResponse out (proto/pagestore/v1/page.proto). The two messages are few enough in
 * fields that reading and writing them by hand costs less than an object a page would.
 * Everything that is wrong with a request is answered in-band.
 */
#ifndef PS_STORE_SERVE_H
#define PS_STORE_SERVE_H

#include "layer/patience.h"
#include "store/snapshot.h"

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

/* Not a code: the read needs more patience than it was given, *status nothing. */
#define PS_PAGES_WOULD_WAIT UINT32_MAX

/* Writes the whole response and returns 0; or sets *status and returns its code. Waits for
 * nothing that *patience excludes; where that is not enough, it becomes what is needed. */
uint32_t ps_pages_serve(const ps_snapshot *snapshot, const ps_pages_request *request, uint64_t lsn,
                        ps_redo_pool *redo, ps_patience *patience, uint8_t *out,
                        ps_pages_status *status);

/* A response that is only a status. Returns its length; `out` has PS_PAGES_STATUS_BYTES. */
size_t ps_pages_status_encode(uint64_t request_id, const ps_pages_status *status, uint8_t *out);

#endif
