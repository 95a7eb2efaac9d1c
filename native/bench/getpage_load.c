/*
 * Load on GetPages, for `pagestore bench getpage`.
 *
 * Problem: a client in Python saturates before the page server does, and what it measures is
 * itself. This one is the shim's own HTTP/2 client (native/postgres/shim/grpc_stream.c), many
 * of them in one thread: each client is one connection with one stream and one request in
 * flight, as a backend is.
 *
 * Every request asks for a run of neighbouring blocks of one fork at one LSN. Runs begin
 * anywhere (uniform), nine times of ten in the first twentieth (skewed), or each once, in
 * order (once: what is read has not been read before). It prints one JSON object. A page
 * that is missing or of the wrong length ends the run: an error is never a fast answer.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../postgres/shim/grpc_stream.h"

#define PATH "/pagestore.v1.PageService/GetPages"
#define PAGE 8192
#define MAX_CLIENTS 64
#define MAX_BLOCKS 1024
#define MAX_SAMPLES (1u << 22)
#define MAX_REQUEST (160 + MAX_BLOCKS * 5)
#define ANSWER_MS 30000

enum order { UNIFORM, SKEWED, ONCE };

typedef struct options {
    const char *host, *port;
    uint8_t tenant[16], timeline[16];
    uint64_t lsn;
    uint32_t rel[4]; /* tablespace, database, number, fork */
    uint32_t size;   /* blocks of the fork */
    uint32_t clients, blocks;
    double seconds, warmup;
    enum order order;
} options;

typedef struct client {
    GrpcStream stream;
    int64_t sent_at;
    uint64_t id;
    uint32_t asked;
} client;

static options opt;
static uint64_t random_state = 88172645463325252u;
static uint32_t *samples; /* nanoseconds / 16 */
static size_t nsamples;
static uint64_t requests, pages;
static uint32_t next_once;

static void
die(const char *what, const char *why)
{
    fprintf(stderr, "getpage_load: %s: %s\n", what, why);
    exit(1);
}

static int64_t
now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint32_t
random_below(uint32_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) * bound >> 32);
}

/* The request */

static uint8_t *
put_varint(uint8_t *to, uint64_t value)
{
    while (value >= 0x80) {
        *to++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *to++ = (uint8_t)value;
    return to;
}

static uint8_t *
put_bytes(uint8_t *to, uint32_t number, const uint8_t *data, size_t length)
{
    *to++ = (uint8_t)(number << 3 | 2);
    to = put_varint(to, length);
    memcpy(to, data, length);
    return to + length;
}

static size_t
make_request(uint8_t *message, uint64_t id, uint32_t first, uint32_t count)
{
    uint8_t part[MAX_BLOCKS * 5], *end, *to = message;
    *to++ = 1 << 3;
    to = put_varint(to, id);
    to = put_bytes(to, 2, opt.tenant, 16);
    to = put_bytes(to, 3, opt.timeline, 16);
    part[0] = 1 << 3 | 1;
    for (int i = 0; i < 8; i++)
        part[1 + i] = (uint8_t)(opt.lsn >> 8 * i);
    to = put_bytes(to, 4, part, 9);
    end = part;
    for (int i = 0; i < 4; i++) {
        *end++ = (uint8_t)((i + 1) << 3);
        end = put_varint(end, opt.rel[i]);
    }
    to = put_bytes(to, 5, part, (size_t)(end - part));
    end = part;
    for (uint32_t i = 0; i < count; i++)
        end = put_varint(end, first + i);
    to = put_bytes(to, 6, part, (size_t)(end - part));
    return (size_t)(to - message);
}

/* False when there is nothing left to ask for. */
static bool
choose(uint32_t *first, uint32_t *count)
{
    uint32_t places = opt.size - opt.blocks + 1;
    *count = opt.blocks;
    switch (opt.order) {
    case UNIFORM:
        *first = random_below(places);
        return true;
    case SKEWED:
        *first = random_below(random_below(10) ? (places + 19) / 20 : places);
        return true;
    case ONCE:
        if (next_once >= opt.size)
            return false;
        *first = next_once;
        if (opt.size - next_once < *count)
            *count = opt.size - next_once;
        next_once += *count;
        return true;
    }
    return false;
}

static bool
ask(client *c)
{
    uint8_t message[MAX_REQUEST], *room;
    uint32_t first;
    size_t length;
    if (!choose(&first, &c->asked)) {
        c->asked = 0;
        return false;
    }
    length = make_request(message, ++c->id, first, c->asked);
    room = grpc_stream_put(&c->stream, length);
    if (room == NULL)
        die("send", "out of memory");
    memcpy(room, message, length);
    c->sent_at = now_ns();
    return true;
}

/* The answer */

static const uint8_t *
get_varint(const uint8_t *at, const uint8_t *end, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; at < end && shift < 64; shift += 7) {
        *value |= (uint64_t)(*at & 0x7F) << shift;
        if (!(*at++ & 0x80))
            return at;
    }
    die("answer", "not a message");
    return NULL;
}

/* Checks that the answer is to the request in flight and has every page. */
static void
check(const client *c, const uint8_t *at, size_t length)
{
    const uint8_t *end = at + length;
    uint32_t found = 0;
    while (at < end) {
        uint64_t tag, value;
        at = get_varint(at, end, &tag);
        at = get_varint(at, end, &value);
        if (tag == 1 << 3) {
            if (value != c->id)
                die("answer", "to another request");
            continue;
        }
        if ((tag & 7) != 2 || value > (uint64_t)(end - at))
            die("answer", "not a message");
        if (tag >> 3 == 2) {
            fprintf(stderr, "getpage_load: refused: ");
            for (uint64_t i = 0; i < value; i++)
                fputc(at[i] >= ' ' && at[i] < 127 ? at[i] : ' ', stderr);
            fputc('\n', stderr);
            exit(1);
        }
        if (tag >> 3 == 3) {
            if (value != PAGE)
                die("answer", "a page of another length");
            found++;
        }
        at += value;
    }
    if (found != c->asked)
        die("answer", "not as many pages as asked for");
}

/* Takes an answer if there is one. True when it was taken. */
static bool
take(client *c, bool counted)
{
    const uint8_t *message;
    size_t length;
    if (!grpc_stream_next(&c->stream, &message, &length))
        return false;
    check(c, message, length);
    if (!counted)
        return true;
    requests++;
    pages += c->asked;
    if (nsamples < MAX_SAMPLES)
        samples[nsamples++] = (uint32_t)((now_ns() - c->sent_at) / 16);
    return true;
}

/* Sends, receives, and asks again. The pump that sends a request may already bring its answer,
 * after which the socket has nothing more to say. */
static void
go_on(client *c, bool counted)
{
    do {
        if (!grpc_stream_pump(&c->stream))
            die("connection", c->stream.fault);
    } while (take(c, counted) && ask(c));
}

/* One round: waits until some client can go on, and lets each go on. Clients still at work. */
static uint32_t
round_of(client *clients, bool counted)
{
    struct pollfd fds[MAX_CLIENTS];
    client *busy[MAX_CLIENTS];
    nfds_t n = 0;
    for (uint32_t i = 0; i < opt.clients; i++) {
        client *c = &clients[i];
        if (c->asked == 0)
            continue;
        fds[n].fd = c->stream.transport.fd;
        fds[n].events = POLLIN;
        if (grpc_stream_wants_write(&c->stream))
            fds[n].events |= POLLOUT;
        busy[n++] = c;
    }
    if (n == 0)
        return 0;
    if (poll(fds, n, ANSWER_MS) <= 0)
        die("wait", "no answer in time");
    for (nfds_t i = 0; i < n; i++) {
        client *c = busy[i];
        if (fds[i].revents == 0)
            continue;
        go_on(c, counted);
    }
    return (uint32_t)n;
}

static int
by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double
percentile(double share)
{
    return nsamples ? samples[(size_t)(share * (double)(nsamples - 1))] * 16 / 1e3 : 0;
}

static double
run(void)
{
    static client clients[MAX_CLIENTS];
    const char *token = getenv("PAGESTORE_TOKEN"); /* others can read a command line */
    const char *authority = getenv("PAGESTORE_AUTHORITY");
    GrpcTarget target = {.at = {.host = opt.host,
                                .port = opt.port,
                                .authority = authority ? authority : ""},
                         .token = token ? token : ""};
    int64_t begin, measured, until;
    for (uint32_t i = 0; i < opt.clients; i++) {
        if (!grpc_stream_open(&clients[i].stream, &target, PATH))
            die("connect", clients[i].stream.fault);
        if (ask(&clients[i]))
            go_on(&clients[i], opt.warmup <= 0);
    }
    begin = now_ns();
    measured = begin + (int64_t)(opt.warmup * 1e9);
    if (opt.order != ONCE)
        while (now_ns() < measured)
            round_of(clients, false);
    begin = now_ns();
    until = begin + (int64_t)(opt.seconds * 1e9);
    while (opt.order == ONCE || now_ns() < until)
        if (round_of(clients, true) == 0)
            break;
    return (double)(now_ns() - begin) / 1e9;
}

static void
read_id(uint8_t *id, const char *text)
{
    if (strlen(text) != 32)
        die("an id", "not 32 hexadecimal digits");
    for (int i = 0; i < 16; i++) {
        unsigned value;
        if (sscanf(text + 2 * i, "%2x", &value) != 1)
            die("an id", "not 32 hexadecimal digits");
        id[i] = (uint8_t)value;
    }
}

static uint32_t
number(const char *text, uint32_t least, uint32_t most)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*end || value < least || value > most)
        die(text, "out of range");
    return (uint32_t)value;
}

int
main(int argc, char **argv)
{
    double seconds;
    if (argc != 16)
        die("usage", "HOST PORT TENANT TIMELINE LSN SPC DB REL FORK SIZE CLIENTS BLOCKS SECONDS "
                     "WARMUP uniform|skewed|once");
    opt.host = argv[1];
    opt.port = argv[2];
    read_id(opt.tenant, argv[3]);
    read_id(opt.timeline, argv[4]);
    opt.lsn = strtoull(argv[5], NULL, 10);
    for (int i = 0; i < 4; i++)
        opt.rel[i] = number(argv[6 + i], 0, UINT32_MAX);
    opt.size = number(argv[10], 1, UINT32_MAX);
    opt.clients = number(argv[11], 1, MAX_CLIENTS);
    opt.blocks = number(argv[12], 1, opt.size < MAX_BLOCKS ? opt.size : MAX_BLOCKS);
    opt.seconds = atof(argv[13]);
    opt.warmup = atof(argv[14]);
    opt.order = !strcmp(argv[15], "once") ? ONCE : !strcmp(argv[15], "skewed") ? SKEWED : UNIFORM;
    samples = malloc(MAX_SAMPLES * sizeof *samples);
    if (samples == NULL)
        die("samples", "out of memory");
    seconds = run();
    qsort(samples, nsamples, sizeof *samples, by_value);
    printf("{\"requests\": %" PRIu64 ", \"pages\": %" PRIu64 ", \"seconds\": %.6f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           requests, pages, seconds, percentile(0.5), percentile(0.99));
    return 0;
}
