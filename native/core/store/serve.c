#include "store/serve.h"

#include "layer/patience.h"

/* More are never read on the event loop: each may take ten microseconds. */
#define BLOCKS_AT_ONCE 64u
/* How long it waits for redo, most of which is done sooner than a thread would wake. */
#define REDO_AT_ONCE_NS 300000u

/* Not a code: the read has to wait for a file. */
#define WOULD_WAIT UINT32_MAX

enum wire { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

/* google.rpc.Code */
enum {
    CODE_INVALID_ARGUMENT = 3,
    CODE_NOT_FOUND = 5,
    CODE_RESOURCE_EXHAUSTED = 8,
    CODE_FAILED_PRECONDITION = 9,
    CODE_OUT_OF_RANGE = 11,
    CODE_INTERNAL = 13,
    CODE_UNAVAILABLE = 14,
    CODE_DATA_LOSS = 15
};

typedef struct reader {
    const uint8_t *at;
    const uint8_t *end;
} reader;

typedef struct field {
    uint32_t number;
    uint32_t wire;
    uint64_t value;       /* of a VARINT, FIXED64 or FIXED32 */
    reader bytes;         /* of BYTES */
} field;

static int
read_varint(reader *in, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (in->at == in->end)
            return 0;
        uint8_t byte = *in->at++;
        if (shift == 63 && byte > 1)
            return 0;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if ((byte & 0x80) == 0)
            return 1;
    }
    return 0;
}

static int
read_fixed(reader *in, int width, uint64_t *value)
{
    *value = 0;
    if (in->end - in->at < width)
        return 0;
    for (int i = 0; i < width; i++)
        *value |= (uint64_t)*in->at++ << 8 * i;
    return 1;
}

/* 1 and a field, 0 at the end, -1 when the bytes are no message. */
static int
read_field(reader *in, field *f)
{
    uint64_t tag;
    if (in->at == in->end)
        return 0;
    if (!read_varint(in, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
        return -1;
    f->number = (uint32_t)(tag >> 3);
    f->wire = tag & 7;
    switch (f->wire) {
    case VARINT:
        return read_varint(in, &f->value) ? 1 : -1;
    case FIXED64:
        return read_fixed(in, 8, &f->value) ? 1 : -1;
    case FIXED32:
        return read_fixed(in, 4, &f->value) ? 1 : -1;
    case BYTES:
        if (!read_varint(in, &f->value) || f->value > (uint64_t)(in->end - in->at))
            return -1;
        f->bytes = (reader){.at = in->at, .end = in->at + f->value};
        in->at += f->value;
        return 1;
    default:
        return -1;
    }
}

static int
parse_id(const field *f, uint8_t *id)
{
    if (f->wire != BYTES || f->value != 16)
        return -1;
    memcpy(id, f->bytes.at, 16);
    return 1;
}

static int
parse_read_lsn(reader in, ps_pages_request *request)
{
    field f;
    int more;
    while ((more = read_field(&in, &f)) > 0) {
        if (f.number > 2)
            continue;
        if (f.wire != FIXED64)
            return -1;
        if (f.number == 1)
            request->request_lsn = f.value;
        else
            request->not_modified_since_lsn = f.value;
    }
    return more;
}

static int
parse_rel(reader in, ps_pages_request *request)
{
    uint32_t *const to[] = {&request->spc, &request->db, &request->rel, &request->fork};
    field f;
    int more;
    while ((more = read_field(&in, &f)) > 0) {
        if (f.number > 4)
            continue;
        if (f.wire != VARINT || f.value > UINT32_MAX)
            return -1;
        *to[f.number - 1] = (uint32_t)f.value;
    }
    return more;
}

static void
add_block(ps_pages_request *request, uint64_t block)
{
    if (request->block_count < PS_PAGES_MAX_BLOCKS)
        request->blocks[request->block_count] = (uint32_t)block;
    request->block_count++;
}

static int
parse_blocks(const field *f, ps_pages_request *request)
{
    if (f->wire == VARINT) {
        add_block(request, f->value);
        return f->value > UINT32_MAX ? -1 : 1;
    }
    if (f->wire != BYTES)
        return -1;
    reader packed = f->bytes;
    while (packed.at < packed.end) {
        uint64_t block;
        if (!read_varint(&packed, &block) || block > UINT32_MAX)
            return -1;
        add_block(request, block);
    }
    return 1;
}

static int
parse_field(const field *f, ps_pages_request *request)
{
    switch (f->number) {
    case 1:
        request->request_id = f->value;
        return f->wire == VARINT ? 1 : -1;
    case 2:
        return parse_id(f, request->tenant);
    case 3:
        return parse_id(f, request->timeline);
    case 4:
        return f->wire == BYTES ? parse_read_lsn(f->bytes, request) : -1;
    case 5:
        return f->wire == BYTES ? parse_rel(f->bytes, request) : -1;
    case 6:
        return parse_blocks(f, request);
    case 7:
        request->wait_ms = (uint32_t)f->value;
        return f->wire == VARINT && f->value <= UINT32_MAX ? 1 : -1;
    default:
        return 1; /* of a newer client */
    }
}

int
ps_pages_request_parse(const uint8_t *bytes, size_t length, ps_pages_request *request,
                       ps_error *err)
{
    memset(request, 0, offsetof(ps_pages_request, blocks));
    reader in = {.at = bytes, .end = bytes + length};
    field f = {0};
    int more, seen = 0;
    while ((more = read_field(&in, &f)) > 0) {
        if (parse_field(&f, request) < 0)
            return ps_fail(err, PS_ERR_INVALID, "field %u of the request is malformed", f.number);
        if (f.number < 32)
            seen |= 1 << f.number;
    }
    if (more < 0)
        return ps_fail(err, PS_ERR_INVALID, "offset %zu: not a GetPagesRequest",
                       (size_t)(in.at - bytes));
    if ((seen & 0xC) != 0xC)
        return ps_fail(err, PS_ERR_INVALID, "tenant_id and timeline_id must have 16 bytes");
    return PS_OK;
}

static uint32_t
refuse(ps_pages_status *status, uint32_t code, const char *reason, const char *text)
{
    status->code = code;
    status->reason = reason;
    snprintf(status->message, sizeof status->message, "%s", text);
    return code;
}

int
ps_pages_request_check(const ps_pages_request *request, ps_pages_status *status)
{
    if (request->block_count == 0)
        return (int)refuse(status, CODE_INVALID_ARGUMENT, "NO_BLOCKS", "no block is asked for");
    if (request->block_count > PS_PAGES_MAX_BLOCKS) {
        char text[80];
        snprintf(text, sizeof text, "%zu blocks in one request, at most %u are served",
                 request->block_count, PS_PAGES_MAX_BLOCKS);
        return (int)refuse(status, CODE_INVALID_ARGUMENT, "TOO_MANY_BLOCKS", text);
    }
    if (request->fork > PS_FORK_INIT)
        return (int)refuse(status, CODE_INVALID_ARGUMENT, "MALFORMED_REQUEST",
                           "fork must be 0 (main), 1 (fsm), 2 (vm) or 3 (init)");
    return 0;
}

static uint32_t
refuse_failure(ps_pages_status *status, int rc, const char *text)
{
    switch (rc) {
    case PS_ERR_WOULD_WAIT:
        return WOULD_WAIT;
    case PS_ERR_CORRUPT:
        return refuse(status, CODE_DATA_LOSS, "LAYER_CORRUPT", text);
    case PS_ERR_NOT_FOUND:
        return refuse(status, CODE_DATA_LOSS, "PAGE_MISSING", text);
    case PS_ERR_REDO:
    case PS_ERR_UNSUPPORTED:
        return refuse(status, CODE_INTERNAL, "REDO_FAILED", text);
    case PS_ERR_NO_POSTGRES:
        return refuse(status, CODE_FAILED_PRECONDITION, "POSTGRES_MISSING", text);
    case PS_ERR_NOMEM:
        return refuse(status, CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", text);
    case PS_ERR_IO:
        return refuse(status, CODE_UNAVAILABLE, "IO_ERROR", text);
    case PS_ERR_CLOSED:
        return refuse(status, CODE_UNAVAILABLE, "CLOSED", text);
    case PS_ERR_REMOTE:
        return refuse(status, CODE_UNAVAILABLE, "OBJECT_STORE_UNAVAILABLE", text);
    case PS_ERR_TIMEOUT:
        return refuse(status, CODE_UNAVAILABLE, "TIMEOUT", text);
    default:
        return refuse(status, CODE_INTERNAL, "INTERNAL", text);
    }
}

static uint32_t
check_size(const ps_snapshot *snapshot, const ps_pages_request *request, uint64_t lsn,
           ps_pages_status *status)
{
    ps_key key = ps_key_make(PS_KIND_REL_SIZE, request->spc, request->db, request->rel,
                             (uint8_t)request->fork, 0);
    ps_arena arena;
    ps_arena_init(&arena);
    const uint8_t *value = NULL;
    uint32_t length = 0, size = 0;
    ps_error err = {0};
    int rc = ps_snapshot_get(snapshot, &key, lsn, &arena, &value, &length, &err);
    if (rc == PS_OK && length == 4)
        size = (uint32_t)value[0] | (uint32_t)value[1] << 8 | (uint32_t)value[2] << 16 |
               (uint32_t)value[3] << 24;
    ps_arena_free(&arena);
    char text[160];
    if (rc == PS_ERR_NOT_FOUND) {
        snprintf(text, sizeof text, "relation %u/%u/%u fork %u does not exist at LSN %X/%X",
                 request->spc, request->db, request->rel, request->fork, (unsigned)(lsn >> 32),
                 (unsigned)lsn);
        return refuse(status, CODE_NOT_FOUND, "RELATION_NOT_FOUND", text);
    }
    if (rc < 0)
        return refuse_failure(status, rc, err.text);
    for (size_t i = 0; i < request->block_count; i++) {
        if (request->blocks[i] < size)
            continue;
        snprintf(text, sizeof text,
                 "block %u of relation %u/%u/%u fork %u, which has %u blocks at LSN %X/%X",
                 request->blocks[i], request->spc, request->db, request->rel, request->fork, size,
                 (unsigned)(lsn >> 32), (unsigned)lsn);
        return refuse(status, CODE_OUT_OF_RANGE, "BLOCK_BEYOND_END", text);
    }
    return 0;
}

static size_t
varint_bytes(uint64_t value)
{
    size_t bytes = 1;
    for (; value >= 0x80; value >>= 7)
        bytes++;
    return bytes;
}

static uint8_t *
put_varint(uint8_t *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

static uint8_t *
put_request_id(uint8_t *out, uint64_t request_id)
{
    if (request_id == 0)
        return out;
    *out++ = 1 << 3 | VARINT;
    return put_varint(out, request_id);
}

static uint8_t *
put_bytes(uint8_t *out, uint32_t number, const void *bytes, size_t length)
{
    *out++ = (uint8_t)(number << 3 | BYTES);
    out = put_varint(out, length);
    memcpy(out, bytes, length);
    return out + length;
}

#define PAGE_FIELD_BYTES (3 + PS_PAGE_SIZE) /* tag, a length of two bytes, the page */

size_t
ps_pages_response_bytes(const ps_pages_request *request)
{
    size_t id = request->request_id == 0 ? 0 : 1 + varint_bytes(request->request_id);
    return id + request->block_count * PAGE_FIELD_BYTES;
}

/* The response's bytes around the pages; keys and places of the pages in the read's arena. */
static uint32_t
collect(ps_pages_job *job)
{
    const ps_pages_request *request = &job->request;
    uint32_t code = check_size(job->snapshot, request, job->lsn, &job->status);
    if (code != 0)
        return code;
    ps_page_read_init(&job->read, job->redo);
    size_t count = request->block_count;
    ps_key *keys = ps_arena_take(&job->read.arena, count * sizeof *keys);
    uint8_t **pages = ps_arena_take(&job->read.arena, count * sizeof *pages);
    if (keys == NULL || pages == NULL)
        return refuse_failure(&job->status, PS_ERR_NOMEM, "out of memory for a read");
    uint8_t *at = put_request_id(job->out, request->request_id);
    for (size_t i = 0; i < count; i++) {
        keys[i] = ps_key_make(PS_KIND_REL_BLOCK, request->spc, request->db, request->rel,
                              (uint8_t)request->fork, request->blocks[i]);
        *at++ = 3 << 3 | BYTES;
        at = put_varint(at, PS_PAGE_SIZE);
        pages[i] = at;
        at += PS_PAGE_SIZE;
    }
    ps_error err = {0};
    int rc = ps_page_read_collect(&job->read, job->snapshot, keys, count, job->lsn, pages, &err);
    return rc == PS_OK ? 0 : refuse_failure(&job->status, rc, err.text);
}

static void
finish(ps_pages_job *job)
{
    job->step = PS_PAGES_DONE;
    ps_page_read_free(&job->read);
}

/* All that is to be read from files and memory; redo may be left. */
static void
read_files(ps_pages_job *job)
{
    uint32_t code = collect(job);
    if (code == WOULD_WAIT)
        ps_page_read_free(&job->read); /* a thread begins anew */
    else if (code != 0 || job->read.request_count == 0)
        finish(job);
    else
        job->step = PS_PAGES_REDO;
}

static void
redone(ps_pages_job *job, int rc, const ps_error *err)
{
    if (rc != PS_OK)
        (void)refuse_failure(&job->status, rc, err->text);
    finish(job);
}

void
ps_pages_begin(ps_pages_job *job)
{
    ps_error err = {0};
    ps_page_read_init(&job->read, job->redo);
    job->step = PS_PAGES_FILES;
    job->status.code = 0;
    if (job->request.block_count > BLOCKS_AT_ONCE)
        return;
    /* The caller is the event loop, on which all other reads wait. */
    ps_patience_set(PS_PATIENCE_NONE);
    read_files(job);
    ps_patience_set(PS_PATIENCE_FILES);
    if (job->step != PS_PAGES_REDO)
        return;
    int rc = ps_page_read_begin_redo(&job->read, REDO_AT_ONCE_NS, &err);
    if (rc != PS_ERR_WOULD_WAIT)
        redone(job, rc, &err);
    else if (job->read.batch != NULL) /* else no helper was free, and a thread waits for one */
        job->step = PS_PAGES_REDO_BEGUN;
}

void
ps_pages_continue(ps_pages_job *job)
{
    ps_error err = {0};
    if (job->step == PS_PAGES_FILES) {
        read_files(job);
    } else {
        int rc = ps_page_read_redo(&job->read, &err);
        redone(job, rc, &err);
    }
}

void
ps_pages_abandon(ps_pages_job *job)
{
    (void)refuse(&job->status, CODE_UNAVAILABLE, "CLOSED", "nobody waits for this read any more");
    finish(job);
}

size_t
ps_pages_status_encode(uint64_t request_id, const ps_pages_status *status, uint8_t *out)
{
    uint8_t body[PS_PAGES_STATUS_BYTES];
    uint8_t *at = body;
    *at++ = 1 << 3 | VARINT;
    at = put_varint(at, status->code);
    at = put_bytes(at, 2, status->reason, strnlen(status->reason, 64));
    at = put_bytes(at, 3, status->message, strlen(status->message));
    uint8_t *to = put_request_id(out, request_id);
    to = put_bytes(to, 2, body, (size_t)(at - body));
    return (size_t)(to - out);
}
