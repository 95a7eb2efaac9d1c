/*
 * A lane: a helper, and what it has in flight of the batch it is leased to.
 *
 * Requests are sent in order and answered in order, so the oldest unanswered request is the
 * one a dying helper was working on. A lane never blocks; the caller polls its descriptors.
 */
#ifndef PS_REDO_LANE_H
#define PS_REDO_LANE_H

#include <sys/uio.h>

#include "redo/helper.h"
#include "redo/protocol.h"
#include "redo/redo.h"

#define PS_REDO_WINDOW 16u

/* What its batch found of its helper. */
typedef enum ps_redo_fate { PS_REDO_ALIVE, PS_REDO_DEAD, PS_REDO_HUNG } ps_redo_fate;

typedef struct ps_redo_lane {
    ps_redo_helper helper;
    ps_redo_fate fate;
    ps_redo_request *flight[PS_REDO_WINDOW]; /* a ring, oldest at `head` */
    ps_redo_wire_answer answers[PS_REDO_WINDOW];
    uint32_t head;
    uint32_t count;
    uint32_t sequence; /* of the oldest in flight */
    size_t received;   /* bytes of the oldest one's answer */
    /* Since when the helper owes a sign: it last sent or received something then. 0 when it owes
     * none. Other threads read it. */
    uint64_t silent_since_ms;
    /* Where a page arrives whose base lies at its `out`: a helper that dies in the middle of
     * an answer must not have spoilt the base for the next one. One page a slot. */
    uint8_t *staging;

    /* What is still to be sent: headers and small items copied to scratch, the rest in place. */
    uint8_t *scratch;
    size_t scratch_capacity;
    struct iovec *pieces;
    size_t piece_capacity;
    size_t piece_count;
    size_t piece_at;
} ps_redo_lane;

void ps_redo_lane_free(ps_redo_lane *lane);
/* Forgets what is in flight; gives memory back when it is much. */
void ps_redo_lane_clear(ps_redo_lane *lane);

/* The bytes a request takes on the wire. */
uint64_t ps_redo_wire_length(const ps_redo_request *request);

static inline void
ps_redo_lane_silent_since(ps_redo_lane *lane, uint64_t ms)
{
    __atomic_store_n(&lane->silent_since_ms, ms, __ATOMIC_RELAXED);
}

/* For how many milliseconds its helper has owed a sign. */
static inline uint64_t
ps_redo_lane_silence(const ps_redo_lane *lane, uint64_t now)
{
    uint64_t since = __atomic_load_n(&lane->silent_since_ms, __ATOMIC_RELAXED);
    return since == 0 || since > now ? 0 : now - since;
}

static inline int
ps_redo_lane_can_take(const ps_redo_lane *lane)
{
    return lane->count < PS_REDO_WINDOW;
}

static inline int
ps_redo_lane_has_output(const ps_redo_lane *lane)
{
    return lane->piece_at < lane->piece_count;
}

/* Encodes requests and puts them in flight. Only when the lane has no output left. */
int ps_redo_lane_take(ps_redo_lane *lane, ps_redo_request **requests, uint32_t count);
/* Sends what the pipe takes. PS_ERR_REDO when the helper is gone. */
int ps_redo_lane_send(ps_redo_lane *lane);
/* Receives what is there; *done requests, the oldest ones, are complete and out of flight. */
int ps_redo_lane_receive(ps_redo_lane *lane, ps_redo_request **done, uint32_t *done_count);

#endif
