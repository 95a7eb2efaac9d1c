#include "relay/stream.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/ssl.h>

struct ps_tls {
    SSL_CTX *context;
    atomic_int users;
};

static const uint8_t ALPN[] = "\x0apostgresql";

static BIO_METHOD *socket_method; /* made once, see method() */

/* --- certificates */

static int
tls_failure(ps_error *err, const char *what, const char *file)
{
    char words[160] = "unknown";
    unsigned long code = ERR_get_error();
    if (code != 0)
        ERR_error_string_n(code, words, sizeof words);
    ERR_clear_error();
    return ps_fail(err, PS_ERR_INVALID, "%s %s: %s", what, file, words);
}

/* A client that speaks ALPN must mean Postgres; one that does not is taken as one that does. */
static int
choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_length,
                const unsigned char *in, unsigned int in_length, void *unused)
{
    (void)ssl;
    (void)unused;
    unsigned char *chosen;
    int found = SSL_select_next_proto(&chosen, out_length, ALPN, sizeof ALPN - 1, in, in_length);
    *out = chosen;
    return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* RFC 5929: by the hash of the certificate's signature, but SHA-256 for MD5 and SHA-1. */
static int
certificate_hash(SSL_CTX *context, uint8_t *hash, size_t *length, ps_error *err)
{
    X509 *certificate = SSL_CTX_get0_certificate(context);
    int algorithm = 0;
    if (!OBJ_find_sigid_algs(X509_get_signature_nid(certificate), &algorithm, NULL))
        algorithm = NID_sha256; /* Ed25519 and its like have no hash of their own */
    if (algorithm == NID_md5 || algorithm == NID_sha1 || algorithm == NID_undef)
        algorithm = NID_sha256;
    const EVP_MD *digest = EVP_get_digestbynid(algorithm);
    unsigned int made = 0;
    if (digest == NULL || (size_t)EVP_MD_get_size(digest) > PS_CERTIFICATE_HASH ||
        !X509_digest(certificate, digest, hash, &made))
        return ps_fail(err, PS_ERR_UNSUPPORTED, "the certificate's signature has an unknown hash");
    *length = made;
    return PS_OK;
}

int
ps_tls_new(ps_tls **tls, const char *certificate, const char *key,
           uint8_t hash[PS_CERTIFICATE_HASH], size_t *hash_length, ps_error *err)
{
    *tls = NULL;
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "no memory for TLS");
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* Idle sessions give their record buffers back; what was half written may move in memory. */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* A record in one read of the socket, where it would else be its head, and then its body. */
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    int status = PS_OK;
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        status = tls_failure(err, "cannot use the certificate", certificate);
    else if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        status = tls_failure(err, "cannot use the key", key);
    else if (SSL_CTX_check_private_key(context) != 1)
        status = tls_failure(err, "the certificate does not belong to the key", key);
    else
        status = certificate_hash(context, hash, hash_length, err);
    *tls = status == PS_OK ? malloc(sizeof **tls) : NULL;
    if (*tls == NULL) {
        SSL_CTX_free(context);
        return status != PS_OK ? status : ps_fail(err, PS_ERR_NOMEM, "no memory for TLS");
    }
    (*tls)->context = context;
    atomic_init(&(*tls)->users, 1);
    return PS_OK;
}

ps_tls *
ps_tls_share(ps_tls *tls)
{
    atomic_fetch_add(&tls->users, 1);
    return tls;
}

void
ps_tls_free(ps_tls *tls)
{
    if (tls == NULL || atomic_fetch_sub(&tls->users, 1) > 1)
        return;
    SSL_CTX_free(tls->context); /* streams that use it hold it */
    free(tls);
}

/* --- a BIO that reads the early bytes first, and never raises SIGPIPE */

static int
bio_read(BIO *bio, char *data, int length)
{
    ps_stream *stream = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (stream->early_length > 0) {
        size_t wanted = (size_t)length;
        size_t taken = stream->early_length < wanted ? stream->early_length : wanted;
        memcpy(data, stream->early, taken);
        stream->early += taken;
        stream->early_length -= taken;
        return (int)taken;
    }
    ssize_t got = recv(stream->fd, data, (size_t)length, 0);
    stream->drained = got < length;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_read(bio);
    return (int)got;
}

static int
bio_write(BIO *bio, const char *data, int length)
{
    ps_stream *stream = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t put = send(stream->fd, data, (size_t)length, MSG_NOSIGNAL);
    if (put < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_write(bio);
    return (int)put;
}

static long
bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static void
make_method(void)
{
    BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pagestore");
    if (made == NULL)
        return;
    BIO_meth_set_read(made, bio_read);
    BIO_meth_set_write(made, bio_write);
    BIO_meth_set_ctrl(made, bio_control);
    socket_method = made;
}

static BIO_METHOD *
method(void)
{
    static CRYPTO_ONCE once = CRYPTO_ONCE_STATIC_INIT;
    return CRYPTO_THREAD_run_once(&once, make_method) ? socket_method : NULL;
}

/* --- streams */

void
ps_stream_init(ps_stream *stream, int fd)
{
    memset(stream, 0, sizeof *stream);
    stream->fd = fd;
}

void
ps_stream_close(ps_stream *stream)
{
    if (stream->ssl != NULL)
        SSL_free(stream->ssl);
    free(stream->early_memory);
    if (stream->fd >= 0)
        close(stream->fd);
    ps_stream_init(stream, -1);
}

int
ps_stream_begin_tls(ps_stream *stream, ps_tls *tls, const void *early, size_t early_length,
                    ps_error *err)
{
    SSL *ssl = SSL_new(tls->context);
    BIO *bio = method() != NULL ? BIO_new(socket_method) : NULL;
    void *copy = malloc(early_length + 1);
    if (ssl == NULL || bio == NULL || copy == NULL) {
        SSL_free(ssl);
        BIO_free(bio);
        free(copy);
        return ps_fail(err, PS_ERR_NOMEM, "no memory for TLS");
    }
    if (early_length > 0)
        memcpy(copy, early, early_length);
    stream->early_memory = copy;
    stream->early = copy;
    stream->early_length = early_length;
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_accept_state(ssl);
    stream->ssl = ssl;
    return PS_OK;
}

static ps_io
tls_answer(ps_stream *stream, int result)
{
    switch (SSL_get_error(stream->ssl, result)) {
        case SSL_ERROR_NONE:
            return PS_IO_DONE;
        case SSL_ERROR_WANT_READ:
            return PS_IO_READ;
        case SSL_ERROR_WANT_WRITE:
            return PS_IO_WRITE;
        case SSL_ERROR_ZERO_RETURN:
            return PS_IO_END;
        default:
            /* Another stream of this thread must not find what was said of this one. */
            ERR_clear_error();
            return PS_IO_BROKEN;
    }
}

ps_io
ps_stream_handshake(ps_stream *stream)
{
    return tls_answer(stream, SSL_accept(stream->ssl));
}

ps_io
ps_stream_read(ps_stream *stream, void *data, size_t length, size_t *moved)
{
    *moved = 0;
    if (stream->ssl != NULL)
        return tls_answer(stream, SSL_read_ex(stream->ssl, data, length, moved));
    ssize_t got = recv(stream->fd, data, length, 0);
    if (got > 0) {
        *moved = (size_t)got;
        return PS_IO_DONE;
    }
    if (got == 0)
        return PS_IO_END;
    return errno == EAGAIN || errno == EINTR ? PS_IO_READ : PS_IO_BROKEN;
}

bool
ps_stream_holds_bytes(const ps_stream *stream)
{
    return stream->ssl != NULL && (stream->early_length > 0 || SSL_has_pending(stream->ssl));
}

bool
ps_stream_may_have_more(const ps_stream *stream, size_t moved, size_t length)
{
    /* A short read of a socket has emptied it. */
    if (stream->ssl == NULL)
        return moved == length;
    return !stream->drained || ps_stream_holds_bytes(stream);
}

ps_io
ps_stream_write(ps_stream *stream, const void *data, size_t length, size_t *moved)
{
    *moved = 0;
    if (stream->ssl != NULL)
        return tls_answer(stream, SSL_write_ex(stream->ssl, data, length, moved));
    ssize_t put = send(stream->fd, data, length, MSG_NOSIGNAL);
    if (put >= 0) {
        *moved = (size_t)put;
        return PS_IO_DONE;
    }
    return errno == EAGAIN || errno == EINTR ? PS_IO_WRITE : PS_IO_BROKEN;
}

ps_io
ps_stream_peek(ps_stream *stream)
{
    uint8_t byte;
    size_t seen;
    if (stream->ssl != NULL)
        return tls_answer(stream, SSL_peek_ex(stream->ssl, &byte, 1, &seen));
    ssize_t got = recv(stream->fd, &byte, 1, MSG_PEEK);
    if (got != -1)
        return got > 0 ? PS_IO_DONE : PS_IO_END;
    return errno == EAGAIN || errno == EINTR ? PS_IO_READ : PS_IO_BROKEN;
}

void
ps_stream_end(ps_stream *stream)
{
    if (stream->ssl != NULL)
        SSL_shutdown(stream->ssl);
    shutdown(stream->fd, SHUT_WR);
    ERR_clear_error();
}
