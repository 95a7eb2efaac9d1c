#include "relay/joined.h"
#include "relay/loop.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

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

void
connection_end_session(connection *client)
{
    if (client->session != NULL)
        ps_session_end(client->session);
    free(client->session);
    client->session = NULL;
}

void
connection_release(relay_loop *loop, connection *conn, const char *why)
{
    uint8_t *words = why != NULL ? (uint8_t *)strdup(why) : NULL;
    relay_tell(loop->relay, conn->id, PS_RELAY_ENDED, words, words != NULL ? strlen(why) : 0);
    loop_forget(loop, conn);
    ps_stream_close(&conn->stream);
    connection_end_session(conn);
    free(conn->out);
    free(conn->withheld);
    free(conn->unnamed);
    free(conn->last_words);
    free(conn);
}

void
connection_end(relay_loop *loop, connection *conn, const char *why)
{
    connection *peer = conn->peer;
    connection_release(loop, conn, why);
    if (peer != NULL)
        connection_release(loop, peer, why);
}

void
connection_update_interest(relay_loop *loop, connection *conn)
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
            reads = !conn->reading_ended && conn->peer->out_end == 0 && conn->last_words == NULL;
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

void
connection_finish_writing(connection *conn)
{
    if (!conn->writing_ended) {
        conn->writing_ended = true;
        ps_stream_end(&conn->stream);
    }
}

bool
connection_put(connection *conn, const uint8_t *data, size_t length)
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
    if (conn->mode == MODE_CLOSING)
        return;
    /* Within a message of its backend's a joined client would take it for the rest of that. */
    if (conn->mode == MODE_JOINED &&
        (!conn->is_client || !ps_session_server_between(conn->session)))
        return;
    if (!connection_put(conn, data, length))
        connection_end(loop, conn, NULL);
    else
        connection_update_interest(loop, conn);
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
    connection_update_interest(loop, conn);
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
    connection_update_interest(loop, conn);
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

void
connection_look(relay_loop *loop, connection *conn)
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
    connection_update_interest(loop, conn);
}

void
connection_watch(relay_loop *loop, connection *conn)
{
    if (conn->mode != MODE_FEED && conn->mode != MODE_HOLD)
        return;
    loop_admit(loop, conn);
    conn->mode = MODE_HOLD;
    conn->wanted = true;
    connection_look(loop, conn);
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
        connection_update_interest(loop, conn);
        return;
    }
    if (conn->peer->reading_ended) {
        if (conn->is_client) {
            connection_end(loop, conn, NULL);
            return;
        }
        connection_finish_writing(conn);
    }
    joined_pump(loop, conn->peer);
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
        bool waits = conn->reading_ended || conn->peer->out_end > 0 || conn->last_words != NULL;
        if (hung_up && waits && conn->is_client)
            connection_end(loop, conn, NULL); /* nobody is there to take it */
        else
            joined_pump(loop, conn);
    } else if (conn->wanted) {
        if (conn->mode == MODE_FEED)
            read_piece(loop, conn);
        else
            connection_look(loop, conn);
    } else if (hung_up) {
        connection_end(loop, conn, NULL);
    }
}

void
connection_close(relay_loop *loop, connection *conn)
{
    if (conn->mode == MODE_JOINED && !conn->is_client && conn->peer->last_words != NULL)
        return; /* it has yet to end its message, and goes with its client */
    if (conn->mode == MODE_JOINED && conn->is_client)
        joined_sever(loop, conn);
    if (conn->mode == MODE_JOINED || conn->out_end == 0) {
        if (conn->mode != MODE_JOINED && !conn->writing_ended)
            ps_stream_end(&conn->stream);
        connection_end(loop, conn, NULL);
        return;
    }
    conn->mode = MODE_CLOSING;
    connection_update_interest(loop, conn);
}
