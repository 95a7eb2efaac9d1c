/* One session of a load: logs in, asks, and is answered. Any number of them, in one thread. */
#ifndef SESSION_H
#define SESSION_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

enum { INPUT = 4096, HASH = 32 };

typedef enum state { FREE, CONNECTING, ASKING_TLS, SHAKING, LOGGING_IN, IDLE, ASKED } state;

typedef struct client {
    int fd;
    SSL *ssl;
    state state;
    bool wants_write; /* what epoll watches for */
    int64_t began;    /* of the query, or of the connection that it is the first of */
    size_t have;
    char nonce[25];
    uint8_t signature[HASH]; /* that the server has to show */
    uint8_t *input;          /* while it logs in or waits for an answer */
} client;

typedef struct session_options {
    const char *user, *database, *password;
    struct sockaddr_in address;
    SSL_CTX *tls; /* NULL for none */
} session_options;

/* Called when a login is done, and when an answer is: then with its row. */
typedef void on_ready(client *c, bool has_row);

extern session_options opt;
extern on_ready *ready;
extern int poller; /* epoll */

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);
int64_t now_ns(void);

/* Connects, logs in; `ready` is called. */
void begin(client *c);
void end(client *c);
/* `SELECT 1`. */
void ask(client *c, int64_t began);
void put_message(client *c, char kind, const void *body, size_t length);
/* Waits for something to happen, and sees to it. */
void turn(void);

#endif
