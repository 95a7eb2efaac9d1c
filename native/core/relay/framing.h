/*
 * Where messages begin in the two directions of a session, and whether the session is at rest.
 *
 * The relay moves bytes and never looks into a body, but it must know two things: that both
 * directions stand between two messages, and that the backend owes no answer and is outside a
 * transaction. Then, and only then, a session can be taken apart and put together elsewhere.
 *
 * Each Query, FunctionCall and Sync of a client is answered by exactly one ReadyForQuery, whose
 * one byte says whether a transaction is open. The one exception is a Sync that reaches a backend
 * which copies in: it is passed over. A client that sends one before it has heard that the copy
 * began leaves `awaited` one too high for ever: that session never counts as at rest, which
 * costs a process, and never cuts anybody off.
 *
 * Messages of the extended protocol run as they come, in a transaction that only the Sync behind
 * them ends, and their answers may wait in the backend for it: from the first of them to the Sync
 * a session is not at rest, however long its client takes (a pipeline that is filled row by row).
 *
 * The one thing of a session that no backend can be asked for is its unnamed statement, which a
 * driver may bind again: so the last Parse that made one is kept here, within a bound.
 *
 * Pure: no socket, no clock. Source: the chapter "Message Flow" of Postgres's documentation.
 */
#ifndef PS_RELAY_FRAMING_H
#define PS_RELAY_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PS_FRAME_HEAD = 5,           /* a message's type and its length */
    PS_UNNAMED_LIMIT = 64 * 1024 /* of the Parse message that is kept */
};

typedef struct ps_framing {
    uint8_t head[PS_FRAME_HEAD + 1]; /* and the first byte of its body */
    uint8_t have;                    /* bytes of head that are here */
    uint32_t left;                   /* bytes of the body that are still to come */
    bool broken;                     /* a length that no message has: nothing is known any more */
} ps_framing;

typedef struct ps_session {
    ps_framing client, server;
    uint32_t queries;  /* Query, Execute and FunctionCall messages since it was last read */
    uint32_t awaited;  /* ReadyForQuery messages that the backend owes */
    bool unsynced;     /* the client has said something that a Sync is still to follow */
    uint8_t status;    /* of the last one: I, T or E */
    bool copying_in;
    bool spoken;       /* whether the client has said anything since it was joined */
    bool copying_both; /* replication: never at rest again */
    bool failed;       /* the backend's last message is an error */
    bool leaves;       /* the client has said good-bye */
    uint8_t *unnamed;  /* the body of the last Parse without a name; NULL for none */
    uint32_t unnamed_length, unnamed_have;
    bool unnamed_lost; /* there is one, and it is longer than what is kept */
} ps_session;

/* A session whose backend has just said ReadyForQuery, outside a transaction. */
void ps_session_begin(ps_session *session);
void ps_session_end(ps_session *session);

/* Bytes in the order in which they are passed on. */
void ps_session_from_client(ps_session *session, const uint8_t *data, size_t length);
void ps_session_from_server(ps_session *session, const uint8_t *data, size_t length);

/* Whether the backend's bytes stand between two messages: one of somebody else's would be read. */
bool ps_session_server_between(const ps_session *session);

/* Bytes of the backend's until it may stand between two messages: of the one that is under way,
 * or, while that does not say its length, of its head. 0: it stands so, or nothing is known. */
size_t ps_session_server_left(const ps_session *session);

/* Whether both directions stand between messages, nothing is owed and no transaction is open. */
bool ps_session_at_rest(const ps_session *session);

#endif
