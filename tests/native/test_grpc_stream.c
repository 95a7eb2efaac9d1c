/*
 * The shim's gRPC stream against a real HTTP/2 server in the same process: messages of many
 * sizes in pieces of many sizes, then thousands of damaged byte streams, which must end the
 * stream or be survived, and never be read past their end (the sanitizers watch).
 */
#define _GNU_SOURCE
#include "../../native/postgres/shim/grpc_stream.c"

#include <arpa/inet.h>
#include <assert.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ROUNDS 1500
#define ANSWER_MAX (2u << 20)
#define TOKEN "pst1_of_the_test"
#define TARGET(where, service)                                                                     \
    (const GrpcTarget)                                                                            \
    {                                                                                             \
        .at = {.host = (where), .port = (service), .authority = ""}, .token = TOKEN               \
    }

typedef struct Server {
    int listener;
    int fd;
    char port[16];
    nghttp2_session *session;
    int32_t stream_id;
    uint8_t answer[ANSWER_MAX]; /* DATA to send, after which it waits */
    size_t answer_length;
    size_t answer_sent;
    size_t received; /* DATA */
    unsigned shown;  /* how often the token was */
    size_t piece;    /* bytes a write, at most */
    unsigned damage; /* one byte in so many is changed; 0: none */
    const uint8_t *unsent;
    size_t unsent_length;
} Server;

static uint64_t random_state = 42;

static uint32_t
random_u32(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

static ssize_t
give_answer(nghttp2_session *session, int32_t stream_id, uint8_t *out, size_t capacity,
            uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    Server *server = arg;
    size_t length = server->answer_length - server->answer_sent;

    if (length == 0)
        return NGHTTP2_ERR_DEFERRED;
    if (length > capacity)
        length = capacity;
    memcpy(out, server->answer + server->answer_sent, length);
    server->answer_sent += length;
    return (ssize_t)length;
}

static int
begin_answer(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    Server *server = arg;
    nghttp2_data_provider provider = {.read_callback = give_answer};
    const nghttp2_nv headers[] = {HEADER(":status", "200"),
                                  HEADER("content-type", "application/grpc")};

    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    server->stream_id = frame->hd.stream_id;
    return nghttp2_submit_response(session, frame->hd.stream_id, headers, 2, &provider);
}

static int
count_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
           size_t length, void *arg)
{
    ((Server *)arg)->received += length;
    return 0;
}

static int
look_for_token(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
               size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags,
               void *arg)
{
    Server *server = arg;
    const char *expected = "Bearer " TOKEN;

    if (name_length == 13 && memcmp(name, "authorization", 13) == 0 &&
        value_length == strlen(expected) && memcmp(value, expected, value_length) == 0)
        server->shown++;
    return 0;
}

static void
server_listen(Server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;

    server->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert(bind(server->listener, (struct sockaddr *)&address, sizeof address) == 0);
    assert(listen(server->listener, 8) == 0);
    assert(getsockname(server->listener, (struct sockaddr *)&address, &length) == 0);
    snprintf(server->port, sizeof server->port, "%d", ntohs(address.sin_port));
}

static void
server_accept(Server *server)
{
    nghttp2_session_callbacks *callbacks;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 10}};

    server->fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK);
    assert(server->fd >= 0);
    server->answer_length = server->answer_sent = server->received = 0;
    server->unsent_length = 0;
    server->stream_id = 0;
    assert(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, begin_answer);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, count_data);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, look_for_token);
    assert(nghttp2_session_server_new(&server->session, callbacks, server) == 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(server->session, NGHTTP2_FLAG_NONE, settings, 1);
}

static void
server_close(Server *server)
{
    nghttp2_session_del(server->session);
    close(server->fd);
}

/* Sends a piece of what is unsent, damaged as wanted. False when the socket takes no more. */
static bool
send_piece(Server *server)
{
    uint8_t chunk[65536];
    size_t piece = server->unsent_length < server->piece ? server->unsent_length : server->piece;
    ssize_t sent;

    memcpy(chunk, server->unsent, piece);
    for (size_t i = 0; server->damage > 0 && i < piece; i++)
        if (random_u32() % server->damage == 0)
            chunk[i] ^= (uint8_t)(1u << random_u32() % 8);
    sent = send(server->fd, chunk, piece, MSG_NOSIGNAL);
    if (sent <= 0)
        return false;
    server->unsent += sent;
    server->unsent_length -= (size_t)sent;
    return true;
}

static void
server_pump(Server *server)
{
    uint8_t chunk[65536];
    ssize_t length;

    while ((length = recv(server->fd, chunk, sizeof chunk, 0)) > 0)
        if (nghttp2_session_mem_recv(server->session, chunk, (size_t)length) < 0)
            return;
    do
    {
        if (server->unsent_length == 0)
        {
            length = nghttp2_session_mem_send(server->session, &server->unsent);
            if (length <= 0)
                return;
            server->unsent_length = (size_t)length;
        }
    } while (send_piece(server));
}

/* Frames a message of `length` bytes, each its position's low byte. */
static void
server_answer(Server *server, uint8_t compressed, size_t stated, size_t length)
{
    uint8_t *frame = server->answer + server->answer_length;

    assert(server->answer_length + FRAME_HEAD + length <= ANSWER_MAX);
    frame[0] = compressed;
    frame[1] = (uint8_t)(stated >> 24);
    frame[2] = (uint8_t)(stated >> 16);
    frame[3] = (uint8_t)(stated >> 8);
    frame[4] = (uint8_t)stated;
    for (size_t i = 0; i < length; i++)
        frame[FRAME_HEAD + i] = (uint8_t)i;
    server->answer_length += FRAME_HEAD + length;
    if (server->stream_id > 0)
        nghttp2_session_resume_data(server->session, server->stream_id);
}

static void
put_request(GrpcStream *stream, size_t length)
{
    uint8_t *room = grpc_stream_put(stream, length);

    assert(room != NULL);
    memset(room, 'q', length);
}

static void
test_messages_arrive_whole(Server *server)
{
    static const size_t sizes[] = {0, 1, 4, 5, 8192, 70000, 300000};
    static const size_t pieces[] = {1, 7, 4096, 65536};

    for (size_t p = 0; p < sizeof pieces / sizeof pieces[0]; p++)
    {
        GrpcStream stream;
        size_t taken = 0;
        size_t count = sizeof sizes / sizeof sizes[0] - (pieces[p] == 1 ? 2 : 0);

        assert(grpc_stream_open(&stream, &TARGET("127.0.0.1", server->port), "/a.B/C"));
        server_accept(server);
        server->piece = pieces[p];
        server->damage = 0;
        put_request(&stream, 100);
        for (size_t i = 0; i < count; i++)
            server_answer(server, 0, sizes[i], sizes[i]);
        for (int turn = 0; taken < count; turn++)
        {
            const uint8_t *message;
            size_t length;

            assert(turn < 100000);
            assert(grpc_stream_pump(&stream));
            server_pump(server);
            while (taken < count && grpc_stream_next(&stream, &message, &length))
            {
                assert(length == sizes[taken++]);
                for (size_t i = 0; i < length; i++)
                    assert(message[i] == (uint8_t)i);
            }
        }
        assert(server->received == FRAME_HEAD + 100);
        grpc_stream_close(&stream);
        server_close(server);
    }
}

/* Answers that are no message end the stream with a fault that says so. */
static void
test_bad_framing_ends_the_stream(Server *server, uint8_t compressed, size_t stated)
{
    GrpcStream stream;
    const uint8_t *message;
    size_t length;

    assert(grpc_stream_open(&stream, &TARGET("127.0.0.1", server->port), "/a.B/C"));
    server_accept(server);
    server->piece = 65536;
    server->damage = 0;
    server_answer(server, compressed, stated, 10);
    for (int turn = 0; !stream.ended; turn++)
    {
        assert(turn < 1000);
        grpc_stream_pump(&stream);
        server_pump(server);
        assert(!grpc_stream_next(&stream, &message, &length));
    }
    assert(strstr(stream.fault, "compressed or too long") != NULL);
    grpc_stream_close(&stream);
    server_close(server);
}

static void
test_damage_is_survived(Server *server)
{
    unsigned ended = 0;

    for (int round = 0; round < ROUNDS; round++)
    {
        GrpcStream stream;
        const uint8_t *message;
        size_t length;
        volatile uint8_t sum = 0;

        assert(grpc_stream_open(&stream, &TARGET("127.0.0.1", server->port), "/a.B/C"));
        server_accept(server);
        server->piece = 1 + random_u32() % 400;
        server->damage = 10 + random_u32() % 1000;
        put_request(&stream, random_u32() % 300);
        server_answer(server, 0, 3000, 3000);
        server_answer(server, 0, 20, 20);
        for (int turn = 0; turn < 12 && grpc_stream_pump(&stream); turn++)
        {
            server_pump(server);
            while (grpc_stream_next(&stream, &message, &length))
                for (size_t i = 0; i < length; i++)
                    sum = (uint8_t)(sum + message[i]);
        }
        ended += stream.ended;
        assert(!stream.ended || stream.fault[0] != '\0');
        grpc_stream_close(&stream);
        server_close(server);
    }
    assert(ended > ROUNDS / 20 && ended < ROUNDS);
}

/* The same over a Unix socket, to whose server the client's end has a name; and the token is
 * shown once a call. */
static void
test_unix_socket(Server *server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "build/grpc.sock"};
    struct sockaddr_un peer;
    socklen_t length = sizeof peer;
    int tcp = server->listener;
    GrpcStream stream;

    unlink(address.sun_path);
    server->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert(bind(server->listener, (struct sockaddr *)&address, sizeof address) == 0);
    assert(listen(server->listener, 8) == 0);
    server->piece = 1000;
    server->damage = server->shown = 0;
    assert(grpc_stream_open(&stream, &TARGET("/nowhere/at/all", ""), "/a.B/C") ==
           false);
    grpc_stream_close(&stream);
    char *path = realpath(address.sun_path, NULL);
    assert(grpc_stream_open(&stream, &TARGET(path, ""), "/a.B/C"));
    server_accept(server);
    assert(getpeername(server->fd, (struct sockaddr *)&peer, &length) == 0);
    assert(length == offsetof(struct sockaddr_un, sun_path) + 33 && peer.sun_path[0] == '\0');
    for (int turn = 0; turn < 1000 && server->shown == 0; turn++)
    {
        assert(grpc_stream_pump(&stream));
        server_pump(server);
    }
    assert(server->shown == 1);
    grpc_stream_close(&stream);
    server_close(server);
    close(server->listener);
    unlink(path);
    free(path);
    server->listener = tcp;
}

static void
test_nobody_there(Server *server)
{
    GrpcStream stream;
    bool open;

    close(server->listener);
    open = grpc_stream_open(&stream, &TARGET("127.0.0.1", server->port), "/a.B/C");
    for (int turn = 0; open && turn < 1000; turn++)
        open = grpc_stream_pump(&stream);
    assert(!open && strstr(stream.fault, "Connection refused") != NULL);
    grpc_stream_close(&stream);
    assert(!grpc_stream_open(&stream, &TARGET("no.such.host.invalid", "1"), "/a.B/C"));
    grpc_stream_close(&stream);
}

int
main(void)
{
    static Server server;

    server_listen(&server);
    test_messages_arrive_whole(&server);
    test_bad_framing_ends_the_stream(&server, 1, 10);
    test_bad_framing_ends_the_stream(&server, 0, MAX_MESSAGE + 1);
    test_damage_is_survived(&server);
    test_unix_socket(&server);
    test_nobody_there(&server);
    return 0;
}
