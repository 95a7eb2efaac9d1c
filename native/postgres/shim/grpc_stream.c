#include "grpc_stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW (64u << 20)        /* flow control must never be what limits a scan */
#define MAX_FRAME (1u << 20)
#define MAX_MESSAGE (16u << 20)   /* far above 1,024 pages */
#define MAX_TOKEN 1024
#define FRAME_HEAD 5              /* compression flag, then the length, big-endian */
#define RECEIVE_CHUNK 131072

__attribute__((format(printf, 2, 3))) static bool
fail(GrpcStream *stream, const char *format, ...)
{
    va_list args;

    if (!stream->ended || stream->fault[0] == '\0')
    {
        va_start(args, format);
        vsnprintf(stream->fault, sizeof stream->fault, format, args);
        va_end(args);
    }
    stream->ended = true;
    return false;
}

static bool
lost(GrpcStream *stream)
{
    return fail(stream, "%s", stream->transport.fault);
}

/* Room for `length` more bytes at the end, or NULL. */
static uint8_t *
buffer_reserve(GrpcBuffer *buffer, size_t length)
{
    size_t used = buffer->end - buffer->start;

    if (buffer->start > 0 && (used == 0 || buffer->end + length > buffer->capacity))
    {
        memmove(buffer->data, buffer->data + buffer->start, used);
        buffer->start = 0;
        buffer->end = used;
    }
    if (buffer->end + length > buffer->capacity)
    {
        size_t capacity = (used + length) * 2;
        uint8_t *data = realloc(buffer->data, capacity);

        if (data == NULL)
            return NULL;
        buffer->data = data;
        buffer->capacity = capacity;
    }
    return buffer->data + buffer->end;
}

static void
buffer_free(GrpcBuffer *buffer)
{
    free(buffer->data);
    memset(buffer, 0, sizeof *buffer);
}

/* What nghttp2 calls */

static ssize_t
give_data(nghttp2_session *session, int32_t stream_id, uint8_t *out, size_t capacity,
          uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    GrpcStream *stream = arg;
    size_t length = stream->out.end - stream->out.start;

    if (length == 0)
        return NGHTTP2_ERR_DEFERRED;
    if (length > capacity)
        length = capacity;
    memcpy(out, stream->out.data + stream->out.start, length);
    stream->out.start += length;
    return (ssize_t) length;
}

static int
take_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
          size_t length, void *arg)
{
    GrpcStream *stream = arg;
    uint8_t *room = buffer_reserve(&stream->in, length);

    if (room == NULL)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    memcpy(room, data, length);
    stream->in.end += length;
    return 0;
}

static int
take_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
            size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags,
            void *arg)
{
    GrpcStream *stream = arg;

    if (name_length == 7 && memcmp(name, ":status", 7) == 0)
        stream->http_status = atoi((const char *) value);
    else if (name_length == 11 && memcmp(name, "grpc-status", 11) == 0)
        stream->grpc_status = atoi((const char *) value);
    else if (name_length == 12 && memcmp(name, "grpc-message", 12) == 0)
        snprintf(stream->fault, sizeof stream->fault, "%.*s", (int) value_length, value);
    return 0;
}

static int
stream_closed(nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *arg)
{
    GrpcStream *stream = arg;
    char message[sizeof stream->fault / 2];

    snprintf(message, sizeof message, "%.*s", (int) sizeof message - 1, stream->fault);
    if (stream->grpc_status > 0)
        fail(stream, "ended the call with gRPC status %d: %s", stream->grpc_status, message);
    if (stream->http_status != 0 && stream->http_status != 200)
        fail(stream, "answered with HTTP status %d", stream->http_status);
    fail(stream, "ended the stream (%s)", nghttp2_http2_strerror(error_code));
    return 0;
}

/* Opening and closing */

static bool
open_session(GrpcStream *stream)
{
    nghttp2_session_callbacks *callbacks;
    int rc;

    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return false;
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, take_data);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, take_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, stream_closed);
    rc = nghttp2_session_client_new(&stream->session, callbacks, stream);
    nghttp2_session_callbacks_del(callbacks);
    return rc == 0;
}

#define HEADER(name, value)                                                                       \
    {                                                                                             \
        (uint8_t *) (name), (uint8_t *) (value), strlen(name), strlen(value),                     \
            NGHTTP2_NV_FLAG_NONE                                                                  \
    }

static bool
submit_call(GrpcStream *stream, const GrpcTarget *target, const char *path)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, MAX_FRAME},
    };
    nghttp2_data_provider provider = {.read_callback = give_data};
    char authority[300] = "localhost";
    char authorization[MAX_TOKEN + 8];
    size_t count;

    if (target->at.host[0] != '/')
        snprintf(authority, sizeof authority, "%s:%s", target->at.host, target->at.port);
    snprintf(authorization, sizeof authorization, "Bearer %s", target->token);
    const nghttp2_nv headers[] = {
        HEADER(":method", "POST"),
        HEADER(":scheme", stream->transport.tls == NULL ? "http" : "https"),
        HEADER(":path", path),
        HEADER(":authority", authority),
        HEADER("te", "trailers"),
        HEADER("content-type", "application/grpc"),
        HEADER("user-agent", "pagestore-shim"),
        HEADER("authorization", authorization), /* the last: left out where there is none */
    };

    count = sizeof headers / sizeof headers[0] - (target->token[0] == '\0' ? 1 : 0);
    if (nghttp2_submit_settings(stream->session, NGHTTP2_FLAG_NONE, settings,
                                sizeof settings / sizeof settings[0]) != 0)
        return false;
    if (nghttp2_session_set_local_window_size(stream->session, NGHTTP2_FLAG_NONE, 0, WINDOW) != 0)
        return false;
    stream->stream_id =
        nghttp2_submit_request(stream->session, NULL, headers, count, &provider, NULL);
    return stream->stream_id > 0;
}

bool
grpc_stream_open(GrpcStream *stream, const GrpcTarget *target, const char *path)
{
    memset(stream, 0, sizeof *stream);
    stream->grpc_status = -1;
    if (!transport_open(&stream->transport, &target->at))
        return lost(stream);
    if (!open_session(stream) || !submit_call(stream, target, path))
        return fail(stream, "no memory for an HTTP/2 session");
    return true;
}

void
grpc_stream_close(GrpcStream *stream)
{
    nghttp2_session_del(stream->session);
    stream->session = NULL;
    transport_close(&stream->transport);
    buffer_free(&stream->out);
    buffer_free(&stream->in);
    stream->ended = true;
}

/* Messages */

uint8_t *
grpc_stream_put(GrpcStream *stream, size_t length)
{
    uint8_t *frame = buffer_reserve(&stream->out, FRAME_HEAD + length);

    if (frame == NULL)
        return NULL;
    frame[0] = 0;
    frame[1] = (uint8_t) (length >> 24);
    frame[2] = (uint8_t) (length >> 16);
    frame[3] = (uint8_t) (length >> 8);
    frame[4] = (uint8_t) length;
    stream->out.end += FRAME_HEAD + length;
    nghttp2_session_resume_data(stream->session, stream->stream_id);
    return frame + FRAME_HEAD;
}

bool
grpc_stream_next(GrpcStream *stream, const uint8_t **message, size_t *length)
{
    const uint8_t *frame = stream->in.data + stream->in.start;
    size_t available = stream->in.end - stream->in.start;
    size_t wanted;

    if (available < FRAME_HEAD)
        return false;
    wanted = (size_t) frame[1] << 24 | (size_t) frame[2] << 16 | (size_t) frame[3] << 8 | frame[4];
    if (frame[0] != 0 || wanted > MAX_MESSAGE)
        return fail(stream, "sent a message that is compressed or too long (%zu bytes)", wanted);
    if (available < FRAME_HEAD + wanted)
        return false;
    *message = frame + FRAME_HEAD;
    *length = wanted;
    stream->in.start += FRAME_HEAD + wanted;
    return true;
}

/* The socket */

static bool
send_all(GrpcStream *stream)
{
    for (;;)
    {
        ssize_t sent;

        if (stream->unsent_length == 0)
        {
            ssize_t length = nghttp2_session_mem_send(stream->session, &stream->unsent);

            if (length < 0)
                return fail(stream, "HTTP/2: %s", nghttp2_strerror((int) length));
            if (length == 0)
                return true;
            stream->unsent_length = (size_t) length;
        }
        sent = transport_send(&stream->transport, stream->unsent, stream->unsent_length);
        if (sent < 0)
            return lost(stream);
        if (sent == 0)
            return true;
        stream->unsent += sent;
        stream->unsent_length -= (size_t) sent;
    }
}

static bool
receive_all(GrpcStream *stream)
{
    static uint8_t chunk[RECEIVE_CHUNK];
    ssize_t received;
    ssize_t taken;

    do
    {
        received = transport_receive(&stream->transport, chunk, sizeof chunk);
        if (received < 0)
            return lost(stream);
        if (received == 0)
            return true;
        taken = nghttp2_session_mem_recv(stream->session, chunk, (size_t) received);
        if (taken < 0)
            return fail(stream, "HTTP/2: %s", nghttp2_strerror((int) taken));
        /* TLS gives at most a record at once, and the socket does not tell of what it holds. */
    } while ((size_t) received == sizeof chunk || stream->transport.tls != NULL);
    return true;
}

bool
grpc_stream_pump(GrpcStream *stream)
{
    if (stream->ended)
        return false;
    if (!transport_progress(&stream->transport))
        return lost(stream);
    if (stream->transport.connecting || stream->transport.greeting)
        return true;
    if (!send_all(stream) || !receive_all(stream) || !send_all(stream))
        return false;
    if (!nghttp2_session_want_read(stream->session) &&
        !nghttp2_session_want_write(stream->session))
        return fail(stream, "does not speak HTTP/2, or ended the session");
    return !stream->ended;
}

bool
grpc_stream_wants_write(GrpcStream *stream)
{
    return stream->transport.connecting || stream->transport.wants_write ||
           (stream->unsent_length > 0 && !stream->transport.greeting);
}
