/*
 * A start that overlaps with the making of its directory.
 *
 * Problem: executing Postgres and making its shared memory takes as long as fetching a base
 * backup, and needs hardly anything of it. So whoever starts a compute executes the postmaster
 * first, on a directory that holds just what _PG_init is reached with, and lets it wait here.
 *
 * The line between the two is a socket of whole messages (SOCK_SEQPACKET), whose descriptor
 * pagestore.start_fd names:
 *
 *   to us    "name=value" NUL, for each setting that was not known before. The configuration files
 *            and pg_control are final: they are read again, and the server goes on to its shared
 *            memory. A descriptor that comes along is the server's log from now on: one that was
 *            executed before anybody knew for what has had another until then.
 *   to us    "go": the directory is finished. The server goes on to its startup process.
 *   from us  "attached": the server takes sessions, and has the synchronous standbys that a
 *            commit waits for.
 *
 * A line that closes early means that nobody wants this server any more. Without the setting
 * (-1), the directory is finished from the first.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "postmaster/postmaster.h"
#include "replication/syncrep.h"
#include "replication/walsender_private.h"
#include "shim.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/wait_event.h"
#include "version.h"

#define LONGEST_MESSAGE 65536
#define POLL_MS 1

static int line = -1;

/* Children, and what they execute, shall have /dev/null for their standard input. */
static int
take_line(int descriptor)
{
    int taken = fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (taken < 0 || null < 0 || dup2(null, descriptor) < 0)
        ereport(FATAL, (errmsg("pagestore: could not take the line %d to whoever starts this"
                               " server: %m", descriptor)));
    close(null);
    return taken;
}

static void
take_log(int descriptor)
{
    if (dup2(descriptor, STDOUT_FILENO) < 0 || dup2(descriptor, STDERR_FILENO) < 0)
        ereport(FATAL, (errmsg("pagestore: could not take another log: %m")));
    close(descriptor);
}

static size_t
receive(char *message)
{
    union
    {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } beside;
    struct iovec text = {message, LONGEST_MESSAGE};
    struct msghdr whole = {.msg_iov = &text,
                           .msg_iovlen = 1,
                           .msg_control = &beside,
                           .msg_controllen = sizeof beside};
    struct cmsghdr *header;
    ssize_t length;

    do
        length = recvmsg(line, &whole, MSG_CMSG_CLOEXEC);
    while (length < 0 && errno == EINTR);
    header = length > 0 ? CMSG_FIRSTHDR(&whole) : NULL;
    if (header != NULL && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int)))
    {
        int descriptor;

        memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
        take_log(descriptor);
    }
    if (length <= 0)
        ereport(FATAL, (errmsg("pagestore: whoever started this server gave it up before its"
                               " directory was finished")));
    return length;
}

static void
apply_settings(char *message, size_t length)
{
    size_t size;

    for (size_t at = 0; at < length; at += size)
    {
        char *value;

        size = strnlen(message + at, length - at) + 1;
        value = memchr(message + at, '=', size - 1);
        if (at + size > length || value == NULL)
            elog(FATAL, "pagestore: a malformed setting on the line");
        *value = '\0';
        SetConfigOption(message + at, value + 1, PGC_POSTMASTER, PGC_S_ARGV);
    }
}

/*
 * What the postmaster looks for between its configuration files and its libraries, where it found
 * none of the settings yet: a server must not depend on who was the faster.
 */
static void
refuse_what_postmaster_would(void)
{
    if (SuperuserReservedConnections + ReservedConnections >= MaxConnections)
        ereport(FATAL, (errmsg("superuser_reserved_connections (%d) plus reserved_connections (%d)"
                               " must be less than max_connections (%d)",
                               SuperuserReservedConnections, ReservedConnections,
                               MaxConnections)));
}

void
start_take_settings(void)
{
    char *message;

    if (shim_settings.start_fd < 0)
        return;
    line = take_line(shim_settings.start_fd);
    message = palloc(LONGEST_MESSAGE);
    apply_settings(message, receive(message));
    pfree(message);
    ProcessConfigFile(PGC_POSTMASTER);
    refuse_what_postmaster_would();
    LocalProcessControlFile(true);
}

void
start_wait_for_files(void)
{
    char *message;

    if (line < 0)
        return;
    message = palloc(LONGEST_MESSAGE);
    if (receive(message) != 2 || memcmp(message, "go", 2) != 0)
        elog(FATAL, "pagestore: another message than \"go\" on the line");
    pfree(message);
}

static bool
is_attached(void)
{
    SyncRepStandbyData *standbys = NULL;
    int count = SyncRepGetCandidateStandbys(&standbys);

    if (standbys != NULL)
        pfree(standbys);
    return SyncRepConfig == NULL || count >= SyncRepConfig->num_sync;
}

/* By the worker of fsm_log.c, which is there once sessions are taken. */
void
start_tell_when_attached(void)
{
    if (line < 0)
        return;
    while (!is_attached() && !ShutdownRequestPending)
    {
        (void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_MS,
                         PG_WAIT_EXTENSION);
        ResetLatch(MyLatch);
        CHECK_FOR_INTERRUPTS();
    }
    /* Whoever started the server may be gone by now. */
    (void) send(line, "attached", 8, MSG_DONTWAIT | MSG_NOSIGNAL);
    close(line);
    line = -1;
}
