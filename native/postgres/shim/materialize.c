/*
 * Relation files that are made when they are first needed.
 *
 * Problem: to make a file costs some 20 microseconds, on a bad day for the file system a
 * millisecond, and most of a cluster's files nobody ever touches while a compute lives. So a start
 * makes none: the remote map knows each fork and its length, and has a bit that says that its file
 * is not there yet. The storage manager's hooks (hydrate.c) make it, sparse and at its length,
 * before md.c is to find it.
 *
 * Invariants. The bit is only ever cleared, under the lock of the fork's first block, and only once
 * the file has its length; so a crash in between makes it again, which changes nothing. Nobody has
 * written to a file whose bit is set.
 *
 * What asks the file system itself must be told to look here first: the functions of sizes.c.
 * Not told: pg_stat_file() and its like, which then see only the files that are there; and
 * Postgres's own look whether a new relation's number is free. When numbers have wrapped around
 * and it is not, the statement fails ("File exists") and takes another number the next time.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "hydrate.h"
#include "materialize.h"
#include "storage/fd.h"
#include "storage/lwlock.h"

static void
materialize_segments(const RemoteFork *fork)
{
    RelPathStr path = relpathperm(remote_fork_node(fork), fork->fork);
    BlockNumber left = fork->nblocks;
    int segment = 0;

    do
    {
        BlockNumber blocks = Min(left, RELSEG_SIZE);
        char *name = segment == 0 ? pstrdup(path.str) : psprintf("%s.%d", path.str, segment);
        int fd = BasicOpenFile(name, O_RDWR | O_CREAT | PG_BINARY);

        if (fd < 0 || (blocks > 0 && ftruncate(fd, (off_t) blocks * BLCKSZ) != 0))
        {
            int error = errno;

            if (fd >= 0)
                close(fd);
            errno = error;
            ereport(ERROR, (errcode_for_file_access(),
                            errmsg("pagestore: could not make the file \"%s\": %m", name)));
        }
        close(fd);
        pfree(name);
        left -= blocks;
        segment++;
    } while (left > 0); /* an empty fork has a file too */
}

void
materialize_fork(const RemoteFork *fork)
{
    LWLock *lock = hydrate_lock(fork, 0);

    if (remote_map_has_file(fork))
        return; /* without the lock: a bit is only ever cleared */
    LWLockAcquire(lock, LW_EXCLUSIVE);
    if (!remote_map_has_file(fork))
    {
        materialize_segments(fork);
        remote_map_set_file(fork);
    }
    LWLockRelease(lock);
}

void
materialize_relation(RelFileLocator node)
{
    for (ForkNumber each = 0; each <= MAX_FORKNUM; each++)
    {
        const RemoteFork *fork = remote_map_find(node, each);

        if (fork != NULL)
            materialize_fork(fork);
    }
}

void
materialize_all(void)
{
    remote_map_each(materialize_fork);
}

void
materialize_database(Oid db)
{
    remote_map_each_of_database(db, materialize_fork);
}

void
materialize_forget_database(Oid db)
{
    remote_map_each_of_database(db, remote_map_set_file);
}
