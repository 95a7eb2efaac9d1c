/*
 * Preloaded into a part: while the file named by FAIL_SYNC exists, fsync and fdatasync fail
 * for files whose path ends with its contents; where they end with a slash, for files whose path
 * has them anywhere; with all when it is empty. With LOSE_WRITES, one
 * that fails makes zeros of what pwrite wrote last, as a kernel drops what it could not write.
 * While the file named by FAIL_META exists, so does a pwrite of less than a page to such files: it
 * is how LMDB puts a transaction in force. While the one named by FAIL_READ exists, so does every
 * read of such files.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LMDB_PAGE = 4096 };

static bool
fails(int fd, const char *variable)
{
    const char *trigger = getenv(variable);
    int file = trigger == NULL ? -1 : open(trigger, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    char suffix[256] = "", link[64], path[4096];
    ssize_t wanted = read(file, suffix, sizeof suffix);
    close(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    if (wanted < 0 || length < wanted)
        return false;
    if (wanted > 0 && suffix[wanted - 1] == '/')
        return memmem(path, (size_t)length, suffix, (size_t)wanted) != NULL;
    return memcmp(path + length - wanted, suffix, (size_t)wanted) == 0;
}

static __thread struct {
    int fd;
    off_t offset;
    size_t length;
} last = {.fd = -1};

ssize_t
pwrite(int fd, const void *data, size_t length, off_t offset)
{
    if (length < LMDB_PAGE && fails(fd, "FAIL_META")) {
        errno = EIO;
        return -1;
    }
    last.fd = fd;
    last.offset = offset;
    last.length = length;
    return syscall(SYS_pwrite64, fd, data, length, offset);
}

ssize_t
pwrite64(int fd, const void *data, size_t length, off_t offset)
{
    return pwrite(fd, data, length, offset);
}

ssize_t
pread(int fd, void *data, size_t length, off_t offset)
{
    if (fails(fd, "FAIL_READ")) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, data, length, offset);
}

ssize_t
pread64(int fd, void *data, size_t length, off_t offset)
{
    return pread(fd, data, length, offset);
}

ssize_t
read(int fd, void *data, size_t length)
{
    static __thread bool asking; /* `fails` reads, too */
    bool failed = false;
    if (!asking) {
        asking = true;
        failed = fails(fd, "FAIL_READ");
        asking = false;
    }
    if (failed) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_read, fd, data, length);
}

/* Of what the system has in its cache: nothing, so that it is read. */
ssize_t
preadv2(int fd, const struct iovec *pieces, int count, off_t offset, int flags)
{
    if (fails(fd, "FAIL_READ")) {
        errno = EAGAIN;
        return -1;
    }
    return syscall(SYS_preadv2, fd, pieces, count, offset, 0, flags);
}

static void
lose_writes(int fd)
{
    static const char zeros[1 << 20];
    if (getenv("LOSE_WRITES") == NULL || last.fd != fd)
        return;
    size_t length = last.length < sizeof zeros ? last.length : sizeof zeros;
    syscall(SYS_pwrite64, fd, zeros, length, last.offset);
}

static int
sync_unless_it_fails(int fd, long number)
{
    if (fails(fd, "FAIL_SYNC")) {
        lose_writes(fd);
        errno = EIO;
        return -1;
    }
    return (int)syscall(number, fd);
}

int
fsync(int fd)
{
    return sync_unless_it_fails(fd, SYS_fsync);
}

int
fdatasync(int fd)
{
    return sync_unless_it_fails(fd, SYS_fdatasync);
}
