#define _GNU_SOURCE
#include "relay/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 128 };

/* Of epoll's data, beside the ids of connections, which are never this small. */
enum { WAKE = 0, LISTENER = 1 };

/* --- ids and slots */

static uint32_t
slot_of(uint64_t id)
{
    return (uint32_t)(id >> 4) & 0xffffff;
}

connection *
loop_find(relay_loop *loop, uint64_t id)
{
    uint32_t slot = slot_of(id);
    connection *conn = slot < loop->capacity ? loop->table[slot] : NULL;
    return conn != NULL && conn->id == id ? conn : NULL;
}

/* 0: no room. */
uint64_t
loop_new_id(relay_loop *loop)
{
    uint64_t id = 0;
    pthread_mutex_lock(&loop->mutex);
    if (loop->free_count > 0) {
        uint32_t slot = loop->free_slots[--loop->free_count];
        id = (uint64_t)++loop->generations[slot] << 32 | (uint64_t)slot << 4 |
             (uint64_t)loop->number;
    }
    pthread_mutex_unlock(&loop->mutex);
    return id;
}

void
loop_free_id(relay_loop *loop, uint64_t id)
{
    pthread_mutex_lock(&loop->mutex);
    loop->free_slots[loop->free_count++] = slot_of(id);
    pthread_mutex_unlock(&loop->mutex);
}

void
loop_watch(relay_loop *loop, connection *conn, uint32_t interest)
{
    if (conn->interest == interest)
        return;
    struct epoll_event event = {.events = interest, .data.u64 = conn->id};
    /* Without interest it is taken out: else a hang-up would be told again and again. */
    int operation = conn->interest == 0 ? EPOLL_CTL_ADD
                    : interest == 0     ? EPOLL_CTL_DEL
                                        : EPOLL_CTL_MOD;
    epoll_ctl(loop->epoll_fd, operation, conn->stream.fd, &event);
    conn->interest = interest;
}

static void
take_in(relay_loop *loop, connection *conn)
{
    conn->stranger = true;
    conn->older = loop->newest;
    if (loop->newest != NULL)
        loop->newest->newer = conn;
    else
        loop->oldest = conn;
    loop->newest = conn;
    loop->count++;
    loop->logins++;
}

void
loop_admit(relay_loop *loop, connection *conn)
{
    if (!conn->stranger)
        return;
    conn->stranger = false;
    *(conn->older != NULL ? &conn->older->newer : &loop->oldest) = conn->newer;
    *(conn->newer != NULL ? &conn->newer->older : &loop->newest) = conn->older;
    conn->older = conn->newer = NULL;
}

void
loop_forget(relay_loop *loop, connection *conn)
{
    loop_watch(loop, conn, 0);
    loop_admit(loop, conn);
    if (conn->login)
        loop->logins--;
    if (conn->is_client)
        loop->count--;
    loop->table[slot_of(conn->id)] = NULL;
    loop_free_id(loop, conn->id);
}

/* --- accepting */

static uint8_t *
address_text(const struct sockaddr_storage *address, size_t *length)
{
    char text[INET6_ADDRSTRLEN] = "unix";
    unsigned port = 0;
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
        port = ntohs(four->sin_port);
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
        port = ntohs(six->sin6_port);
    }
    size_t room = INET6_ADDRSTRLEN + 8;
    char *whole = malloc(room);
    *length = whole != NULL ? (size_t)snprintf(whole, room, "%s:%u", text, port) : 0;
    return (uint8_t *)whole;
}

static void
tell_full(relay_loop *loop, int fd)
{
    if (loop->options->full_length > 0)
        send(fd, loop->options->full, loop->options->full_length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void
refuse(relay_loop *loop, int fd)
{
    tell_full(loop, fd);
    close(fd);
}

/* Those who take their time with a login lock nobody out: the one that has taken longest goes.
 * Whoever is known, and waits for a database, stays. */
static void
make_room(relay_loop *loop)
{
    connection *oldest = loop->oldest;
    if (loop->logins < loop->options->max_logins || oldest == NULL)
        return;
    if (oldest->stream.ssl == NULL)
        tell_full(loop, oldest->stream.fd);
    connection_end(loop, oldest, "others came while it took its time");
}

static void
accept_some(relay_loop *loop, int listener)
{
    for (int i = 0; i < BATCH; i++) {
        struct sockaddr_storage address = {0};
        socklen_t size = sizeof address;
        int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
        int fd = accept4(listener, (struct sockaddr *)&address, &size, flags);
        if (fd < 0)
            return;
        make_room(loop);
        bool room = loop->count < loop->options->max_connections &&
                    loop->logins < loop->options->max_logins;
        uint64_t id = room ? loop_new_id(loop) : 0;
        connection *conn = id != 0 ? connection_new(loop, id, fd, true) : NULL;
        if (conn == NULL) {
            if (id != 0)
                loop_free_id(loop, id);
            refuse(loop, fd);
            continue;
        }
        loop->table[slot_of(id)] = conn;
        take_in(loop, conn);
        size_t length;
        uint8_t *text = address_text(&address, &length);
        relay_tell(loop->relay, id, PS_RELAY_ACCEPTED, text, length);
    }
}

/* --- commands */

static void
adopt(relay_loop *loop, relay_command *command)
{
    connection *conn = connection_new(loop, command->id, command->fd, false);
    if (conn == NULL) {
        close(command->fd);
        loop_free_id(loop, command->id);
        relay_tell(loop->relay, command->id, PS_RELAY_ENDED, NULL, 0);
        return;
    }
    loop->table[slot_of(command->id)] = conn;
}

static bool
describe(relay_loop *loop, const connection *client, uint64_t quiet_ms, ps_relay_session *session)
{
    const connection *server = client->peer;
    uint64_t active = client->active_ms > server->active_ms ? client->active_ms : server->active_ms;
    *session = (ps_relay_session){
        .client = client->id,
        .server = server->id,
        .idle_ms = loop->now_ms - active,
        .at_rest = ps_session_at_rest(client->session),
        .spoken = client->session->spoken,
    };
    return !session->at_rest || session->idle_ms <= quiet_ms;
}

static void
list(relay_loop *loop, relay_listing *listing)
{
    for (uint32_t slot = 0; slot < loop->capacity && listing->count < listing->limit; slot++) {
        const connection *conn = loop->table[slot];
        if (conn != NULL && conn->session != NULL &&
            describe(loop, conn, listing->quiet_ms, &listing->sessions[listing->count]))
            listing->count++;
    }
    pthread_mutex_lock(&loop->mutex);
    listing->done = true;
    pthread_cond_broadcast(&loop->carried_out);
    pthread_mutex_unlock(&loop->mutex);
}

static void
join(relay_loop *loop, connection *client, relay_command *command)
{
    connection *server = loop_find(loop, command->other);
    if (client == NULL && server != NULL)
        connection_end(loop, server, "its client is gone");
    else if (client != NULL && server != NULL)
        connection_join(loop, client, server, command->meter, command->data, command->length);
}

static void
carry_out(relay_loop *loop, relay_command *command)
{
    connection *conn = loop_find(loop, command->id);
    if (command->kind == DO_ADOPT)
        adopt(loop, command);
    else if (command->kind == DO_LIST)
        list(loop, command->listing);
    else if (command->kind == DO_JOIN)
        join(loop, conn, command);
    else if (conn == NULL)
        return;
    else if (command->kind == DO_READ)
        connection_read(loop, conn);
    else if (command->kind == DO_SEND)
        connection_send(loop, conn, command->data, command->length);
    else if (command->kind == DO_ASK)
        connection_ask(loop, conn, command->data, command->length);
    else if (command->kind == DO_TLS)
        connection_begin_tls(loop, conn, command->tls, command->data, command->length);
    else if (command->kind == DO_HOLD)
        connection_hold(loop, conn, command->now);
    else if (command->kind == DO_DISMISS)
        connection_dismiss(loop, conn, command->data, command->length);
    else if (command->kind == DO_RELEASE)
        conn->holding = false;
    else if (command->kind == DO_WATCH)
        connection_watch(loop, conn);
    else
        connection_close(loop, conn);
}

void
loop_free_command(relay_command *command)
{
    ps_tls_free(command->tls);
    free(command);
}

static void
carry_all_out(relay_loop *loop)
{
    pthread_mutex_lock(&loop->mutex);
    relay_command *next = loop->first;
    loop->first = NULL;
    loop->last = &loop->first;
    pthread_mutex_unlock(&loop->mutex);
    while (next != NULL) {
        relay_command *command = next;
        next = command->next;
        carry_out(loop, command);
        loop_free_command(command);
    }
}

void
loop_signal(int fd)
{
    uint64_t one = 1;
    ssize_t ignored = write(fd, &one, sizeof one);
    (void)ignored; /* full: it is signalled already */
}

void
loop_give(relay_loop *loop, relay_command *command)
{
    pthread_mutex_lock(&loop->mutex);
    bool was_empty = loop->first == NULL;
    command->next = NULL;
    *loop->last = command;
    loop->last = &command->next;
    pthread_mutex_unlock(&loop->mutex);
    if (was_empty)
        loop_signal(loop->wake_fd);
}

/* --- threads */

static uint64_t
clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void
woken(relay_loop *loop)
{
    uint64_t count;
    ssize_t ignored = read(loop->wake_fd, &count, sizeof count);
    (void)ignored;
}

static bool
is_stopping(relay_loop *loop)
{
    pthread_mutex_lock(&loop->mutex);
    bool stopping = loop->stopping;
    pthread_mutex_unlock(&loop->mutex);
    return stopping;
}

static void
happened(relay_loop *loop, uint64_t id, uint32_t events)
{
    connection *conn;
    if (id == WAKE)
        return;
    if (id >> 32 == 0)
        accept_some(loop, (int)(id >> 1));
    else if ((conn = loop_find(loop, id)) != NULL)
        connection_ready(loop, conn, events);
}

static void *
run(void *argument)
{
    relay_loop *loop = argument;
    struct epoll_event events[BATCH];
    while (!is_stopping(loop)) {
        int count = epoll_wait(loop->epoll_fd, events, BATCH, -1);
        loop->now_ms = clock_ms();
        /* First what was ordered: it was so before some of these bytes came. */
        for (int i = 0; i < count; i++) {
            if (events[i].data.u64 == WAKE)
                woken(loop);
        }
        carry_all_out(loop);
        for (int i = 0; i < count; i++)
            happened(loop, events[i].data.u64, events[i].events);
    }
    return NULL;
}

bool
loop_start(relay_loop *loop, ps_relay *relay, const ps_relay_options *options, int number)
{
    /* As many backends as clients. */
    uint32_t capacity = options->max_connections * 2;
    loop->relay = relay;
    loop->options = options;
    loop->number = number;
    loop->capacity = loop->free_count = capacity;
    loop->last = &loop->first;
    loop->now_ms = clock_ms();
    pthread_mutex_init(&loop->mutex, NULL);
    pthread_cond_init(&loop->carried_out, NULL);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->table = calloc(capacity, sizeof *loop->table);
    loop->generations = calloc(capacity, sizeof *loop->generations);
    loop->free_slots = calloc(capacity, sizeof *loop->free_slots);
    loop->scratch = malloc(PS_RELAY_BUFFER);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE};
    if (loop->table == NULL || loop->generations == NULL || loop->free_slots == NULL ||
        loop->scratch == NULL || loop->epoll_fd < 0 || loop->wake_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0) {
        loop_free(loop);
        return false;
    }
    for (uint32_t i = 0; i < capacity; i++)
        loop->free_slots[i] = capacity - 1 - i;
    if (pthread_create(&loop->thread, NULL, run, loop) == 0)
        return true;
    loop_free(loop);
    return false;
}

void
loop_stop(relay_loop *loop)
{
    pthread_mutex_lock(&loop->mutex);
    loop->stopping = true;
    pthread_mutex_unlock(&loop->mutex);
    loop_signal(loop->wake_fd);
    pthread_join(loop->thread, NULL);
}

int
loop_listen(relay_loop *loop, int fd, ps_error *err)
{
    /* One thread is woken for a client, not all. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE,
                                .data.u64 = (uint64_t)fd << 1 | LISTENER};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return ps_fail(err, PS_ERR_IO, "epoll: %s", strerror(errno));
    return PS_OK;
}

void
loop_free(relay_loop *loop)
{
    carry_all_out(loop);
    for (uint32_t slot = 0; loop->table != NULL && slot < loop->capacity; slot++) {
        if (loop->table[slot] != NULL)
            connection_end(loop, loop->table[slot], NULL);
    }
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    free(loop->table);
    free(loop->generations);
    free(loop->free_slots);
    free(loop->scratch);
    pthread_mutex_destroy(&loop->mutex);
    pthread_cond_destroy(&loop->carried_out);
}

