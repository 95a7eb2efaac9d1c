#include "transport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#define DEAD_PEER_MS 20000 /* unacknowledged for so long: the connection is dead */

__attribute__((format(printf, 2, 3))) static bool
fail(Transport *transport, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(transport->fault, sizeof transport->fault, format, args);
    va_end(args);
    return false;
}

/* Connecting */

/* A name may have several addresses, not all of them served: each call takes the next one. */
static struct addrinfo *
choose_address(struct addrinfo *addresses)
{
    static unsigned int turn;
    unsigned int count = 0;
    struct addrinfo *chosen = addresses;

    for (struct addrinfo *address = addresses; address != NULL; address = address->ai_next)
        count++;
    for (unsigned int skip = turn++ % count; skip > 0; skip--)
        chosen = chosen->ai_next;
    return chosen;
}

/* Takes what connect() said of it. */
static bool
begun_to_connect(Transport *transport, int rc)
{
    transport->connecting = rc != 0;
    /* A Unix socket whose backlog is full says EAGAIN: there is nothing to wait for. */
    if (rc != 0 && errno != EINPROGRESS)
        return fail(transport, "could not be connected to: %s", strerror(errno));
    return true;
}

/* A name in the abstract space that nobody else has: by it the page server tells apart who is
 * connected to its socket, and ends one connection that takes no answers. */
static bool
name_own_end(int fd)
{
    struct sockaddr_un own = {.sun_family = AF_UNIX};
    unsigned char lot[16];
    size_t length = 1;

    if (getrandom(lot, sizeof lot, 0) != (ssize_t) sizeof lot)
        return false;
    for (size_t i = 0; i < sizeof lot; i++, length += 2)
        snprintf(own.sun_path + length, 3, "%02x", lot[i]);
    return bind(fd, (const struct sockaddr *) &own,
                (socklen_t) (offsetof(struct sockaddr_un, sun_path) + length)) == 0;
}

static bool
connect_unix(Transport *transport, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path)
        return fail(transport, "could not be found: the socket's path is too long");
    strcpy(address.sun_path, path);
    transport->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (transport->fd < 0 || !name_own_end(transport->fd))
        return fail(transport, "could not be connected to: %s", strerror(errno));
    return begun_to_connect(
        transport, connect(transport->fd, (const struct sockaddr *) &address, sizeof address));
}

static bool
connect_tcp(Transport *transport, const char *host, const char *port)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses = NULL;
    struct addrinfo *address;
    int one = 1;
    unsigned int dead_peer_ms = DEAD_PEER_MS;
    int rc = getaddrinfo(host, port, &hints, &addresses);
    bool begun;

    if (rc != 0)
        return fail(transport, "could not be found: %s", gai_strerror(rc));
    address = choose_address(addresses);
    transport->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (transport->fd < 0)
        begun = fail(transport, "could not be connected to: %s", strerror(errno));
    else
    {
        setsockopt(transport->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(transport->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_peer_ms,
                   sizeof dead_peer_ms);
        begun = begun_to_connect(transport,
                                 connect(transport->fd, address->ai_addr, address->ai_addrlen));
    }
    freeaddrinfo(addresses);
    return begun;
}

static bool
finish_connect(Transport *transport)
{
    struct pollfd writable = {.fd = transport->fd, .events = POLLOUT};
    int fault = 0;
    socklen_t length = sizeof fault;

    if (poll(&writable, 1, 0) != 1)
        return true;
    getsockopt(transport->fd, SOL_SOCKET, SO_ERROR, &fault, &length);
    if (fault != 0)
        return fail(transport, "could not be connected to: %s", strerror(fault));
    transport->connecting = false;
    return true;
}

/* TLS. OpenSSL's list of errors is one a process, and Postgres looks into it, too: it is left
 * empty. */

static bool
fail_tls(Transport *transport, const char *what)
{
    unsigned long code = ERR_get_error();
    long verified = transport->tls == NULL ? X509_V_OK : SSL_get_verify_result(transport->tls);
    const char *why = verified != X509_V_OK ? X509_verify_cert_error_string(verified)
                      : code != 0           ? ERR_reason_error_string(code)
                      : errno != 0          ? strerror(errno)
                                            : "the connection was closed";

    fail(transport, "%s: %s", what, why == NULL ? "TLS failed" : why);
    ERR_clear_error();
    return false;
}

/* What is believed, read once a process; again after a failure. */
static SSL_CTX *
context_of(const char *authority)
{
    static SSL_CTX *made;
    SSL_CTX *context = made;

    if (context != NULL)
        return context;
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || SSL_CTX_load_verify_file(context, authority) != 1 ||
        SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1)
    {
        SSL_CTX_free(context);
        return NULL;
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return made = context;
}

/* The certificate must be the host's that was meant. */
static bool
expect_host(SSL *tls, const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];

    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), host) == 1;
    return SSL_set1_host(tls, host) == 1 && SSL_set_tlsext_host_name(tls, host) == 1;
}

static bool
begin_tls(Transport *transport, const TransportTarget *target)
{
    static const unsigned char http2[] = "\x02h2";
    SSL_CTX *context;

    ERR_clear_error();
    errno = 0;
    context = context_of(target->authority);
    if (context == NULL)
        return fail_tls(transport, "cannot be believed: the authority's certificate does not load");
    transport->tls = SSL_new(context);
    if (transport->tls == NULL || SSL_set_fd(transport->tls, transport->fd) != 1 ||
        SSL_set_alpn_protos(transport->tls, http2, sizeof http2 - 1) != 0 ||
        !expect_host(transport->tls, target->host))
        return fail_tls(transport, "could not be greeted");
    SSL_set_connect_state(transport->tls);
    transport->greeting = true;
    return true;
}

/* Whether `rc`, of a call of OpenSSL, only means that nothing goes now. */
static bool
would_wait(Transport *transport, int rc)
{
    int error = SSL_get_error(transport->tls, rc);

    transport->wants_write = error == SSL_ERROR_WANT_WRITE;
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static bool
greet(Transport *transport)
{
    int rc;

    ERR_clear_error();
    errno = 0;
    transport->wants_write = false;
    rc = SSL_do_handshake(transport->tls);
    if (rc == 1)
        transport->greeting = false;
    else if (!would_wait(transport, rc))
        return fail_tls(transport, "did not prove who it is");
    return true;
}

/* All together */

bool
transport_open(Transport *transport, const TransportTarget *target)
{
    memset(transport, 0, sizeof *transport);
    transport->fd = -1;
    if (target->host[0] == '/')
        return connect_unix(transport, target->host);
    if (!connect_tcp(transport, target->host, target->port))
        return false;
    return target->authority[0] == '\0' || begin_tls(transport, target);
}

void
transport_close(Transport *transport)
{
    SSL_free(transport->tls);
    transport->tls = NULL;
    if (transport->fd >= 0)
        close(transport->fd);
    transport->fd = -1;
}

bool
transport_progress(Transport *transport)
{
    if (transport->connecting && !finish_connect(transport))
        return false;
    return transport->connecting || !transport->greeting || greet(transport);
}

static ssize_t
moved(Transport *transport, ssize_t rc)
{
    if (rc > 0)
        return rc;
    if (rc < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (rc == 0)
        fail(transport, "closed the connection");
    else
        fail(transport, "lost the connection: %s", strerror(errno));
    return -1;
}

static ssize_t
moved_by_tls(Transport *transport, int rc)
{
    if (rc > 0)
        return rc;
    if (would_wait(transport, rc))
        return 0;
    if (SSL_get_error(transport->tls, rc) == SSL_ERROR_ZERO_RETURN)
        fail(transport, "closed the connection");
    else
        fail_tls(transport, "lost the connection");
    return -1;
}

ssize_t
transport_send(Transport *transport, const void *data, size_t length)
{
    if (transport->tls == NULL)
        return moved(transport, send(transport->fd, data, length, MSG_NOSIGNAL));
    ERR_clear_error();
    errno = 0;
    return moved_by_tls(transport, SSL_write(transport->tls, data, (int) length));
}

ssize_t
transport_receive(Transport *transport, void *data, size_t length)
{
    if (transport->tls == NULL)
        return moved(transport, recv(transport->fd, data, length, 0));
    ERR_clear_error();
    errno = 0;
    return moved_by_tls(transport, SSL_read(transport->tls, data, (int) length));
}
