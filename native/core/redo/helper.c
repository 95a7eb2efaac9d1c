#define _GNU_SOURCE
#include "redo/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "redo/protocol.h"

/* Room for several answers, so that a helper seldom waits for us to read. */
#define PIPE_BYTES (256 * 1024)

uint64_t
ps_redo_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int
ps_redo_helper_init(ps_redo_helper *helper, const char *const *argv, const char *dir)
{
    size_t count = 0;
    while (argv[count] != NULL)
        count++;
    memset(helper, 0, sizeof *helper);
    helper->to = helper->from = helper->words = -1;
    helper->dir = strdup(dir);
    helper->argv = calloc(count + 1, sizeof *helper->argv);
    if (helper->dir == NULL || helper->argv == NULL)
        return PS_ERR_NOMEM;
    for (size_t i = 0; i < count; i++) {
        helper->argv[i] = strdup(strcmp(argv[i], "{dir}") == 0 ? dir : argv[i]);
        if (helper->argv[i] == NULL)
            return PS_ERR_NOMEM;
    }
    return PS_OK;
}

void
ps_redo_helper_free(ps_redo_helper *helper)
{
    ps_redo_helper_stop(helper, NULL);
    for (size_t i = 0; helper->argv != NULL && helper->argv[i] != NULL; i++)
        free(helper->argv[i]);
    free(helper->argv);
    free(helper->dir);
}

static void
close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* The three pipes; ours[i] is our end of the helper's fd i. */
static int
make_pipes(int ours[3], int theirs[3])
{
    for (int i = 0; i < 3; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0)
            return PS_ERR_IO;
        theirs[i] = ends[i == 0 ? 0 : 1];
        ours[i] = ends[i == 0 ? 1 : 0];
        if (fcntl(ours[i], F_SETFL, O_NONBLOCK) != 0)
            return PS_ERR_IO;
        if (i < 2)
            (void)fcntl(ours[i], F_SETPIPE_SZ, PIPE_BYTES); /* a wish: less will do */
    }
    return PS_OK;
}

static int
spawn(ps_redo_helper *helper, const int theirs[3])
{
    char *const environment[] = {"LC_ALL=C", "PATH=/usr/bin:/bin", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    /* A group of its own: the terminal's interrupt is for the page server. */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    for (int fd = 0; fd < 3; fd++)
        posix_spawn_file_actions_adddup2(&actions, theirs[fd], fd);
    posix_spawn_file_actions_addchdir_np(&actions, helper->dir);
    int error = posix_spawn(&helper->pid, helper->argv[0], &actions, &attributes, helper->argv,
                            environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (error != 0)
        helper->pid = 0;
    return error;
}

/* A killed helper leaves its lock file, and the next one of this directory would fear it. */
static void
remove_lock_file(const ps_redo_helper *helper)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/postmaster.pid", helper->dir);
    if (n > 0 && (size_t)n < sizeof path)
        (void)unlink(path);
}

static int
read_hello(ps_redo_helper *helper, uint32_t deadline_ms)
{
    ps_redo_wire_answer hello;
    size_t got = 0;
    uint64_t deadline = ps_redo_now_ms() + deadline_ms;
    while (got < sizeof hello) {
        struct pollfd wait = {.fd = helper->from, .events = POLLIN};
        uint64_t now = ps_redo_now_ms();
        if (now >= deadline)
            return PS_ERR_TIMEOUT;
        if (poll(&wait, 1, (int)(deadline - now)) < 0 && errno != EINTR)
            return PS_ERR_IO;
        ssize_t n = read(helper->from, (char *)&hello + got, sizeof hello - got);
        if (n == 0)
            return PS_ERR_REDO;
        if (n > 0)
            got += (size_t)n;
        else if (errno != EAGAIN && errno != EINTR)
            return PS_ERR_IO;
    }
    return hello.magic == PS_REDO_MAGIC ? PS_OK : PS_ERR_REDO;
}

int
ps_redo_helper_start(ps_redo_helper *helper, uint32_t deadline_ms, ps_error *err)
{
    int ours[3] = {-1, -1, -1};
    int theirs[3] = {-1, -1, -1};
    int rc = make_pipes(ours, theirs);
    int error = errno;
    if (rc == PS_OK) {
        remove_lock_file(helper);
        error = spawn(helper, theirs);
        rc = error == 0 ? PS_OK : PS_ERR_IO;
    }
    for (int i = 0; i < 3; i++)
        close_fd(&theirs[i]);
    helper->to = ours[0];
    helper->from = ours[1];
    helper->words = ours[2];
    if (rc != PS_OK) {
        ps_redo_helper_stop(helper, NULL);
        return ps_fail(err, PS_ERR_REDO, "could not start the redo helper %s in %s: %s",
                       helper->argv[0], helper->dir, strerror(error));
    }
    rc = read_hello(helper, deadline_ms);
    if (rc != PS_OK) {
        char words[PS_REDO_WORDS];
        ps_redo_helper_stop(helper, words);
        return ps_fail(err, PS_ERR_REDO, "the redo helper %s did not come up: %s",
                       rc == PS_ERR_TIMEOUT ? "gave no sign in time and" : "ended and", words);
    }
    return PS_OK;
}

/* Puts the end of the helper's standard error behind `words`, on one line. */
static void
append_last_words(int fd, char *words)
{
    char tail[PS_REDO_WORDS] = "";
    size_t length = 0;
    char piece[1024];
    ssize_t n;
    while ((n = read(fd, piece, sizeof piece)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            char c = piece[i] >= ' ' && piece[i] < 127 ? piece[i] : ' ';
            if (c == ' ' && length > 0 && tail[length - 1] == ' ')
                continue;
            if (length == sizeof tail - 1)
                memmove(tail, tail + 1, --length);
            tail[length++] = c;
        }
    }
    while (length > 0 && tail[length - 1] == ' ')
        length--;
    tail[length] = '\0';
    size_t used = strlen(words);
    size_t room = PS_REDO_WORDS - used;
    if (length > 0 && room > 8) {
        size_t keep = length < room - 3 ? length : room - 3;
        snprintf(words + used, room, ": %s", tail + (length - keep));
    }
}

static void
describe_end(int status, char *words)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        snprintf(words, PS_REDO_WORDS, "killed by its sandbox (SIGSYS)");
    else if (WIFSIGNALED(status))
        snprintf(words, PS_REDO_WORDS, "killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(words, PS_REDO_WORDS, "exit status %d", WEXITSTATUS(status));
}

void
ps_redo_helper_stop(ps_redo_helper *helper, char *words)
{
    int status = 0;
    pid_t done = -1;
    if (helper->pid > 0) {
        kill(helper->pid, SIGKILL);
        do {
            done = waitpid(helper->pid, &status, 0);
        } while (done < 0 && errno == EINTR);
        helper->pid = 0;
    }
    if (words != NULL) {
        if (done > 0)
            describe_end(status, words);
        else
            snprintf(words, PS_REDO_WORDS, "gone");
        append_last_words(helper->words, words);
    }
    close_fd(&helper->to);
    close_fd(&helper->from);
    close_fd(&helper->words);
}
