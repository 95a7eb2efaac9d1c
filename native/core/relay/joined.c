/* A client and its backend, joined: bytes pass between them until one ends, or until the session is
 * at rest and is taken apart. */
#include "relay/joined.h"

#include "relay/loop.h"

#include <stdlib.h>
#include <string.h>

enum {
    ROUNDS = 16,             /* reads of one connection before others have their turn */
    MAX_WITHHELD = 16 * 1024 /* of an error that nobody asked for */
};

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
    connection_end_session(client);
    client->peer = NULL;
    client->mode = MODE_HOLD;
    client->holding = false;
    client->wanted = true;
    relay_tell(loop->relay, client->id, kind, words, length);
    connection_look(loop, client);
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
    connection_release(loop, server, NULL);
    part(loop, client, PS_RELAY_LEFT, told, told != NULL ? length + 1 : 0);
}

static void
take_apart(relay_loop *loop, connection *client)
{
    connection *server = client->peer;
    server->peer = NULL;
    server->mode = MODE_FEED;
    server->wanted = false;
    connection_update_interest(loop, server);
    ps_session *session = client->session;
    size_t length = session->unnamed != NULL ? session->unnamed_length : 0;
    uint8_t *told = malloc(1 + length);
    if (told == NULL) {
        connection_end(loop, client, "out of memory");
        return;
    }
    told[0] = session->spoken;
    if (length > 0)
        memcpy(told + 1, session->unnamed, length);
    part(loop, client, PS_RELAY_AT_REST, told, 1 + length);
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
    bool fine = connection_put(server->peer, server->withheld, server->withheld_length);
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
        return connection_put(from->peer, data, length);
    }
    if (withhold(from, data, length))
        return true;
    if (from->withheld != NULL && !let_go(from))
        return false;
    ps_session_from_server(from->peer->session, data, length);
    return connection_put(from->peer, data, length);
}

/* Adds what the client has asked since then to its meter. */
static void
count_queries(relay_loop *loop, connection *client)
{
    if (client->session->queries == 0)
        return;
    relay_count(loop->relay, client->meter, client->session->queries);
    client->session->queries = 0;
}

/* --- last words: see ps_relay_dismiss */

/* A client that is dismissed hears its last words, if it stands between two messages. False: it has
 * to wait, else it is gone. */
static bool
say_last_words(relay_loop *loop, connection *client)
{
    if (ps_session_server_left(client->session) > 0)
        return false;
    if (ps_session_server_between(client->session) &&
        !connection_put(client, client->last_words, client->last_words_length))
        connection_end(loop, client, NULL);
    else
        connection_close(loop, client);
    return true;
}

/* Of what the backend of a client that is dismissed says, the rest of the message that is under
 * way. False: the client is gone. */
static bool
finish_message(relay_loop *loop, connection *client, const uint8_t *data, size_t length)
{
    size_t left;
    while (length > 0 && (left = ps_session_server_left(client->session)) > 0) {
        size_t passed = left < length ? left : length;
        ps_session_from_server(client->session, data, passed);
        if (!connection_put(client, data, passed)) {
            connection_end(loop, client, NULL);
            return false;
        }
        data += passed;
        length -= passed;
    }
    return !say_last_words(loop, client);
}

void
connection_dismiss(relay_loop *loop, connection *client, const void *words, size_t length)
{
    uint64_t id = client->id;
    if (client->last_words != NULL)
        return;
    if (client->mode != MODE_JOINED) {
        connection_send(loop, client, words, length);
        if (loop_find(loop, id) != NULL)
            connection_close(loop, client);
        return;
    }
    client->last_words = client->is_client ? malloc(length + 1) : NULL;
    if (client->last_words == NULL) {
        connection_end(loop, client, "out of memory");
        return;
    }
    memcpy(client->last_words, words, length);
    client->last_words_length = length;
    client->holding = false;
    if (!say_last_words(loop, client)) {
        connection_update_interest(loop, client);
        connection_update_interest(loop, client->peer);
    }
}

/* --- the end of one */

/* Whether a client would hear nothing of the end of its backend but the close: one that was killed
 * says nothing, and one that was stopped has said it. */
static bool
ends_unsaid(const ps_session *session)
{
    return ps_session_server_between(session) && !session->failed && !session->leaves;
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
    if (!from->is_client && ends_unsaid(peer->session))
        connection_put(peer, loop->options->gone, loop->options->gone_length);
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
    connection_finish_writing(peer);
    return true;
}

void
joined_pump(relay_loop *loop, connection *from)
{
    connection *peer = from->peer, *client = from->is_client ? from : from->peer;
    if (client->holding && can_be_taken_apart(client)) {
        take_apart(loop, client);
        return;
    }
    bool more = !from->reading_ended && from->last_words == NULL;
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
        if (client->last_words != NULL) {
            if (!finish_message(loop, client, loop->scratch, moved))
                return;
        } else if (!pass_on(from, loop->scratch, moved)) {
            connection_end(loop, from, NULL);
            return;
        }
        count_queries(loop, client);
        if (client->holding && can_be_taken_apart(client)) {
            take_apart(loop, client);
            return;
        }
        more = ps_stream_may_have_more(&from->stream, moved, PS_RELAY_BUFFER);
    }
    from->has_more = more && ps_stream_holds_bytes(&from->stream);
    connection_update_interest(loop, from);
    connection_update_interest(loop, peer);
}

void
connection_join(relay_loop *loop, connection *client, connection *server, uint32_t meter,
                const void *rest, size_t length)
{
    if (client->mode == MODE_JOINED && client->peer == server)
        return; /* who gave up parting them does not know which of both came to pass */
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
    loop_admit(loop, client);
    client->session = session;
    client->meter = meter;
    give_unnamed_back(client);
    client->peer = server;
    server->peer = client;
    client->mode = server->mode = MODE_JOINED;
    server->active_ms = client->active_ms; /* to be joined is no activity */
    if (length > 0 && !pass_on(client, rest, length)) {
        connection_end(loop, client, NULL);
        return;
    }
    count_queries(loop, client);
    joined_pump(loop, client); /* TLS may have decrypted something already */
}

void
joined_sever(relay_loop *loop, connection *client)
{
    connection *server = client->peer;
    server->peer = client->peer = NULL;
    connection_release(loop, server, NULL);
    connection_end_session(client);
    client->mode = MODE_HOLD;
    client->wanted = false;
}
