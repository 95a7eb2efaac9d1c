/*
 * A thread of the relay: an epoll loop that owns connections and carries out commands.
 *
 * An id is generation (32 bits), slot (24), thread (4): a slot is used again, its id never.
 * Slots are given out under the mutex, since an adopted connection has its id before the loop
 * knows of it; the table itself belongs to the loop's thread alone.
 */
#ifndef PS_RELAY_LOOP_H
#define PS_RELAY_LOOP_H

#include <pthread.h>

#include "relay/connection.h"

typedef enum command_kind {
    DO_ADOPT,
    DO_READ,
    DO_SEND,
    DO_ASK,
    DO_TLS,
    DO_JOIN,
    DO_HOLD,
    DO_RELEASE,
    DO_WATCH,
    DO_CLOSE,
    DO_DISMISS,
    DO_LIST
} command_kind;

typedef struct relay_command {
    struct relay_command *next;
    command_kind kind;
    uint64_t id, other;
    int fd;
    bool now;
    uint32_t meter;
    ps_tls *tls; /* shared: who gave the order may free its own before it is carried out */
    struct relay_listing *listing;
    size_t length;
    uint8_t data[];
} relay_command;

typedef struct relay_listing {
    ps_relay_session *sessions;
    size_t count, limit;
    uint64_t quiet_ms;
    bool done;
} relay_listing;

struct relay_loop {
    ps_relay *relay;
    const ps_relay_options *options;
    int number;
    int epoll_fd, wake_fd;
    pthread_t thread;
    connection **table; /* by slot; fixed size */
    uint32_t capacity, count, logins;
    connection *oldest, *newest; /* strangers */
    uint8_t *scratch; /* PS_RELAY_BUFFER bytes */
    uint64_t now_ms;

    pthread_mutex_t mutex; /* of all below */
    pthread_cond_t carried_out;
    relay_command *first, **last;
    uint32_t *generations;
    uint32_t *free_slots;
    uint32_t free_count;
    bool stopping;
};

bool loop_start(relay_loop *loop, ps_relay *relay, const ps_relay_options *options, int number);
/* Once nobody gives it commands any more. */
void loop_stop(relay_loop *loop);
void loop_free(relay_loop *loop);

int loop_listen(relay_loop *loop, int fd, ps_error *err);
/* 0: no room. */
uint64_t loop_new_id(relay_loop *loop);
void loop_free_id(relay_loop *loop, uint64_t id);
void loop_free_command(relay_command *command);
/* Takes the command over. */
void loop_give(relay_loop *loop, relay_command *command);
/* Makes an eventfd readable. */
void loop_signal(int fd);

#endif
