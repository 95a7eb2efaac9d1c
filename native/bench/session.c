#define _GNU_SOURCE
#include "session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

enum { STUCK_MS = 60000 };

session_options opt;
on_ready *ready;
int poller;

void
die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("session_load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

int64_t
now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- SCRAM-SHA-256 (RFC 7677), as a client whose password is always the same */

static void
hmac(const uint8_t *key, size_t key_length, const void *data, size_t length, uint8_t *out)
{
    if (HMAC(EVP_sha256(), key, (int)key_length, data, length, out, NULL) == NULL)
        die("HMAC failed");
}

/* Salted once for each salt: that is what makes many logins cheap here. */
static const uint8_t *
salted_password(const char *salt, int iterations)
{
    static char known[128];
    static uint8_t salted[HASH];
    uint8_t raw[96];
    if (strcmp(known, salt) == 0)
        return salted;
    if (strlen(salt) >= sizeof known)
        die("a salt of %zu characters", strlen(salt));
    int length = EVP_DecodeBlock(raw, (const uint8_t *)salt, (int)strlen(salt));
    for (size_t end = strlen(salt); length > 0 && end > 0 && salt[end - 1] == '='; end--)
        length--;
    if (length <= 0 ||
        !PKCS5_PBKDF2_HMAC(opt.password, (int)strlen(opt.password), raw, length, iterations,
                           EVP_sha256(), HASH, salted))
        die("cannot salt the password with %s", salt);
    strcpy(known, salt);
    return salted;
}

/* The client-final message, and what the server has to answer. */
static void
prove(client *c, const char *server_first, char *final, size_t room)
{
    char nonce[256], salt[128], message[1024];
    int iterations;
    uint8_t key[HASH], stored[HASH], signature[HASH], server[HASH];
    if (sscanf(server_first, "r=%255[^,],s=%127[^,],i=%d", nonce, salt, &iterations) != 3)
        die("a server-first message: %s", server_first);
    int length = snprintf(message, sizeof message, "n=,r=%s,%s,c=biws,r=%s", c->nonce,
                          server_first, nonce);
    const uint8_t *salted = salted_password(salt, iterations);
    hmac(salted, HASH, "Client Key", 10, key);
    EVP_Digest(key, HASH, stored, NULL, EVP_sha256(), NULL);
    hmac(stored, HASH, message, (size_t)length, signature);
    for (int i = 0; i < HASH; i++)
        key[i] ^= signature[i];
    hmac(salted, HASH, "Server Key", 10, server);
    hmac(server, HASH, message, (size_t)length, c->signature);
    char proof[64];
    EVP_EncodeBlock((uint8_t *)proof, key, HASH);
    snprintf(final, room, "c=biws,r=%s,p=%s", nonce, proof);
}

/* --- bytes */

static void
watch(client *c, bool write)
{
    if (c->wants_write == write)
        return;
    c->wants_write = write;
    struct epoll_event event = {.events = write ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

/* What is sent here is short, and the socket has room. */
static void
put(client *c, const void *data, size_t length)
{
    ssize_t done = c->ssl != NULL ? SSL_write(c->ssl, data, (int)length)
                                  : send(c->fd, data, length, MSG_NOSIGNAL);
    if (done != (ssize_t)length)
        die("cannot send %zu bytes: %s", length, strerror(errno));
}

void
put_message(client *c, char kind, const void *body, size_t length)
{
    uint8_t message[1024];
    uint32_t size = htonl((uint32_t)length + 4);
    if (length + 5 > sizeof message)
        die("a message of %zu bytes", length);
    message[0] = (uint8_t)kind;
    memcpy(message + 1, &size, 4);
    memcpy(message + 5, body, length);
    put(c, message, length + 5);
}

/* False: nothing more for now. */
static bool
get(client *c)
{
    ssize_t got;
    if (c->ssl != NULL) {
        got = SSL_read(c->ssl, c->input + c->have, (int)(INPUT - c->have));
        if (got <= 0 && SSL_get_error(c->ssl, (int)got) == SSL_ERROR_WANT_READ)
            return false;
    } else {
        got = recv(c->fd, c->input + c->have, INPUT - c->have, 0);
        if (got < 0 && errno == EAGAIN)
            return false;
    }
    if (got <= 0)
        die("the server ended a session: %s", got < 0 ? strerror(errno) : "end of stream");
    c->have += (size_t)got;
    return true;
}

/* --- a session's life */

void
begin(client *c)
{
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->began = now_ns();
    if (connect(c->fd, (struct sockaddr *)&opt.address, sizeof opt.address) < 0 &&
        errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    c->state = CONNECTING;
    c->have = 0;
    c->wants_write = true;
    if (c->input == NULL && (c->input = malloc(INPUT)) == NULL)
        die("out of memory");
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll: %s", strerror(errno));
}

void
end(client *c)
{
    put_message(c, 'X', "", 0);
    if (c->ssl != NULL)
        SSL_free(c->ssl);
    c->ssl = NULL;
    close(c->fd);
    c->state = FREE;
}

static void
start_up(client *c)
{
    uint8_t packet[512] = {0, 0, 0, 0, 0, 3, 0, 0};
    int length = 8 + snprintf((char *)packet + 8, sizeof packet - 8, "user%c%s%cdatabase%c%s%c", 0,
                              opt.user, 0, 0, opt.database, 0);
    packet[length++] = 0;
    packet[2] = (uint8_t)(length >> 8);
    packet[3] = (uint8_t)length;
    put(c, packet, (size_t)length);
    c->state = LOGGING_IN;
    watch(c, false);
}

void
ask(client *c, int64_t began)
{
    c->began = began;
    c->state = ASKED;
    if (c->input == NULL && (c->input = malloc(INPUT)) == NULL)
        die("out of memory");
    put_message(c, 'Q', "SELECT 1", 9);
}

static void
connected(client *c)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0)
        die("connect: %s", strerror(error));
    if (opt.tls == NULL) {
        start_up(c);
        return;
    }
    put(c, "\0\0\0\x08\x04\xd2\x16\x2f", 8);
    c->state = ASKING_TLS;
    watch(c, false);
}

static void
shake(client *c)
{
    int done = SSL_connect(c->ssl);
    if (done == 1) {
        start_up(c);
        return;
    }
    int why = SSL_get_error(c->ssl, done);
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
        die("TLS handshake failed");
    watch(c, why == SSL_ERROR_WANT_WRITE);
}

static void
begin_tls(client *c)
{
    char answer;
    if (recv(c->fd, &answer, 1, 0) != 1 || answer != 'S')
        die("the server has no TLS");
    c->ssl = SSL_new(opt.tls);
    SSL_set_fd(c->ssl, c->fd);
    c->state = SHAKING;
    shake(c);
}

static void
authenticate(client *c, uint32_t code, char *data, size_t length)
{
    static uint64_t number;
    char first[64], body[512];
    data[length] = '\0'; /* over the next message's type, which is put back */
    if (code == 10) {
        snprintf(c->nonce, sizeof c->nonce, "nonce%019llu", (unsigned long long)number++);
        uint32_t said = (uint32_t)snprintf(first, sizeof first, "n,,n=,r=%s", c->nonce);
        uint32_t size = htonl(said);
        memcpy(body, "SCRAM-SHA-256", 14);
        memcpy(body + 14, &size, 4);
        memcpy(body + 18, first, said);
        put_message(c, 'p', body, 18 + said);
    } else if (code == 11) {
        prove(c, data, body, sizeof body);
        put_message(c, 'p', body, strlen(body));
    } else if (code == 12) {
        char expected[64] = "v=";
        EVP_EncodeBlock((uint8_t *)expected + 2, c->signature, HASH);
        if (strcmp(expected, data) != 0)
            die("the server does not know the password: %s", data);
    } else if (code != 0) {
        die("the server asks for authentication method %u", code);
    }
}

/* One message; `body` may be written one byte beyond. */
static bool
take(client *c, char kind, uint8_t *body, size_t length)
{
    static bool row;
    uint8_t kept = body[length];
    uint32_t code;
    switch (kind) {
        case 'R':
            memcpy(&code, body, 4);
            authenticate(c, ntohl(code), (char *)body + 4, length - 4);
            break;
        case 'D':
            row = true;
            break;
        case 'E':
            for (size_t i = 0; i + 1 < length; i++)
                body[i] = body[i] == '\0' ? ' ' : body[i];
            die("the server says: %.*s", (int)length, (char *)body);
            break;
        case 'Z': {
            bool had_row = row;
            if (c->state == ASKED && !row)
                die("an answer without a row");
            row = false;
            c->have = 0;
            ready(c, had_row);
            return false;
        }
        default:
            break;
    }
    body[length] = kept;
    return true;
}

/* All whole messages that are here. ReadyForQuery is the last of any answer. */
static void
take_all(client *c)
{
    size_t at = 0;
    while (c->have - at >= 5) {
        uint32_t length;
        memcpy(&length, c->input + at + 1, 4);
        length = ntohl(length) + 1;
        if (length < 5 || length >= INPUT)
            die("a message of %u bytes", length);
        if (c->have - at < length)
            break;
        if (!take(c, (char)c->input[at], c->input + at + 5, length - 5))
            return;
        at += length;
    }
    memmove(c->input, c->input + at, c->have - at);
    c->have -= at;
}

static void
go_on(client *c)
{
    switch (c->state) {
        case CONNECTING:
            connected(c);
            return;
        case ASKING_TLS:
            begin_tls(c);
            return;
        case SHAKING:
            shake(c);
            return;
        case LOGGING_IN:
        case ASKED:
            if (get(c))
                take_all(c);
            /* What TLS has decrypted already brings no event. */
            while ((c->state == LOGGING_IN || c->state == ASKED) && c->ssl != NULL &&
                   SSL_has_pending(c->ssl) && get(c))
                take_all(c);
            return;
        case IDLE:
            /* Its own words say more, where they are an error. */
            if (c->input == NULL && (c->input = malloc(INPUT)) == NULL)
                die("out of memory");
            if (!get(c))
                return; /* it was TLS's own */
            take_all(c);
            die("the server said something that nobody asked for");
        case FREE:
            return;
    }
}

void
turn(void)
{
    struct epoll_event events[256];
    int count = epoll_wait(poller, events, 256, STUCK_MS);
    if (count == 0)
        die("nothing happened for %d s", STUCK_MS / 1000);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr != NULL)
            go_on(events[i].data.ptr);
    }
}
