#include "relay/framing.h"

#include <stdlib.h>
#include <string.h>

typedef void on_message(ps_session *session, uint8_t kind, uint32_t length, uint8_t first);

static uint32_t
length_at(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Collects a head up to `wanted` bytes; the bytes that it took. */
static size_t
collect(ps_framing *framing, size_t wanted, const uint8_t *data, size_t length)
{
    size_t missing = wanted - framing->have;
    size_t taken = missing < length ? missing : length;
    memcpy(framing->head + framing->have, data, taken);
    framing->have += (uint8_t)taken;
    return taken;
}

/* --- the unnamed statement */

static void
forget_unnamed(ps_session *session)
{
    free(session->unnamed);
    session->unnamed = NULL;
    session->unnamed_length = session->unnamed_have = 0;
    session->unnamed_lost = false;
}

static void
begin_unnamed(ps_session *session, uint32_t length)
{
    forget_unnamed(session);
    session->unnamed = length <= PS_UNNAMED_LIMIT ? malloc(length) : NULL;
    session->unnamed_length = length;
    session->unnamed_lost = session->unnamed == NULL;
}

static void
keep_unnamed(ps_session *session, const uint8_t *data, size_t length)
{
    /* Bodies of later messages come after it is whole, and find no room. */
    size_t room = session->unnamed_length - session->unnamed_have;
    size_t taken = length < room ? length : room;
    if (session->unnamed == NULL || taken == 0)
        return;
    memcpy(session->unnamed + session->unnamed_have, data, taken);
    session->unnamed_have += (uint32_t)taken;
}

/* --- messages */

static inline void
client_said(ps_session *session, uint8_t kind, uint32_t length, uint8_t first)
{
    switch (kind) {
        case 'P':
            session->unsynced = true;
            if (length > 0 && first == '\0')
                begin_unnamed(session, length);
            break;
        case 'E':
            session->queries++;
            session->unsynced = true;
            break;
        case 'B':
        case 'C':
        case 'D':
            session->unsynced = true;
            break;
        case 'Q':
            forget_unnamed(session); /* as the backend does */
            session->queries++;
            session->awaited++;
            break;
        case 'F':
            session->queries++;
            session->awaited++;
            break;
        case 'S':
            if (session->copying_in)
                break;
            session->awaited++;
            session->unsynced = false;
            break;
        case 'X':
            session->leaves = true;
            break;
        case 'c':
        case 'f':
            session->copying_in = false;
            break;
        default:
            break;
    }
}

static inline void
server_said(ps_session *session, uint8_t kind, uint32_t length, uint8_t first)
{
    (void)length;
    session->failed = kind == 'E';
    switch (kind) {
        case 'Z':
            session->status = first;
            session->copying_in = false;
            if (session->awaited > 0)
                session->awaited--;
            break;
        case 'G':
            session->copying_in = true;
            break;
        case 'E':
            session->copying_in = false;
            break;
        case 'W':
            session->copying_both = true;
            break;
        default:
            break;
    }
}

/*
 * The head of a message, from bytes that are here whole with the one behind them: that is so for
 * all but the last of a piece, and what a COPY consists of. False: it is broken.
 */
static inline bool
take_head(ps_session *session, ps_framing *framing, on_message *told, const uint8_t *head)
{
    uint32_t length = length_at(head + 1);
    if (length < 4) {
        framing->broken = true;
        return false;
    }
    framing->left = length - 4;
    told(session, head[0], framing->left, framing->left > 0 ? head[PS_FRAME_HEAD] : 0);
    return true;
}

/*
 * Each message is told once its first byte of body is here, or that it has none. To wait for that
 * byte costs nothing, since what is of interest has one or comes alone.
 */
static inline void
feed(ps_session *session, ps_framing *framing, on_message *told, const uint8_t *data, size_t length)
{
    while (length > 0 && !framing->broken) {
        if (framing->left > 0) {
            size_t passed = framing->left < length ? framing->left : length;
            if (framing == &session->client)
                keep_unnamed(session, data, passed);
            framing->left -= (uint32_t)passed;
            data += passed;
            length -= passed;
            continue;
        }
        if (framing->have == 0 && length > PS_FRAME_HEAD) {
            if (!take_head(session, framing, told, data))
                return;
            data += PS_FRAME_HEAD;
            length -= PS_FRAME_HEAD;
            continue;
        }
        size_t taken = 0;
        if (framing->have < PS_FRAME_HEAD)
            taken = collect(framing, PS_FRAME_HEAD, data, length);
        data += taken;
        length -= taken;
        if (framing->have < PS_FRAME_HEAD || (length == 0 && length_at(framing->head + 1) > 4))
            return;
        framing->head[PS_FRAME_HEAD] = length > 0 ? *data : 0;
        framing->have = 0;
        if (!take_head(session, framing, told, framing->head))
            return;
    }
}

void
ps_session_begin(ps_session *session)
{
    memset(session, 0, sizeof *session);
    session->status = 'I';
}

void
ps_session_end(ps_session *session)
{
    forget_unnamed(session);
}

void
ps_session_from_client(ps_session *session, const uint8_t *data, size_t length)
{
    session->spoken = true;
    feed(session, &session->client, client_said, data, length);
}

void
ps_session_from_server(ps_session *session, const uint8_t *data, size_t length)
{
    feed(session, &session->server, server_said, data, length);
}

static bool
between_messages(const ps_framing *framing)
{
    return framing->have == 0 && framing->left == 0 && !framing->broken;
}

bool
ps_session_server_between(const ps_session *session)
{
    return between_messages(&session->server);
}

size_t
ps_session_server_left(const ps_session *session)
{
    const ps_framing *server = &session->server;
    if (server->broken || between_messages(server))
        return 0;
    if (server->left > 0)
        return server->left;
    return server->have < PS_FRAME_HEAD ? (size_t)(PS_FRAME_HEAD - server->have)
                                        : length_at(server->head + 1) - 4;
}

bool
ps_session_at_rest(const ps_session *session)
{
    return session->awaited == 0 && !session->unsynced && session->status == 'I' &&
           !session->copying_in && !session->copying_both && between_messages(&session->client) &&
           between_messages(&session->server);
}
