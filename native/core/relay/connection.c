#include "relay/loop.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    ROUNDS = 16,             /* reads of one connection before others have their turn */
    MAX_WITHHELD = 16 * 1024 /* of an error that nobody asked for */
};

/* A peer that vanished without a word is noticed within two minutes. */
static void
set_options(int fd)
{
    int on = 1, idle = 60, interval = 10, count = 6;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

connection *
connection_new(relay_loop *loop, uint64_t id, int fd, bool is_client)
{
    connection *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        return NULL;
    conn->id = id;
    conn->is_client = conn->login = is_client;
    conn->active_ms = loop->now_ms;
    ps_stream_init(&conn->stream, fd);
    set_options(fd);
    return conn;
}

static void
free_session(connection *client)
{
    if (client->session != NULL)
        ps_session_end(client->session);
    free(client->session);
    client->session = NULL;
}

static void
release(relay_loop *loop, connection *conn, const char *why)
{
    uint8_t *words = why != NULL ? (uint8_t *)strdup(why) : NULL;
    relay_tell(loop->relay, conn->id, PS_RELAY_ENDED, words, words != NULL ? strlen(why) : 0);
    loop_forget(loop, conn);
    ps_stream_close(&conn->stream);
    free_session(conn);
    free(conn->out);
    free(conn->withheld);
    free(conn->unnamed);
    free(conn);
}

void
connection_end(relay_loop *loop, connection *conn, const char *why)
{
    connection *peer = conn->peer;
    release(loop, conn, why);
    if (peer != NULL)
        release(loop, peer, why);
}

static void
update_interest(relay_loop *loop, connection *conn)
{
    uint32_t interest = 0;
    bool reads = false;
    switch (conn->mode) {
        case MODE_FEED:
        case MODE_HOLD:
            reads = conn->wanted;
            break;
        case MODE_TLS:
            reads = !conn->wants_write;
            break;
        case MODE_JOINED:
            reads = !conn->reading_ended && conn->peer->out_end == 0;
            break;
        case MODE_CLOSING:
            break;
    }
    if (reads)
        interest |= EPOLLIN;
    /* A socket that can be written is told of at once, which is a turn. */
    if (conn->out_end > 0 || conn->wants_write || (reads && conn->has_more))
        interest |= EPOLLOUT;
    loop_watch(loop, conn, interest);
}

/* --- writing */

static bool
keep_for_later(connection *conn, const uint8_t *data, size_t length)
{
    size_t held = conn->out_end - conn->out_at;
    if (conn->out_at > 0) {
        memmove(conn->out, conn->out + conn->out_at, held);
        conn->out_at = 0;
        conn->out_end = held;
    }
    if (held + length > conn->out_capacity) {
        uint8_t *grown = realloc(conn->out, held + length);
        if (grown == NULL)
            return false;
        conn->out = grown;
        conn->out_capacity = held + length;
    }
    memcpy(conn->out + held, data, length);
    conn->out_end = held + length;
    return true;
}

/* As much as the socket takes. False: the connection is broken. */
static bool
write_some(connection *conn, const uint8_t *data, size_t length, size_t *written)
{
    *written = 0;
    while (*written < length) {
        size_t moved;
        ps_io io = ps_stream_write(&conn->stream, data + *written, length - *written, &moved);
        *written += moved;
        if (io == PS_IO_WRITE || io == PS_IO_READ)
            return true;
        if (io != PS_IO_DONE)
            return false;
    }
    return true;
}

static void
finish_writing(connection *conn)
{
    if (!conn->writing_ended) {
        conn->writing_ended = true;
        ps_stream_end(&conn->stream);
    }
}

/* Writes; what is left waits. False: broken, nothing was ended yet. */
static bool
put(connection *conn, const uint8_t *data, size_t length)
{
    size_t written = 0;
    if (conn->out_end == 0 && !write_some(conn, data, length, &written))
        return false;
    return written == length || keep_for_later(conn, data + written, length - written);
}

static bool
flush(connection *conn)
{
    size_t written;
    if (!write_some(conn, conn->out + conn->out_at, conn->out_end - conn->out_at, &written))
        return false;
    conn->out_at += written;
    if (conn->out_at < conn->out_end)
        return true;
    /* Idle connections are many: they hold no buffer. */
    free(conn->out);
    conn->out = NULL;
    conn->out_at = conn->out_end = conn->out_capacity = 0;
    return true;
}

void
connection_send(relay_loop *loop, connection *conn, const void *data, size_t length)
{
    if (conn->mode == MODE_CLOSING || conn->mode == MODE_JOINED)
        return;
    if (!put(conn, data, length))
        connection_end(loop, conn, NULL);
    else
        update_interest(loop, conn);
}

/* --- login: pieces, TLS, watching */

static void
read_piece(relay_loop *loop, connection *conn)
{
    size_t moved;
    ps_io io = ps_stream_read(&conn->stream, loop->scratch, PS_RELAY_PIECE, &moved);
    conn->wants_write = io == PS_IO_WRITE;
    if (io == PS_IO_END || io == PS_IO_BROKEN) {
        connection_end(loop, conn, NULL);
        return;
    }
    if (io == PS_IO_DONE) {
        uint8_t *copy = malloc(moved);
        if (copy == NULL) {
            connection_end(loop, conn, "out of memory");
            return;
        }
        memcpy(copy, loop->scratch, moved);
        conn->wanted = false;
        conn->active_ms = loop->now_ms;
        relay_tell(loop->relay, conn->id, PS_RELAY_DATA, copy, moved);
    }
    update_interest(loop, conn);
}

void
connection_read(relay_loop *loop, connection *conn)
{
    if (conn->mode == MODE_HOLD)
        conn->mode = MODE_FEED;
    if (conn->mode != MODE_FEED)
        return;
    conn->wanted = true;
    read_piece(loop, conn); /* TLS may have decrypted it already: no event would come */
}

void
connection_ask(relay_loop *loop, connection *conn, const void *data, size_t length)
{
    uint64_t id = conn->id;
    connection_send(loop, conn, data, length);
    if (loop_find(loop, id) != NULL)
        connection_read(loop, conn);
}

static void
go_on_with_tls(relay_loop *loop, connection *conn)
{
    ps_io io = ps_stream_handshake(&conn->stream);
    if (io == PS_IO_END || io == PS_IO_BROKEN) {
        connection_end(loop, conn, "TLS handshake failed");
        return;
    }
    conn->wants_write = io == PS_IO_WRITE;
    if (io == PS_IO_DONE) {
        conn->mode = MODE_FEED;
        relay_tell(loop->relay, conn->id, PS_RELAY_SECURE, NULL, 0);
    }
    update_interest(loop, conn);
}

void
connection_begin_tls(relay_loop *loop, connection *conn, ps_tls *tls, const void *early,
                     size_t length)
{
    ps_error err;
    if (conn->mode != MODE_FEED || conn->stream.ssl != NULL)
        return;
    if (ps_stream_begin_tls(&conn->stream, tls, early, length, &err) != PS_OK) {
        connection_end(loop, conn, err.text);
        return;
    }
    conn->mode = MODE_TLS;
    conn->wanted = false;
    go_on_with_tls(loop, conn);
}

static void
look(relay_loop *loop, connection *conn)
{
    ps_io io = ps_stream_peek(&conn->stream);
    conn->wants_write = io == PS_IO_WRITE;
    if (io == PS_IO_END || io == PS_IO_BROKEN) {
        connection_end(loop, conn, NULL);
        return;
    }
    if (io == PS_IO_DONE) {
        conn->wanted = false;
        relay_tell(loop->relay, conn->id, PS_RELAY_READABLE, NULL, 0);
    }
    update_interest(loop, conn);
}

void
connection_watch(relay_loop *loop, connection *conn)
{
    if (conn->mode != MODE_FEED && conn->mode != MODE_HOLD)
        return;
    conn->mode = MODE_HOLD;
    conn->wanted = true;
    look(loop, conn);
}

/* --- joined */

/* A client is joined again with the backend that it had, or one that was made like it: its
 * unnamed statement is still there. */
static void
keep_unnamed(connection *client)
{
    ps_session *session = client->session;
    free(client->unnamed);
    client->unnamed = session->unnamed;
    client->unnamed_length = session->unnamed != NULL ? session->unnamed_length : 0;
    session->unnamed = NULL;
}

static void
give_unnamed_back(connection *client)
{
    ps_session *session = client->session;
    session->unnamed = client->unnamed;
    session->unnamed_length = session->unnamed_have = client->unnamed_length;
    client->unnamed = NULL;
}

static void
part(relay_loop *loop, connection *client, ps_relay_kind kind, uint8_t *words, size_t length)
{
    keep_unnamed(client);
    free_session(client);
    client->peer = NULL;
    client->mode = MODE_HOLD;
    client->holding = false;
    client->wanted = true;
    relay_tell(loop->relay, client->id, kind, words, length);
    look(loop, client);
}

/* The backend is gone, and its session was at rest: the client need not know. */
static void
leave_client(relay_loop *loop, connection *server)
{
    connection *client = server->peer;
    size_t length = server->withheld_length;
    uint8_t *told = malloc(length + 1);
    if (told != NULL) {
        told[0] = client->session->spoken;
        if (length > 0)
            memcpy(told + 1, server->withheld, length);
    }
    server->peer = NULL;
    release(loop, server, NULL);
    part(loop, client, PS_RELAY_LEFT, told, told != NULL ? length + 1 : 0);
}

static void
take_apart(relay_loop *loop, connection *client)
{
    connection *server = client->peer;
    server->peer = NULL;
    server->mode = MODE_FEED;
    server->wanted = false;
    update_interest(loop, server);
    ps_session *session = client->session;
    size_t length = session->unnamed != NULL ? session->unnamed_length : 0;
    uint8_t *unnamed = length > 0 ? malloc(length) : NULL;
    if (length > 0 && unnamed == NULL) {
        connection_end(loop, client, "out of memory");
        return;
    }
    if (length > 0)
        memcpy(unnamed, session->unnamed, length);
    part(loop, client, PS_RELAY_AT_REST, unnamed, length);
}

static bool
can_be_taken_apart(const connection *client)
{
    const connection *server = client->peer;
    return ps_session_at_rest(client->session) && !client->session->unnamed_lost &&
           client->out_end == 0 && server->out_end == 0 &&
           server->withheld == NULL && !client->reading_ended && !server->reading_ended;
}

void
connection_hold(relay_loop *loop, connection *client, bool now)
{
    if (client->mode != MODE_JOINED || !client->is_client)
        return;
    client->holding = !now;
    if (can_be_taken_apart(client))
        take_apart(loop, client);
}

/* Whether a piece of the backend's is to be kept back: an error that answers nothing. */
static bool
withhold(connection *server, const uint8_t *data, size_t length)
{
    bool unasked = server->withheld != NULL ||
                   (ps_session_at_rest(server->peer->session) && data[0] == 'E');
    if (!unasked || server->withheld_length + length > MAX_WITHHELD)
        return false;
    uint8_t *grown = realloc(server->withheld, server->withheld_length + length);
    if (grown == NULL)
        return false;
    memcpy(grown + server->withheld_length, data, length);
    server->withheld = grown;
    server->withheld_length += length;
    return true;
}

/* What was kept back goes out after all. */
static bool
let_go(connection *server)
{
    bool fine = put(server->peer, server->withheld, server->withheld_length);
    ps_session_from_server(server->peer->session, server->withheld, server->withheld_length);
    free(server->withheld);
    server->withheld = NULL;
    server->withheld_length = 0;
    return fine;
}

/* False: it is broken. */
static bool
pass_on(connection *from, const uint8_t *data, size_t length)
{
    if (from->is_client) {
        if (from->peer->withheld != NULL && !let_go(from->peer))
            return false;
        ps_session_from_client(from->session, data, length);
        return put(from->peer, data, length);
    }
    if (withhold(from, data, length))
        return true;
    if (from->withheld != NULL && !let_go(from))
        return false;
    ps_session_from_server(from->peer->session, data, length);
    return put(from->peer, data, length);
}

/* `from` sends nothing more. Returns whether the pair is still there. */
static bool
ended(relay_loop *loop, connection *from, ps_io io)
{
    connection *peer = from->peer;
    from->reading_ended = true;
    if (!from->is_client && ps_session_at_rest(peer->session) && !peer->reading_ended &&
        peer->out_end == 0 && from->out_end == 0) {
        leave_client(loop, from);
        return false;
    }
    if (!from->is_client && from->withheld != NULL)
        let_go(from);
    if (io == PS_IO_BROKEN && from->is_client) {
        connection_end(loop, from, NULL);
        return false;
    }
    if (peer->out_end > 0)
        return true; /* what is left goes out first: see connection_ready */
    if (!from->is_client) {
        connection_end(loop, from, NULL);
        return false;
    }
    finish_writing(peer);
    return true;
}

static void
pump(relay_loop *loop, connection *from)
{
    connection *peer = from->peer, *client = from->is_client ? from : from->peer;
    if (client->holding && can_be_taken_apart(client)) {
        take_apart(loop, client);
        return;
    }
    bool more = !from->reading_ended;
    for (int round = 0; round < ROUNDS && more && peer->out_end == 0; round++) {
        size_t moved;
        ps_io io = ps_stream_read(&from->stream, loop->scratch, PS_RELAY_BUFFER, &moved);
        from->wants_write = io == PS_IO_WRITE;
        more = false;
        if (io == PS_IO_READ || io == PS_IO_WRITE)
            break;
        if (io != PS_IO_DONE) {
            if (!ended(loop, from, io))
                return;
            break;
        }
        from->active_ms = loop->now_ms;
        if (!pass_on(from, loop->scratch, moved)) {
            connection_end(loop, from, NULL);
            return;
        }
        if (client->holding && can_be_taken_apart(client)) {
            take_apart(loop, client);
            return;
        }
        more = ps_stream_may_have_more(&from->stream, moved, PS_RELAY_BUFFER);
    }
    from->has_more = more && ps_stream_holds_bytes(&from->stream);
    update_interest(loop, from);
    update_interest(loop, peer);
}

void
connection_join(relay_loop *loop, connection *client, connection *server, const void *rest,
                size_t length)
{
    bool fit = client->is_client && !server->is_client && server->mode == MODE_FEED &&
               (client->mode == MODE_FEED || client->mode == MODE_HOLD);
    ps_session *session = fit ? malloc(sizeof *session) : NULL;
    if (session == NULL) {
        connection_end(loop, server, fit ? "out of memory" : "not in a mode to be joined");
        return;
    }
    ps_session_begin(session);
    if (client->login)
        loop->logins--;
    client->login = false;
    client->session = session;
    give_unnamed_back(client);
    client->peer = server;
    server->peer = client;
    client->mode = server->mode = MODE_JOINED;
    server->active_ms = client->active_ms; /* to be joined is no activity */
    if (length > 0 && !pass_on(client, rest, length)) {
        connection_end(loop, client, NULL);
        return;
    }
    pump(loop, client); /* TLS may have decrypted something already */
}

/* --- readiness */

static void
write_waiting(relay_loop *loop, connection *conn)
{
    if (!flush(conn)) {
        connection_end(loop, conn, NULL);
        return;
    }
    if (conn->out_end > 0)
        return;
    if (conn->mode == MODE_CLOSING) {
        connection_end(loop, conn, NULL);
        return;
    }
    if (conn->mode != MODE_JOINED) {
        update_interest(loop, conn);
        return;
    }
    if (conn->peer->reading_ended) {
        if (conn->is_client) {
            connection_end(loop, conn, NULL);
            return;
        }
        finish_writing(conn);
    }
    pump(loop, conn->peer);
}

void
connection_ready(relay_loop *loop, connection *conn, uint32_t events)
{
    uint64_t id = conn->id;
    if (conn->mode == MODE_TLS) {
        go_on_with_tls(loop, conn);
        return;
    }
    if ((events & EPOLLOUT) && conn->out_end > 0) {
        write_waiting(loop, conn);
        if (loop_find(loop, id) == NULL)
            return; /* that was its last */
    }
    bool hung_up = events & (EPOLLHUP | EPOLLERR);
    if (conn->mode == MODE_JOINED) {
        if (hung_up && (conn->reading_ended || conn->peer->out_end > 0) && conn->is_client)
            connection_end(loop, conn, NULL); /* nobody is there to take what waits */
        else
            pump(loop, conn);
    } else if (conn->wanted) {
        if (conn->mode == MODE_FEED)
            read_piece(loop, conn);
        else
            look(loop, conn);
    } else if (hung_up) {
        connection_end(loop, conn, NULL);
    }
}

void
connection_close(relay_loop *loop, connection *conn)
{
    if (conn->mode == MODE_JOINED || conn->out_end == 0) {
        if (conn->mode != MODE_JOINED && !conn->writing_ended)
            ps_stream_end(&conn->stream);
        connection_end(loop, conn, NULL);
        return;
    }
    conn->mode = MODE_CLOSING;
    update_interest(loop, conn);
}
