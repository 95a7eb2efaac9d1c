#define _GNU_SOURCE
#include "receiver/receiver.h"

#include <errno.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    DRAIN = 2 << 20,          /* bytes taken before a sync, about */
    STATUS_INTERVAL_MS = 5000,
    CONNECT_TIMEOUT_MS = 10000,
    DATA_HEADER = 25,         /* 'w', start, end, time */
    KEEPALIVE = 18,           /* 'k', end, time, reply wanted */
    STATUS_MESSAGE = 34       /* 'r', write, flush, apply, time, reply wanted */
};

#define POSTGRES_EPOCH_SECONDS INT64_C(946684800)

struct ps_receiver {
    ps_wal_writer *writer;
    char *host, *port, *user, *password;
    char *name;
    int certificate_fd; /* what is believed of the compute, a file in memory; -1: no TLS */
    uint64_t system_id;
    int notify_fd;
    int stop_fd;
    atomic_bool stopping;
    atomic_bool streaming;

    /* Of the running connection. */
    PGconn *connection;
    uint64_t confirmed_flush;
    bool reply_wanted;
    bool stream_ended;
};

static void
put64(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (56 - 8 * i));
}

static uint64_t
get64(const uint8_t *at)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | at[i];
    return value;
}

/* libpq reads whom it believes from a file, and from nothing else. */
static bool
keep_certificate(ps_receiver *receiver, const char *pem)
{
    size_t length = strlen(pem);
    receiver->certificate_fd = memfd_create("certificate", MFD_CLOEXEC);
    return receiver->certificate_fd >= 0 &&
           write(receiver->certificate_fd, pem, length) == (ssize_t)length;
}

int
ps_receiver_new(ps_receiver **out, ps_wal_writer *writer, const ps_receiver_options *options,
                ps_error *err)
{
    *out = NULL;
    size_t length = strlen(options->name);
    if (length == 0 || length > 63 ||
        strspn(options->name, "abcdefghijklmnopqrstuvwxyz0123456789_") != length)
        return ps_fail(err, PS_ERR_INVALID, "a receiver's name has 1 to 63 of a-z, 0-9 and _");
    ps_receiver *receiver = calloc(1, sizeof *receiver);
    if (receiver == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory");
    receiver->writer = writer;
    receiver->host = strdup(options->host);
    receiver->port = strdup(options->port);
    receiver->user = strdup(options->user);
    receiver->password = strdup(options->password);
    receiver->name = strdup(options->name);
    receiver->system_id = options->system_id;
    receiver->notify_fd = options->notify_fd;
    receiver->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    receiver->certificate_fd = -1;
    if (receiver->host == NULL || receiver->port == NULL || receiver->user == NULL ||
        receiver->password == NULL || receiver->name == NULL || receiver->stop_fd < 0) {
        ps_receiver_free(receiver);
        return ps_fail(err, PS_ERR_NOMEM, "no memory or descriptor for a receiver");
    }
    if (*options->certificate != '\0' && !keep_certificate(receiver, options->certificate)) {
        ps_receiver_free(receiver);
        return ps_fail(err, PS_ERR_NOMEM, "no memory or descriptor for a certificate");
    }
    *out = receiver;
    return PS_OK;
}

void
ps_receiver_free(ps_receiver *receiver)
{
    if (receiver == NULL)
        return;
    if (receiver->stop_fd >= 0)
        close(receiver->stop_fd);
    if (receiver->certificate_fd >= 0)
        close(receiver->certificate_fd);
    free(receiver->host);
    free(receiver->port);
    free(receiver->user);
    free(receiver->password);
    free(receiver->name);
    free(receiver);
}

void
ps_receiver_stop(ps_receiver *receiver)
{
    atomic_store(&receiver->stopping, true);
    (void)eventfd_write(receiver->stop_fd, 1);
}

bool
ps_receiver_streaming(ps_receiver *receiver)
{
    return atomic_load(&receiver->streaming);
}

static int
lost(ps_receiver *receiver, const char *when, ps_error *err)
{
    const char *text = PQerrorMessage(receiver->connection);
    size_t length = strcspn(text, "\n");
    return ps_fail(err, PS_ERR_CLOSED, "%s: %.*s", when, (int)length,
                   length > 0 ? text : "");
}

/* Waits for the socket; false when told to stop or when the time is over. */
static bool
wait_socket(ps_receiver *receiver, short events, int timeout_ms)
{
    struct pollfd fds[2] = {{.fd = PQsocket(receiver->connection), .events = events},
                            {.fd = receiver->stop_fd, .events = POLLIN}};
    int ready;
    do {
        ready = poll(fds, 2, timeout_ms);
    } while (ready < 0 && errno == EINTR && !atomic_load(&receiver->stopping));
    return ready > 0 && fds[1].revents == 0;
}

/* What libpq would otherwise take from files of this process's user: a password, a client's
 * certificate and key, a Kerberos ticket. NOWHERE cannot exist, which libpq takes for "none". What
 * it would take from the environment is gone from there (pagestore.walservice.compute_address). */
static PGconn *
begin_connection(ps_receiver *receiver)
{
    static const char nowhere[] = "/dev/null/nowhere";
    bool encrypted = receiver->certificate_fd >= 0;
    char believed[64];
    snprintf(believed, sizeof believed, "/proc/self/fd/%d", receiver->certificate_fd);
    const char *const options[][2] = {
        {"host", receiver->host},
        {"port", receiver->port},
        {"user", receiver->user},
        {"password", receiver->password},
        {"replication", "true"},
        {"application_name", receiver->name},
        {"client_encoding", "UTF8"},
        {"tcp_user_timeout", "30000"},
        {"passfile", nowhere},
        {"sslcert", nowhere},
        {"sslkey", nowhere},
        {"sslmode", encrypted ? "verify-full" : "disable"},
        {"sslrootcert", encrypted ? believed : nowhere},
        {"sslcrl", nowhere},
        {"gssencmode", "disable"},
        {"target_session_attrs", "any"},
    };
    enum { OPTIONS = sizeof options / sizeof options[0] };
    const char *keywords[OPTIONS + 1] = {NULL}, *values[OPTIONS + 1] = {NULL};
    for (int i = 0; i < OPTIONS; i++) {
        keywords[i] = options[i][0];
        values[i] = options[i][1];
    }
    return PQconnectStartParams(keywords, values, 0);
}

static int
connect_to_compute(ps_receiver *receiver, ps_error *err)
{
    receiver->connection = begin_connection(receiver);
    if (receiver->connection == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory");
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    if (PQstatus(receiver->connection) == CONNECTION_BAD)
        return lost(receiver, "cannot connect to the compute", err);
    while (state != PGRES_POLLING_OK) {
        short events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        if (!wait_socket(receiver, events, CONNECT_TIMEOUT_MS))
            return ps_fail(err, PS_ERR_CLOSED, "gave up connecting to the compute");
        state = PQconnectPoll(receiver->connection);
        if (state == PGRES_POLLING_FAILED)
            return lost(receiver, "cannot connect to the compute", err);
    }
    return PS_OK;
}

/* One command of the replication protocol, interruptible; *result is the caller's to clear. */
static int
command(ps_receiver *receiver, const char *text, PGresult **result, ps_error *err)
{
    *result = NULL;
    if (!PQsendQuery(receiver->connection, text))
        return lost(receiver, "cannot send a command to the compute", err);
    while (PQisBusy(receiver->connection)) {
        if (!wait_socket(receiver, POLLIN, CONNECT_TIMEOUT_MS))
            return ps_fail(err, PS_ERR_CLOSED, "the compute did not answer in time");
        if (!PQconsumeInput(receiver->connection))
            return lost(receiver, "lost the compute", err);
    }
    *result = PQgetResult(receiver->connection);
    if (*result == NULL)
        return lost(receiver, "the compute did not answer", err);
    return PS_OK;
}

static int
drain_results(ps_receiver *receiver, ps_error *err)
{
    PGresult *result;
    while ((result = PQgetResult(receiver->connection)) != NULL)
        PQclear(result);
    if (PQstatus(receiver->connection) != CONNECTION_OK)
        return lost(receiver, "lost the compute", err);
    return PS_OK;
}

static int
identify(ps_receiver *receiver, ps_error *err)
{
    PGresult *result;
    int status = command(receiver, "IDENTIFY_SYSTEM", &result, err);
    if (status != PS_OK)
        return status;
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1 ||
        PQnfields(result) < 3) {
        status = lost(receiver, "IDENTIFY_SYSTEM failed", err);
    } else {
        uint64_t system_id = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
        const char *timeline = PQgetvalue(result, 0, 1);
        if (receiver->system_id != 0 && system_id != receiver->system_id)
            status = ps_fail(err, PS_ERR_INVALID,
                             "the compute is of cluster %" PRIu64 ", the timeline of %" PRIu64,
                             system_id, receiver->system_id);
        else if (strcmp(timeline, "1") != 0)
            status = ps_fail(err, PS_ERR_INVALID, "the compute is on Postgres timeline %s, not 1",
                             timeline);
    }
    PQclear(result);
    return status == PS_OK ? drain_results(receiver, err) : status;
}

static int
ensure_slot(ps_receiver *receiver, ps_error *err)
{
    char text[192];
    PGresult *result;
    /* RESERVE_WAL: the compute keeps its WAL from now on, not only once the stream has begun. */
    snprintf(text, sizeof text,
             "CREATE_REPLICATION_SLOT " PS_RECEIVER_SLOT_PREFIX "%s PHYSICAL RESERVE_WAL",
             receiver->name);
    int status = command(receiver, text, &result, err);
    if (status != PS_OK)
        return status;
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    bool exists = state != NULL && strcmp(state, "42710") == 0;
    if (PQresultStatus(result) != PGRES_TUPLES_OK && !exists)
        status = lost(receiver, "cannot create the replication slot", err);
    PQclear(result);
    return status == PS_OK ? drain_results(receiver, err) : status;
}

static int
start_replication(ps_receiver *receiver, ps_error *err)
{
    uint64_t lsn = ps_wal_writer_position(receiver->writer).write_lsn;
    char text[192];
    PGresult *result;
    snprintf(text, sizeof text,
             "START_REPLICATION SLOT " PS_RECEIVER_SLOT_PREFIX "%s PHYSICAL %" PRIX32
             "/%" PRIX32 " TIMELINE 1",
             receiver->name, (uint32_t)(lsn >> 32), (uint32_t)lsn);
    int status = command(receiver, text, &result, err);
    if (status == PS_OK && PQresultStatus(result) != PGRES_COPY_BOTH)
        status = lost(receiver, "the compute refused to stream", err);
    PQclear(result);
    return status;
}

/* Tells the compute how far its WAL is safe here. */
static int
confirm(ps_receiver *receiver, ps_wal_position position, ps_error *err)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint8_t message[STATUS_MESSAGE] = {'r'};
    put64(message + 1, position.write_lsn);
    put64(message + 9, position.flush_lsn);
    /* Nothing is applied here, but a commit with remote_apply waits for this. */
    put64(message + 17, position.flush_lsn);
    put64(message + 25, (uint64_t)((now.tv_sec - POSTGRES_EPOCH_SECONDS) * 1000000 +
                                   now.tv_nsec / 1000));
    if (PQputCopyData(receiver->connection, (char *)message, sizeof message) <= 0)
        return lost(receiver, "cannot confirm to the compute", err);
    for (;;) {
        int pending = PQflush(receiver->connection);
        if (pending == 0)
            break;
        if (pending < 0 || !wait_socket(receiver, POLLOUT, CONNECT_TIMEOUT_MS))
            return lost(receiver, "cannot confirm to the compute", err);
    }
    receiver->confirmed_flush = position.flush_lsn;
    receiver->reply_wanted = false;
    return PS_OK;
}

static int
take_message(ps_receiver *receiver, const uint8_t *message, size_t length, ps_error *err)
{
    if (length > DATA_HEADER && message[0] == 'w')
        return ps_wal_writer_write(receiver->writer, get64(message + 1), message + DATA_HEADER,
                                   length - DATA_HEADER, err);
    if (length == DATA_HEADER && message[0] == 'w')
        return PS_OK;
    if (length >= KEEPALIVE && message[0] == 'k') {
        receiver->reply_wanted |= message[KEEPALIVE - 1] != 0;
        return PS_OK;
    }
    return ps_fail(err, PS_ERR_CLOSED, "the compute sent a message that is no replication message");
}

/* The next message that has arrived: its length, 0 when there is none, or a status. */
static int
next_message(ps_receiver *receiver, char **message, ps_error *err)
{
    /* Twice: what has arrived may lie in libpq, or in the socket still. */
    for (int looked = 0; looked < 2; looked++) {
        int length = PQgetCopyData(receiver->connection, message, 1);
        if (length > 0)
            return length;
        if (length == -1) {
            receiver->stream_ended = true;
            return 0;
        }
        if (length < 0 || (looked == 0 && !PQconsumeInput(receiver->connection)))
            return lost(receiver, "lost the compute", err);
    }
    return 0;
}

/* Takes all that has arrived, or about DRAIN bytes and *more: one sync will do for them. */
static int
drain(ps_receiver *receiver, bool *more, ps_error *err)
{
    size_t bytes = 0;
    char *message = NULL;
    int length = 0;
    while (bytes < DRAIN && (length = next_message(receiver, &message, err)) > 0) {
        int status = take_message(receiver, (uint8_t *)message, (size_t)length, err);
        PQfreemem(message);
        if (status != PS_OK)
            return status;
        bytes += (size_t)length;
    }
    /* libpq may hold further messages, of which poll would say nothing. */
    *more = length > 0;
    return length < 0 ? length : PS_OK;
}

/* Syncs and confirms what was taken. */
static int
settle(ps_receiver *receiver, bool due, ps_error *err)
{
    int status = ps_wal_writer_flush(receiver->writer, err);
    if (status != PS_OK)
        return status;
    ps_wal_position position = ps_wal_writer_position(receiver->writer);
    bool advanced = position.flush_lsn != receiver->confirmed_flush;
    if (!receiver->stream_ended && (advanced || receiver->reply_wanted || due))
        status = confirm(receiver, position, err);
    /* After the compute, where a commit waits; and even if that is gone: the WAL is durable. */
    if (advanced && receiver->notify_fd >= 0)
        (void)eventfd_write(receiver->notify_fd, 1);
    return status;
}

/* A compute that shuts down says that the command is done, and closes without more. */
static int
end_of_stream(ps_receiver *receiver, ps_error *err)
{
    PGresult *result = PQgetResult(receiver->connection);
    ExecStatusType kind = PQresultStatus(result);
    PQclear(result);
    /* COPY_IN: it has ended its half of the copy, and ours is still open. */
    if (kind == PGRES_COMMAND_OK || kind == PGRES_COPY_IN)
        return PS_OK;
    return lost(receiver, "the compute ended the stream", err);
}

static int
stream(ps_receiver *receiver, ps_error *err)
{
    receiver->confirmed_flush = 0;
    receiver->stream_ended = false;
    bool due = true;
    while (!atomic_load(&receiver->stopping)) {
        bool more = false;
        int status = drain(receiver, &more, err);
        if (status == PS_OK)
            status = settle(receiver, due, err);
        if (status != PS_OK)
            return status;
        if (receiver->stream_ended)
            return end_of_stream(receiver, err);
        due = !more && !wait_socket(receiver, POLLIN, STATUS_INTERVAL_MS);
    }
    return PS_OK;
}

int
ps_receiver_run(ps_receiver *receiver, ps_error *err)
{
    int status = connect_to_compute(receiver, err);
    if (status == PS_OK)
        status = identify(receiver, err);
    if (status == PS_OK)
        status = ensure_slot(receiver, err);
    if (status == PS_OK)
        status = start_replication(receiver, err);
    if (status == PS_OK) {
        atomic_store(&receiver->streaming, true);
        status = PQsetnonblocking(receiver->connection, 1) == 0
                     ? stream(receiver, err)
                     : lost(receiver, "cannot stream", err);
        atomic_store(&receiver->streaming, false);
    }
    PQfinish(receiver->connection);
    receiver->connection = NULL;
    /* A wait that stop cut short looks like a lost connection. */
    return atomic_load(&receiver->stopping) && status == PS_ERR_CLOSED ? PS_OK : status;
}
