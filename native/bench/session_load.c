/*
 * Sessions as a load, for `pagestore bench proxy`.
 *
 * Problem: what a proxy adds is some microseconds, which a client in Python, or libpq with the
 * 4,096 hashes of its every login, would hide. This one speaks the protocol itself, any number of
 * sessions in one thread, and hashes a password once (session.c).
 *
 *     ask      sessions that send `SELECT 1` as soon as the last is answered: latencies
 *     connect  connect, log in, `SELECT 1`, close, again: how many in the time
 *     once     all connect at the same moment: when the first and the last has its row
 *     copy     one session; a line on standard input is a query whose whole answer is read: seconds
 *     hold     all connect, some at a time, and stay idle. A line on standard input makes each ask
 *              once, and is answered by when the first and the last had its row; its end ends all.
 *
 * It prints a JSON object a line; with the process id of a proxy, the CPU that this took meanwhile
 * too. Whatever the server says that is not the answer ends the run: an error is never a fast
 * answer.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "session.h"

enum { MAX_CLIENTS = 40000, MAX_SAMPLES = 1 << 22, AT_A_TIME = 32 };

static client *clients;
static uint32_t how_many;
static double length_of_run;
static const char *watched; /* a process id, or "0" */

static uint32_t *samples; /* nanoseconds / 16 */
static size_t nsamples;
static bool measuring;
static uint64_t answered; /* since the beginning, in every mode */

static void
sample(int64_t nanoseconds)
{
    if (measuring && nsamples < MAX_SAMPLES)
        samples[nsamples++] = (uint32_t)(nanoseconds / 16);
}

static int
by_value(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static double
percentile_us(double part)
{
    return nsamples == 0 ? 0 : samples[(size_t)(part * (double)(nsamples - 1))] * 16 / 1e3;
}

/* What the watched process has spent on cores, all its threads: nanoseconds. */
static uint64_t
cpu_ns(void)
{
    char path[300];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%s/task", watched);
    DIR *tasks = strcmp(watched, "0") != 0 ? opendir(path) : NULL;
    if (tasks == NULL)
        return 0;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        unsigned long long spent;
        snprintf(path, sizeof path, "/proc/%s/task/%.20s/schedstat", watched, task->d_name);
        FILE *file = task->d_name[0] != '.' ? fopen(path, "r") : NULL;
        if (file == NULL)
            continue;
        if (fscanf(file, "%llu", &spent) == 1)
            sum += spent;
        fclose(file);
    }
    closedir(tasks);
    return sum;
}

/* --- modes */

static uint32_t begun, idle;
static int64_t moment, first_row, last_row;

static void
stay(client *c, bool row)
{
    (void)row;
    c->state = IDLE;
    free(c->input);
    c->input = NULL;
    idle++;
    if (begun < how_many)
        begin(&clients[begun++]);
}

static void
ask_again(client *c, bool row)
{
    (void)row;
    int64_t now = now_ns();
    answered++;
    sample(now - c->began);
    ask(c, now);
}

static void
connect_again(client *c, bool row)
{
    if (!row) {
        int64_t began = c->began;
        ask(c, began);
        return;
    }
    answered++;
    sample(now_ns() - c->began);
    end(c);
    begin(c);
}

static void
note_row(client *c, bool row)
{
    if (!row) {
        ask(c, moment);
        return;
    }
    last_row = now_ns();
    if (answered++ == 0)
        first_row = last_row;
    c->state = IDLE;
}

static void
print_rows(void)
{
    printf("{\"first_ms\": %.3f, \"last_ms\": %.3f}\n", (double)(first_row - moment) / 1e6,
           (double)(last_row - moment) / 1e6);
    fflush(stdout);
}

static void
connect_all(void)
{
    ready = stay;
    while (begun < how_many && begun < AT_A_TIME)
        begin(&clients[begun++]);
    while (idle < how_many)
        turn();
}

static void
run_for_seconds(void)
{
    int64_t warm = now_ns() + (int64_t)(length_of_run * 2e8);
    while (now_ns() < warm)
        turn();
    uint64_t before = answered, spent = cpu_ns();
    int64_t from = now_ns(), until = from + (int64_t)(length_of_run * 1e9);
    measuring = true;
    while (now_ns() < until)
        turn();
    double seconds = (double)(now_ns() - from) / 1e9;
    spent = cpu_ns() - spent;
    qsort(samples, nsamples, sizeof *samples, by_value);
    printf("{\"answered\": %llu, \"seconds\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
           "\"cpu_ns\": %llu}\n",
           (unsigned long long)(answered - before), seconds, percentile_us(0.5),
           percentile_us(0.99), (unsigned long long)spent);
}

static void
run_ask(void)
{
    connect_all();
    ready = ask_again;
    for (uint32_t i = 0; i < how_many; i++)
        ask(&clients[i], now_ns());
    run_for_seconds();
}

static void
run_connect(void)
{
    ready = connect_again;
    for (uint32_t i = 0; i < how_many; i++)
        begin(&clients[i]);
    run_for_seconds();
}

static void
run_once(void)
{
    ready = note_row;
    moment = now_ns();
    for (uint32_t i = 0; i < how_many; i++)
        begin(&clients[i]);
    while (answered < how_many)
        turn();
    print_rows();
}

static void
run_hold(void)
{
    char line[64];
    connect_all();
    printf("{\"connected\": %u}\n", how_many);
    fflush(stdout);
    ready = note_row;
    while (fgets(line, sizeof line, stdin) != NULL) {
        answered = 0;
        moment = now_ns();
        for (uint32_t i = 0; i < how_many; i++)
            ask(&clients[i], moment);
        while (answered < how_many)
            turn();
        print_rows();
    }
}

/* Reads to ReadyForQuery without looking into what comes before; the bytes that came. */
static uint64_t
skim(client *c)
{
    enum { PIECE = 1 << 18, HEAD = 5 };
    static uint8_t piece[PIECE], head[HEAD];
    size_t have = 0, left = 0;
    uint64_t total = 0;
    for (;;) {
        ssize_t got = c->ssl != NULL ? SSL_read(c->ssl, piece, PIECE)
                                     : recv(c->fd, piece, PIECE, 0);
        if (got <= 0)
            die("the server ended a session while it answered");
        total += (uint64_t)got;
        for (size_t at = 0; at < (size_t)got;) {
            size_t rest = (size_t)got - at, part = left > 0 ? left : HEAD - have;
            part = part < rest ? part : rest;
            if (left > 0) {
                left -= part;
            } else {
                memcpy(head + have, piece + at, part);
                have += part;
            }
            at += part;
            if (have == HEAD && left == 0) {
                left = (uint32_t)head[1] << 24 | head[2] << 16 | head[3] << 8 | head[4];
                left -= 4;
                have = 0;
                if (head[0] == 'E')
                    die("the server says: %.*s", (int)(got - (ssize_t)at), (char *)piece + at);
                if (head[0] == 'Z')
                    return total;
            }
        }
    }
}

static void
run_copy(void)
{
    char line[512];
    connect_all();
    client *c = &clients[0];
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) & ~O_NONBLOCK);
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        uint64_t spent = cpu_ns();
        int64_t from = now_ns();
        put_message(c, 'Q', line, strlen(line) + 1);
        uint64_t bytes = skim(c);
        double seconds = (double)(now_ns() - from) / 1e9;
        printf("{\"bytes\": %llu, \"seconds\": %.6f, \"cpu_ns\": %llu}\n",
               (unsigned long long)bytes, seconds, (unsigned long long)(cpu_ns() - spent));
        fflush(stdout);
    }
}

static void
prepare(char **argv)
{
    opt.address.sin_family = AF_INET;
    opt.address.sin_port = htons((uint16_t)atoi(argv[3]));
    if (inet_pton(AF_INET, argv[2], &opt.address.sin_addr) != 1)
        die("no IPv4 address: %s", argv[2]);
    opt.user = argv[4];
    opt.database = argv[5];
    how_many = (uint32_t)atoi(argv[6]);
    length_of_run = atof(argv[7]);
    opt.password = getenv("PGPASSWORD");
    if (opt.password == NULL || how_many < 1 || how_many > MAX_CLIENTS)
        die("PGPASSWORD is needed, and 1 to %d clients", MAX_CLIENTS);
    watched = argv[9];
    if (strcmp(argv[8], "tls") == 0 && (opt.tls = SSL_CTX_new(TLS_client_method())) == NULL)
        die("out of memory");
    if (opt.tls != NULL)
        SSL_CTX_set_mode(opt.tls, SSL_MODE_RELEASE_BUFFERS);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    clients = calloc(how_many, sizeof *clients);
    samples = malloc(MAX_SAMPLES * sizeof *samples);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (clients == NULL || samples == NULL || poller < 0)
        die("no memory or descriptors");
}

int
main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {
        {"ask", run_ask}, {"connect", run_connect}, {"once", run_once},
        {"copy", run_copy}, {"hold", run_hold}};
    if (argc != 10)
        die("usage: ask|connect|once|copy|hold HOST PORT USER DATABASE CLIENTS SECONDS tls|plain "
            "PID|0");
    prepare(argv);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(argv[1], modes[i].name) == 0) {
            modes[i].run();
            return 0;
        }
    }
    die("there is no mode %s", argv[1]);
}
