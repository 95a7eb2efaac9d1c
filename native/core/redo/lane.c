#include "redo/lane.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

/* Larger items are sent from where they lie; copying a smaller one costs less than a piece. */
#define COPY_BELOW 2048u
#define MAX_PIECES 1024
#define KEEP_SCRATCH (1u << 20)
#define KEEP_PIECES 4096u

void
ps_redo_lane_free(ps_redo_lane *lane)
{
    ps_redo_helper_free(&lane->helper);
    free(lane->scratch);
    free(lane->pieces);
    free(lane->staging);
}

void
ps_redo_lane_clear(ps_redo_lane *lane)
{
    ps_redo_lane_silent_since(lane, 0);
    lane->fate = PS_REDO_ALIVE;
    lane->count = 0;
    lane->received = 0;
    lane->piece_count = lane->piece_at = 0;
    if (lane->scratch_capacity > KEEP_SCRATCH) {
        free(lane->scratch);
        lane->scratch = NULL;
        lane->scratch_capacity = 0;
    }
    if (lane->piece_capacity > KEEP_PIECES) {
        free(lane->pieces);
        lane->pieces = NULL;
        lane->piece_capacity = 0;
    }
}

static size_t
padded(size_t length)
{
    return (length + 7) & ~(size_t)7;
}

uint64_t
ps_redo_wire_length(const ps_redo_request *request)
{
    uint64_t length = sizeof(ps_redo_wire_request) + (request->base != NULL ? PS_PAGE_SIZE : 0);
    for (size_t i = 0; i < request->count; i++)
        length += sizeof(ps_redo_wire_item) + padded(request->items[i].length);
    return length;
}

/* Makes room for what the requests need at most, so that encoding cannot fail half-way. */
static int
reserve(ps_redo_lane *lane, ps_redo_request *const *requests, uint32_t count)
{
    size_t bytes = 0;
    size_t pieces = 0;
    for (uint32_t r = 0; r < count; r++) {
        const ps_redo_request *request = requests[r];
        /* A base that lies where its page goes is needed until the whole answer is there: if this
         * helper dies, another one gets it. */
        if (request->base == request->out && lane->staging == NULL &&
            (lane->staging = malloc(PS_REDO_WINDOW * PS_PAGE_SIZE)) == NULL)
            return PS_ERR_NOMEM;
        bytes += sizeof(ps_redo_wire_request);
        pieces += 3;
        for (size_t i = 0; i < request->count; i++) {
            int in_place = request->items[i].length >= COPY_BELOW;
            bytes += sizeof(ps_redo_wire_item) + (in_place ? 8 : padded(request->items[i].length));
            pieces += in_place ? 2 : 0;
        }
    }
    if (bytes > lane->scratch_capacity) {
        uint8_t *grown = realloc(lane->scratch, bytes);
        if (grown == NULL)
            return PS_ERR_NOMEM;
        lane->scratch = grown;
        lane->scratch_capacity = bytes;
    }
    if (pieces > lane->piece_capacity) {
        struct iovec *grown = realloc(lane->pieces, pieces * sizeof *grown);
        if (grown == NULL)
            return PS_ERR_NOMEM;
        lane->pieces = grown;
        lane->piece_capacity = pieces;
    }
    return PS_OK;
}

typedef struct encoder {
    ps_redo_lane *lane;
    uint8_t *at;    /* the end of what is in scratch */
    uint8_t *start; /* of the piece of scratch not yet listed */
} encoder;

static void
list_piece(ps_redo_lane *lane, const void *data, size_t length)
{
    if (length > 0)
        lane->pieces[lane->piece_count++] =
            (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = length};
}

static void
list_scratch(encoder *e)
{
    list_piece(e->lane, e->start, (size_t)(e->at - e->start));
    e->start = e->at;
}

static void
copy(encoder *e, const void *data, size_t length)
{
    if (length > 0)
        memcpy(e->at, data, length);
    e->at += length;
}

static void
in_place(encoder *e, const void *data, size_t length)
{
    list_scratch(e);
    list_piece(e->lane, data, length);
}

static void
encode(encoder *e, const ps_redo_request *request, uint32_t sequence)
{
    static const uint8_t zeros[8];
    ps_redo_wire_request header = {.magic = PS_REDO_MAGIC,
                                   .length = (uint32_t)ps_redo_wire_length(request),
                                   .sequence = sequence,
                                   .items = (uint32_t)request->count,
                                   .spc = ps_key_spc(&request->key),
                                   .db = ps_key_db(&request->key),
                                   .rel = ps_key_rel(&request->key),
                                   .block = ps_key_block(&request->key),
                                   .fork = ps_key_fork(&request->key),
                                   .flags = request->flags,
                                   .has_base = request->base != NULL};
    copy(e, &header, sizeof header);
    if (request->base != NULL)
        in_place(e, request->base, PS_PAGE_SIZE);
    for (size_t i = 0; i < request->count; i++) {
        const ps_redo_item *item = &request->items[i];
        ps_redo_wire_item wire = {.lsn = item->lsn,
                                  .length = item->length,
                                  .kind = item->kind,
                                  .flags = item->flags};
        copy(e, &wire, sizeof wire);
        if (item->length >= COPY_BELOW)
            in_place(e, item->data, item->length);
        else
            copy(e, item->data, item->length);
        copy(e, zeros, padded(item->length) - item->length);
    }
}

int
ps_redo_lane_take(ps_redo_lane *lane, ps_redo_request **requests, uint32_t count)
{
    if (reserve(lane, requests, count) != PS_OK)
        return PS_ERR_NOMEM;
    encoder e = {.lane = lane, .at = lane->scratch, .start = lane->scratch};
    lane->piece_count = lane->piece_at = 0;
    if (lane->count == 0)
        ps_redo_lane_silent_since(lane, ps_redo_now_ms());
    for (uint32_t i = 0; i < count; i++) {
        encode(&e, requests[i], lane->sequence + lane->count);
        lane->flight[(lane->head + lane->count) % PS_REDO_WINDOW] = requests[i];
        lane->count++;
    }
    list_scratch(&e);
    return PS_OK;
}

int
ps_redo_lane_send(ps_redo_lane *lane)
{
    while (ps_redo_lane_has_output(lane)) {
        size_t left = lane->piece_count - lane->piece_at;
        ssize_t n = writev(lane->helper.to, lane->pieces + lane->piece_at,
                           (int)(left < MAX_PIECES ? left : MAX_PIECES));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? PS_OK : PS_ERR_REDO;
        ps_redo_lane_silent_since(lane, ps_redo_now_ms()); /* who takes bytes in is not hung */
        while (lane->piece_at < lane->piece_count &&
               (size_t)n >= lane->pieces[lane->piece_at].iov_len)
            n -= (ssize_t)lane->pieces[lane->piece_at++].iov_len;
        if (n > 0) {
            struct iovec *piece = &lane->pieces[lane->piece_at];
            piece->iov_base = (uint8_t *)piece->iov_base + n;
            piece->iov_len -= (size_t)n;
        }
    }
    return PS_OK;
}

static uint8_t *
page_of(const ps_redo_lane *lane, uint32_t slot)
{
    const ps_redo_request *request = lane->flight[slot];
    return request->base == request->out ? lane->staging + slot * PS_PAGE_SIZE : request->out;
}

/* Where the answers to all requests in flight go; the first `received` bytes are there. */
static int
answer_pieces(ps_redo_lane *lane, struct iovec *pieces)
{
    size_t skip = lane->received;
    int n = 0;
    for (uint32_t i = 0; i < lane->count; i++) {
        uint32_t slot = (lane->head + i) % PS_REDO_WINDOW;
        struct iovec parts[2] = {{&lane->answers[slot], sizeof lane->answers[slot]},
                                 {page_of(lane, slot), PS_PAGE_SIZE}};
        for (int part = 0; part < 2; part++) {
            size_t done = skip < parts[part].iov_len ? skip : parts[part].iov_len;
            skip -= done;
            if (done < parts[part].iov_len)
                pieces[n++] = (struct iovec){(uint8_t *)parts[part].iov_base + done,
                                             parts[part].iov_len - done};
        }
    }
    return n;
}

int
ps_redo_lane_receive(ps_redo_lane *lane, ps_redo_request **done, uint32_t *done_count)
{
    const size_t whole = sizeof(ps_redo_wire_answer) + PS_PAGE_SIZE;
    struct iovec pieces[2 * PS_REDO_WINDOW];
    ssize_t n;
    *done_count = 0;
    do {
        n = readv(lane->helper.from, pieces, answer_pieces(lane, pieces));
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? PS_OK : PS_ERR_REDO;
    if (n == 0) /* its end is closed: it is gone */
        return PS_ERR_REDO;
    lane->received += (size_t)n;
    while (lane->count > 0 && lane->received >= whole) {
        const ps_redo_wire_answer *answer = &lane->answers[lane->head];
        if (answer->magic != PS_REDO_MAGIC || answer->sequence != lane->sequence)
            return PS_ERR_REDO;
        ps_redo_request *request = lane->flight[lane->head];
        if (page_of(lane, lane->head) != request->out)
            memcpy(request->out, page_of(lane, lane->head), PS_PAGE_SIZE);
        done[(*done_count)++] = request;
        lane->head = (lane->head + 1) % PS_REDO_WINDOW;
        lane->count--;
        lane->sequence++;
        lane->received -= whole;
    }
    ps_redo_lane_silent_since(lane, lane->count > 0 ? ps_redo_now_ms() : 0);
    return PS_OK;
}
