/*
 * One bidirectional gRPC call over one connection of its own (transport.h).
 *
 * Knows HTTP/2 (through nghttp2) and gRPC's framing, and nothing of Postgres: it never waits,
 * never raises, and calls back nobody. The caller waits for the socket and pumps.
 */
#ifndef PAGESTORE_GRPC_STREAM_H
#define PAGESTORE_GRPC_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nghttp2/nghttp2.h>

#include "transport.h"

typedef struct GrpcBuffer
{
    uint8_t *data;
    size_t start; /* bytes before it are consumed */
    size_t end;
    size_t capacity;
} GrpcBuffer;

typedef struct GrpcStream
{
    Transport transport;
    nghttp2_session *session;
    int32_t stream_id;
    const uint8_t *unsent; /* what nghttp2 gave us and the socket did not take yet */
    size_t unsent_length;
    GrpcBuffer out;  /* framed messages, not yet given to nghttp2 */
    GrpcBuffer in;   /* framed messages, not yet taken by the caller */
    bool ended;      /* by the server, or by a failure */
    int http_status; /* 0: not answered yet */
    int grpc_status; /* -1: no trailers yet */
    char fault[256]; /* why it ended, for people */
} GrpcStream;

typedef struct GrpcTarget
{
    TransportTarget at;
    const char *token; /* what the call shows; "" for nothing */
} GrpcTarget;

/* Begins to connect and to call `path`. False, with `fault` set, when that fails at once. */
extern bool grpc_stream_open(GrpcStream *stream, const GrpcTarget *target, const char *path);
extern void grpc_stream_close(GrpcStream *stream);

/* Room for one message of `length` bytes, to be filled in before the next pump; or NULL. */
extern uint8_t *grpc_stream_put(GrpcStream *stream, size_t length);

/* Sends and receives as much as the socket allows. False once the stream has ended. */
extern bool grpc_stream_pump(GrpcStream *stream);
extern bool grpc_stream_wants_write(GrpcStream *stream);

/* The next whole message, valid until the next pump. False when there is none. */
extern bool grpc_stream_next(GrpcStream *stream, const uint8_t **message, size_t *length);

#endif
