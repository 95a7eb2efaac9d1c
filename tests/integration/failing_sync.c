/*
 * Preloaded into a safekeeper: while the file named by FAIL_SYNC exists, fsync and fdatasync fail
 * for files whose path ends with its contents; with all when it is empty.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool
fails(int fd)
{
    const char *trigger = getenv("FAIL_SYNC");
    int file = trigger == NULL ? -1 : open(trigger, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    char suffix[256] = "", link[64], path[4096];
    ssize_t wanted = read(file, suffix, sizeof suffix);
    close(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return wanted >= 0 && length >= wanted &&
           memcmp(path + length - wanted, suffix, (size_t)wanted) == 0;
}

static int
sync_unless_it_fails(int fd, long number)
{
    if (fails(fd)) {
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
