/*
 * One connection as bytes: a socket, with TLS over it or without.
 *
 * Nothing here waits. What cannot be done now says so, and the caller asks again when the socket
 * is readable or writable; TLS may need the one for the other.
 */
#ifndef PS_RELAY_STREAM_H
#define PS_RELAY_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct ps_tls ps_tls; /* a certificate with its key, for any number of streams */

enum { PS_CERTIFICATE_HASH = 64 };

/*
 * From PEM files. PS_ERR_INVALID says which file is wrong and why. `hash` gets what
 * tls-server-end-point is for this certificate (RFC 5929), `hash_length` its length.
 */
int ps_tls_new(ps_tls **tls, const char *certificate, const char *key,
               uint8_t hash[PS_CERTIFICATE_HASH], size_t *hash_length, ps_error *err);
/* One more that uses it, and frees it in its time. Any thread. */
ps_tls *ps_tls_share(ps_tls *tls);
void ps_tls_free(ps_tls *tls);

typedef enum ps_io {
    PS_IO_DONE,   /* *moved > 0 bytes, or the step is finished */
    PS_IO_READ,   /* again, once the socket is readable */
    PS_IO_WRITE,  /* again, once it is writable */
    PS_IO_END,    /* the peer sends nothing more */
    PS_IO_BROKEN  /* errno, or the TLS library, says why: ps_stream_error */
} ps_io;

typedef struct ps_stream {
    int fd;
    void *ssl;            /* SSL; NULL in plain text */
    const uint8_t *early; /* bytes that were read before TLS began, and are TLS's */
    size_t early_length;
    void *early_memory;
    bool drained;         /* TLS: the last read of the socket took less than it had room for */
} ps_stream;

void ps_stream_init(ps_stream *stream, int fd);
/* Closes the socket. */
void ps_stream_close(ps_stream *stream);

/* `early`: what was already read of the client's TLS; it is copied. */
int ps_stream_begin_tls(ps_stream *stream, ps_tls *tls, const void *early, size_t early_length,
                        ps_error *err);
ps_io ps_stream_handshake(ps_stream *stream);

ps_io ps_stream_read(ps_stream *stream, void *data, size_t length, size_t *moved);
/*
 * Whether a read may find more without waiting for the socket, after one that moved `moved` of
 * `length` bytes. Of what TLS holds already no event of the socket will tell.
 */
bool ps_stream_may_have_more(const ps_stream *stream, size_t moved, size_t length);
/* Whether TLS has taken bytes off the socket that were not read yet. */
bool ps_stream_holds_bytes(const ps_stream *stream);
ps_io ps_stream_write(ps_stream *stream, const void *data, size_t length, size_t *moved);
/* Whether there is a byte to read, without taking it: DONE, END, BROKEN, or READ. */
ps_io ps_stream_peek(ps_stream *stream);
/* No more will be written; reading goes on. */
void ps_stream_end(ps_stream *stream);

#endif
