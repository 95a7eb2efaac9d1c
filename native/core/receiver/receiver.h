/*
 * The receiving end of a compute's walsender: a synchronous standby that only keeps WAL.
 *
 * One call of ps_receiver_run is one connection: check whose WAL it is, START_REPLICATION at
 * exactly the writer's position, then loop: take everything that has arrived, write it, sync
 * once, confirm. What is confirmed is the writer's flush LSN and nothing else: always the end of
 * a whole record, always synced before. The call blocks (its thread is the stream's) and returns
 * when it is told to stop, when the compute ends the stream, and on every error; reconnecting
 * is the caller's decision.
 *
 * It holds the compute's WAL through a physical replication slot, so that a compute keeps what
 * this safekeeper still has to fetch. The slot's name is its application_name behind a prefix
 * that tells it from the slots of users; pagestore/postgres/slots.py and the shim's slots.c know
 * the same prefix.
 */
#ifndef PS_RECEIVER_RECEIVER_H
#define PS_RECEIVER_RECEIVER_H

#include "receiver/writer.h"

#define PS_RECEIVER_SLOT_PREFIX "_pagestore_"

typedef struct ps_receiver ps_receiver;

typedef struct ps_receiver_options {
    const char *host; /* a socket directory or one host */
    const char *port;
    const char *user;
    const char *password; /* "": none */
    const char *certificate; /* PEM: TLS, and the server shows exactly this one; "": no TLS */
    const char *name;     /* application_name, and the slot's behind its prefix: [a-z0-9_] */
    uint64_t system_id;   /* 0: take any cluster's */
    int notify_fd;        /* an eventfd that is signalled after each advance; or -1 */
} ps_receiver_options;

/* Copies what it needs; `writer` must outlive it. */
int ps_receiver_new(ps_receiver **receiver, ps_wal_writer *writer,
                    const ps_receiver_options *options, ps_error *err);
void ps_receiver_free(ps_receiver *receiver);

/*
 * PS_OK: told to stop, or the compute ended the stream in order (it shuts down).
 * PS_ERR_CLOSED: connection refused or lost. PS_ERR_INVALID: another cluster or Postgres
 * timeline. PS_ERR_CORRUPT: bytes that do not continue the log. PS_ERR_IO, PS_ERR_NO_SPACE:
 * from the writer, which is then to be closed.
 */
int ps_receiver_run(ps_receiver *receiver, ps_error *err);

/* From any thread: makes the running and every later run return soon. */
void ps_receiver_stop(ps_receiver *receiver);

/* Whether WAL flows (START_REPLICATION was accepted), for status only. */
bool ps_receiver_streaming(ps_receiver *receiver);

#endif
