#include "relay/relay.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relay/loop.h"

enum { LISTENERS = 16 };

typedef struct queued {
    struct queued *next;
    ps_relay_event event;
} queued;

struct ps_relay {
    ps_relay_options options;
    uint8_t *full, *gone;
    relay_loop *loops;
    int running; /* loops whose thread was started */
    pthread_mutex_t mutex; /* of the events and the listeners */
    queued *first, **last;
    int listeners[LISTENERS];
    int listener_count;
    _Atomic uint64_t *meters; /* of PS_RELAY_METERS; pages that are never counted on cost nothing */
};

/* --- events */

void
relay_tell(ps_relay *relay, uint64_t id, ps_relay_kind kind, uint8_t *data, size_t length)
{
    queued *item = malloc(sizeof *item);
    if (item == NULL) {
        /* Without it a connection would be forgotten: better to end the process, which its
         * supervisor starts again. */
        abort();
    }
    item->next = NULL;
    item->event = (ps_relay_event){.id = id, .kind = kind, .data = data, .length = length};
    pthread_mutex_lock(&relay->mutex);
    bool was_empty = relay->first == NULL;
    *relay->last = item;
    relay->last = &item->next;
    pthread_mutex_unlock(&relay->mutex);
    if (was_empty)
        loop_signal(relay->options.notify_fd);
}

size_t
ps_relay_take(ps_relay *relay, ps_relay_event *events, size_t limit)
{
    size_t count = 0;
    pthread_mutex_lock(&relay->mutex);
    while (count < limit && relay->first != NULL) {
        queued *item = relay->first;
        relay->first = item->next;
        if (relay->first == NULL)
            relay->last = &relay->first;
        events[count++] = item->event;
        free(item);
    }
    pthread_mutex_unlock(&relay->mutex);
    return count;
}

/* --- commands */

static relay_loop *
loop_of(ps_relay *relay, uint64_t id)
{
    uint64_t number = id & 15;
    return number < (uint64_t)relay->running ? &relay->loops[number] : NULL;
}

static relay_command *
new_command(command_kind kind, uint64_t id, const void *data, size_t length, ps_error *err)
{
    relay_command *made = calloc(1, sizeof *made + length);
    if (made == NULL) {
        ps_fail(err, PS_ERR_NOMEM, "no memory for a command of %zu bytes", length);
        return NULL;
    }
    made->kind = kind;
    made->id = id;
    made->length = length;
    if (length > 0)
        memcpy(made->data, data, length);
    return made;
}

static int
order(ps_relay *relay, relay_command *command)
{
    if (command == NULL)
        return PS_ERR_NOMEM;
    relay_loop *loop = loop_of(relay, command->id);
    if (loop != NULL)
        loop_give(loop, command);
    else
        loop_free_command(command);
    return PS_OK;
}

int
ps_relay_read(ps_relay *relay, uint64_t id, ps_error *err)
{
    return order(relay, new_command(DO_READ, id, NULL, 0, err));
}

int
ps_relay_send(ps_relay *relay, uint64_t id, const void *data, size_t length, ps_error *err)
{
    return order(relay, new_command(DO_SEND, id, data, length, err));
}

int
ps_relay_ask(ps_relay *relay, uint64_t id, const void *data, size_t length, ps_error *err)
{
    return order(relay, new_command(DO_ASK, id, data, length, err));
}

int
ps_relay_begin_tls(ps_relay *relay, uint64_t id, ps_tls *tls, const void *early,
                   size_t early_length, ps_error *err)
{
    relay_command *command = new_command(DO_TLS, id, early, early_length, err);
    if (command != NULL)
        command->tls = ps_tls_share(tls);
    return order(relay, command);
}

int
ps_relay_join(ps_relay *relay, uint64_t client, uint64_t server, uint32_t meter, const void *rest,
              size_t rest_length, ps_error *err)
{
    if (meter >= PS_RELAY_METERS)
        return ps_fail(err, PS_ERR_INVALID, "there is no meter %u", meter);
    if ((client & 15) != (server & 15))
        return ps_fail(err, PS_ERR_INVALID, "connections of two threads cannot be joined");
    relay_command *command = new_command(DO_JOIN, client, rest, rest_length, err);
    if (command != NULL) {
        command->other = server;
        command->meter = meter;
    }
    return order(relay, command);
}

void
relay_count(ps_relay *relay, uint32_t meter, uint32_t queries)
{
    atomic_fetch_add_explicit(&relay->meters[meter], queries, memory_order_relaxed);
}

uint64_t
ps_relay_queries(const ps_relay *relay, uint32_t meter)
{
    if (meter >= PS_RELAY_METERS)
        return 0;
    return atomic_load_explicit(&relay->meters[meter], memory_order_relaxed);
}

int
ps_relay_hold(ps_relay *relay, uint64_t client, bool now, ps_error *err)
{
    relay_command *command = new_command(DO_HOLD, client, NULL, 0, err);
    if (command != NULL)
        command->now = now;
    return order(relay, command);
}

int
ps_relay_release(ps_relay *relay, uint64_t client, ps_error *err)
{
    return order(relay, new_command(DO_RELEASE, client, NULL, 0, err));
}

int
ps_relay_watch(ps_relay *relay, uint64_t id, ps_error *err)
{
    return order(relay, new_command(DO_WATCH, id, NULL, 0, err));
}

int
ps_relay_close(ps_relay *relay, uint64_t id, ps_error *err)
{
    return order(relay, new_command(DO_CLOSE, id, NULL, 0, err));
}

int
ps_relay_dismiss(ps_relay *relay, uint64_t client, const void *words, size_t length, ps_error *err)
{
    return order(relay, new_command(DO_DISMISS, client, words, length, err));
}

uint64_t
ps_relay_adopt(ps_relay *relay, int fd, uint64_t beside)
{
    relay_loop *loop = loop_of(relay, beside);
    uint64_t id = loop != NULL ? loop_new_id(loop) : 0;
    relay_command *command = id != 0 ? new_command(DO_ADOPT, id, NULL, 0, NULL) : NULL;
    if (command == NULL) {
        if (id != 0)
            loop_free_id(loop, id);
        close(fd);
        return 0;
    }
    command->fd = fd;
    loop_give(loop, command);
    return id;
}

size_t
ps_relay_sessions(ps_relay *relay, uint64_t quiet_ms, ps_relay_session *sessions, size_t limit)
{
    relay_listing listing = {.sessions = sessions, .limit = limit, .quiet_ms = quiet_ms};
    for (int i = 0; i < relay->running; i++) {
        relay_loop *loop = &relay->loops[i];
        relay_command *command = new_command(DO_LIST, (uint64_t)i, NULL, 0, NULL);
        if (command == NULL)
            break;
        listing.done = false;
        command->listing = &listing;
        loop_give(loop, command);
        pthread_mutex_lock(&loop->mutex);
        while (!listing.done)
            pthread_cond_wait(&loop->carried_out, &loop->mutex);
        pthread_mutex_unlock(&loop->mutex);
    }
    return listing.count;
}

int
ps_relay_listen(ps_relay *relay, int fd, ps_error *err)
{
    int flags = fcntl(fd, F_GETFL);
    if (relay->listener_count == LISTENERS || flags < 0 ||
        fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return ps_fail(err, PS_ERR_INVALID, "cannot listen at one more socket");
    relay->listeners[relay->listener_count++] = fd;
    int status = PS_OK;
    for (int i = 0; i < relay->running && status == PS_OK; i++)
        status = loop_listen(&relay->loops[i], fd, err);
    return status;
}

static uint8_t *
copied(const void *data, size_t length)
{
    uint8_t *copy = malloc(length + 1);
    if (copy != NULL && length > 0)
        memcpy(copy, data, length);
    return copy;
}

int
ps_relay_new(ps_relay **relay, const ps_relay_options *options, ps_error *err)
{
    *relay = NULL;
    if (options->threads < 1 || options->threads > PS_RELAY_THREADS ||
        options->max_connections < 1 || options->max_connections > 1u << 20)
        return ps_fail(err, PS_ERR_INVALID, "a relay has 1 to %d threads", PS_RELAY_THREADS);
    ps_relay *made = calloc(1, sizeof *made);
    if (made == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "no memory for a relay");
    made->options = *options;
    made->last = &made->first;
    pthread_mutex_init(&made->mutex, NULL);
    made->options.full = made->full = copied(options->full, options->full_length);
    made->options.gone = made->gone = copied(options->gone, options->gone_length);
    made->loops = calloc((size_t)options->threads, sizeof *made->loops);
    made->meters = calloc(PS_RELAY_METERS, sizeof *made->meters);
    bool fine = made->full != NULL && made->gone != NULL && made->loops != NULL &&
                made->meters != NULL;
    for (int i = 0; fine && i < options->threads; i++) {
        fine = loop_start(&made->loops[i], made, &made->options, i);
        if (fine)
            made->running++;
    }
    if (!fine) {
        ps_relay_free(made);
        return ps_fail(err, PS_ERR_NOMEM, "no memory, descriptors or threads for a relay");
    }
    *relay = made;
    return PS_OK;
}

void
ps_relay_free(ps_relay *relay)
{
    for (int i = 0; i < relay->running; i++)
        loop_stop(&relay->loops[i]);
    for (int i = 0; i < relay->running; i++)
        loop_free(&relay->loops[i]);
    for (int i = 0; i < relay->listener_count; i++)
        close(relay->listeners[i]);
    ps_relay_event event;
    while (ps_relay_take(relay, &event, 1) > 0)
        free(event.data);
    pthread_mutex_destroy(&relay->mutex);
    free(relay->loops);
    free(relay->meters);
    free(relay->full);
    free(relay->gone);
    free(relay);
}
