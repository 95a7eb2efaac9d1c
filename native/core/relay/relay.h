/*
 * The relay: moves the bytes of sessions between clients and backends in threads of its own.
 *
 * It decides nothing. A connection is in one of these modes, and whoever drives the relay (the
 * proxy's Python, one decision a connection) moves it from one to the next by a command:
 *
 *     FEED    what is read is told as an event, piece by piece: a piece is read only when it
 *             was asked for, so nothing comes behind the driver's back. Logins happen here.
 *     TLS     the handshake is under way; told when it is done, then FEED.
 *     JOINED  with another: what one sends, the other gets. At most a buffer of each direction
 *             is held; who does not read is not read for.
 *     HOLD    nothing is read; told once when there is something to read. A client whose session
 *             has no backend waits here.
 *
 *     accept, adopt -> FEED -> (TLS -> FEED) -> JOINED -> HOLD -> JOINED ... -> closed
 *
 * Joined sessions are watched by framing.h. `hold` takes a pair apart at the moment at which it is
 * at rest: the client is in HOLD, the backend in FEED, nothing is under way between them. A
 * backend that ends while its session is at rest does the same (what it said last, which is
 * an error that nobody asked for, is told with the event and not passed on).
 *
 * A connection that has ended is told by PS_RELAY_ENDED, as the last event of its id; ids are never
 * used again, and commands to one that is gone are passed over. Commands of one
 * connection are carried out in order. Everything here may be called from any thread.
 */
#ifndef PS_RELAY_RELAY_H
#define PS_RELAY_RELAY_H

#include "relay/stream.h"

enum {
    PS_RELAY_THREADS = 15,
    PS_RELAY_PIECE = 16384,       /* of what FEED tells at once */
    PS_RELAY_BUFFER = 128 * 1024, /* of what a joined connection holds for its peer, at most */
    PS_RELAY_METERS = 1 << 20
};

typedef struct ps_relay ps_relay;

typedef enum ps_relay_kind {
    PS_RELAY_ACCEPTED = 1, /* in FEED; data: the peer's address as text */
    PS_RELAY_DATA,         /* a piece, after `read` */
    PS_RELAY_SECURE,       /* the TLS handshake is done; in FEED */
    PS_RELAY_AT_REST,      /* after `hold`; id is the client's, which is in HOLD; data: a byte, 1
                            * where the client has spoken since it was joined, and the body of
                            * the Parse that made its unnamed statement */
    PS_RELAY_LEFT,         /* its backend is gone, the client is in HOLD; data: a byte, 1 where the
                            * client has spoken since it was joined, and the backend's last words */
    PS_RELAY_READABLE,     /* in HOLD: there is something to read */
    PS_RELAY_ENDED         /* gone; data: why, or nothing where the peer just closed */
} ps_relay_kind;

typedef struct ps_relay_event {
    uint64_t id;
    ps_relay_kind kind;
    uint8_t *data; /* freed by the taker */
    size_t length;
} ps_relay_event;

typedef struct ps_relay_session {
    uint64_t client, server;
    uint64_t idle_ms; /* since a byte last moved */
    bool at_rest;
    bool spoken; /* whether the client has said anything since it was joined */
} ps_relay_session;

typedef struct ps_relay_options {
    int threads;
    int notify_fd;            /* an eventfd, signalled when there are events to take */
    uint32_t max_connections; /* of each thread; clients beyond are closed after `full` */
    uint32_t max_logins;      /* of each thread: accepted clients that were never joined. Who comes
                               * beyond has the place of the oldest that was never watched */
    const void *full;         /* what a client is told that comes beyond a bound; copied */
    size_t full_length;
    const void *gone;         /* and one whose backend ends within a query, or a transaction, and
                               * says nothing; copied */
    size_t gone_length;
} ps_relay_options;

int ps_relay_new(ps_relay **relay, const ps_relay_options *options, ps_error *err);
/* Closes everything; joins its threads. No other call may run or come. */
void ps_relay_free(ps_relay *relay);

/* Accepts from a listening socket from now on, which the relay takes over. */
int ps_relay_listen(ps_relay *relay, int fd, ps_error *err);

/* Takes a connected socket over, into FEED, in the thread of `beside`. 0: no room. */
uint64_t ps_relay_adopt(ps_relay *relay, int fd, uint64_t beside);

/* At most `limit` events, in the order in which each thread made them. */
size_t ps_relay_take(ps_relay *relay, ps_relay_event *events, size_t limit);

/* PS_ERR_NOMEM; everything else is told by events. */
int ps_relay_read(ps_relay *relay, uint64_t id, ps_error *err);
/* To a joined client: passed over within a message of its backend's. */
int ps_relay_send(ps_relay *relay, uint64_t id, const void *data, size_t length, ps_error *err);
/* Sends, then reads: what `send` and `read` do, as one order. */
int ps_relay_ask(ps_relay *relay, uint64_t id, const void *data, size_t length, ps_error *err);
int ps_relay_begin_tls(ps_relay *relay, uint64_t id, ps_tls *tls, const void *early,
                       size_t early_length, ps_error *err);
/* `rest`: what the client has said already and its backend has not got. `meter`: below
 * PS_RELAY_METERS, where its queries are counted; whoever drives the relay says whose each is. Two
 * that are joined stay so. */
int ps_relay_join(ps_relay *relay, uint64_t client, uint64_t server, uint32_t meter,
                  const void *rest, size_t rest_length, ps_error *err);
/* Query, Execute and FunctionCall messages of joined clients with this meter, since ever. */
uint64_t ps_relay_queries(const ps_relay *relay, uint32_t meter);
/* From JOINED, as soon as the session is at rest; or, with `now`, only if it is. */
int ps_relay_hold(ps_relay *relay, uint64_t client, bool now, ps_error *err);
/* Takes a `hold` back that has not come to pass. */
int ps_relay_release(ps_relay *relay, uint64_t client, ps_error *err);
/* In FEED: no more reading, told when there is something. */
int ps_relay_watch(ps_relay *relay, uint64_t id, ps_error *err);
/* After what was sent has left; a joined connection takes its peer with it. */
int ps_relay_close(ps_relay *relay, uint64_t id, ps_error *err);
/*
 * A client's last words, and `close`. One that is joined may be within a message of its backend's
 * (a COPY of rows): it hears the rest of that first, if its backend lives to say it, which then
 * goes. What the client says meanwhile nobody hears.
 */
int ps_relay_dismiss(ps_relay *relay, uint64_t client, const void *words, size_t length,
                     ps_error *err);

/*
 * The joined sessions of now, but for those at rest where no byte has moved for more than
 * `quiet_ms`: of many sessions most are idle, and nothing new is to be told of them. At most
 * `limit`. Waits for the threads.
 */
size_t ps_relay_sessions(ps_relay *relay, uint64_t quiet_ms, ps_relay_session *sessions,
                         size_t limit);

#endif
