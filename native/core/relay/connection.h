/* What the files of the relay share: connections, and the loop that owns them. */
#ifndef PS_RELAY_CONNECTION_H
#define PS_RELAY_CONNECTION_H

#include "relay/framing.h"
#include "relay/relay.h"

typedef enum mode { MODE_FEED, MODE_TLS, MODE_JOINED, MODE_HOLD, MODE_CLOSING } mode;

typedef struct connection {
    uint64_t id;
    ps_stream stream;
    mode mode;
    uint32_t interest;      /* what epoll watches for */
    bool is_client;
    bool login;             /* accepted, and never joined */
    bool stranger;          /* a login that was never watched: nobody knows yet who it is */
    struct connection *older, *newer; /* stranger: among the others */
    bool wanted;            /* FEED: a piece was asked for; HOLD: to be told */
    bool reading_ended;     /* the peer sends nothing more */
    bool writing_ended;     /* we have said so to it */
    bool wants_write;       /* TLS must write before it can go on */
    bool has_more;          /* TLS holds bytes that were not read when others had their turn */
    bool holding;           /* client: to be taken apart when at rest */
    uint8_t *last_words;    /* client: it is dismissed, and hears these once its backend's message
                             * is whole */
    size_t last_words_length;
    struct connection *peer;
    ps_session *session;    /* of a joined client */
    uint32_t meter;         /* client: where its queries are counted */
    uint8_t *unnamed;       /* client: its unnamed statement, while it has no session */
    uint32_t unnamed_length;
    uint8_t *out;           /* what the socket has not taken yet: [out_at, out_end) */
    size_t out_at, out_end, out_capacity;
    uint8_t *withheld;      /* server: an error that nobody asked for */
    size_t withheld_length;
    uint64_t active_ms;
} connection;

typedef struct relay_loop relay_loop;

/* --- connection.c, joined.c: what happens to one */

connection *connection_new(relay_loop *loop, uint64_t id, int fd, bool is_client);
/* Tells why, closes, frees; of a joined pair, both. `why` may be NULL. */
void connection_end(relay_loop *loop, connection *conn, const char *why);
void connection_ready(relay_loop *loop, connection *conn, uint32_t events);
/* Out now or later. */
void connection_send(relay_loop *loop, connection *conn, const void *data, size_t length);
void connection_read(relay_loop *loop, connection *conn);
void connection_ask(relay_loop *loop, connection *conn, const void *data, size_t length);
void connection_begin_tls(relay_loop *loop, connection *conn, ps_tls *tls, const void *early,
                          size_t length);
void connection_join(relay_loop *loop, connection *client, connection *server, uint32_t meter,
                     const void *rest, size_t length);
void connection_hold(relay_loop *loop, connection *client, bool now);
void connection_watch(relay_loop *loop, connection *conn);
void connection_close(relay_loop *loop, connection *conn);
void connection_dismiss(relay_loop *loop, connection *client, const void *words, size_t length);

/* --- loop.c, relay.c: what it asks of them */

void loop_watch(relay_loop *loop, connection *conn, uint32_t interest);
void loop_forget(relay_loop *loop, connection *conn);
/* A client is no stranger any more, if it was one. */
void loop_admit(relay_loop *loop, connection *conn);
connection *loop_find(relay_loop *loop, uint64_t id);
/* Takes `data`, which may be NULL, over. */
void relay_tell(ps_relay *relay, uint64_t id, ps_relay_kind kind, uint8_t *data, size_t length);
void relay_count(ps_relay *relay, uint32_t meter, uint32_t queries);

#endif
