/*
 * A connection to the page server on a non-blocking socket: TCP, TCP with TLS, or a Unix socket.
 *
 * Knows sockets and OpenSSL, and nothing of what is said. Never waits: what cannot go on says so.
 */
#ifndef PAGESTORE_TRANSPORT_H
#define PAGESTORE_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <openssl/ssl.h>

typedef struct TransportTarget
{
    const char *host;      /* a name or an IP address; the path of a Unix socket, from "/" on */
    const char *port;      /* nothing for a Unix socket */
    const char *authority; /* whose certificates are believed, a file; "" for no TLS */
} TransportTarget;

typedef struct Transport
{
    int fd;           /* -1: closed */
    bool connecting;
    bool greeting;    /* TLS is being agreed on */
    bool wants_write; /* TLS has something to send before it goes on */
    SSL *tls;         /* NULL: none */
    char fault[200];  /* why it failed, for people */
} Transport;

/* Begins to connect. All but _close return false, or -1, with `fault` set, once it has failed. */
extern bool transport_open(Transport *transport, const TransportTarget *target);
extern void transport_close(Transport *transport);

/* Goes on connecting; afterwards it is connected, unless `connecting` or `greeting`. */
extern bool transport_progress(Transport *transport);

/* How many bytes went; 0 when none can go now. */
extern ssize_t transport_send(Transport *transport, const void *data, size_t length);
extern ssize_t transport_receive(Transport *transport, void *data, size_t length);

#endif
