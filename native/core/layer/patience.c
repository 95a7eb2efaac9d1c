#define _GNU_SOURCE
#include "layer/patience.h"

#include <sys/uio.h>

/* Each takes some ten microseconds to read and decompress. */
#define BLOCKS_AT_ONCE 64u

static __thread ps_patience current = PS_PATIENCE_FILES;
static __thread unsigned blocks_left;

void
ps_patience_set(ps_patience patience)
{
    current = patience;
    blocks_left = BLOCKS_AT_ONCE;
}

int
ps_patience_allows_files(void)
{
    return current == PS_PATIENCE_FILES;
}

ssize_t
ps_patience_read(int fd, void *out, size_t length, off_t offset)
{
    struct iovec piece = {.iov_base = out, .iov_len = length};
    if (current != PS_PATIENCE_NONE || blocks_left == 0)
        return -1;
    blocks_left--;
    /* A part only, when the rest is not in the system's cache; some file systems always fail. */
    ssize_t got = preadv2(fd, &piece, 1, offset, RWF_NOWAIT);
    return got == (ssize_t)length ? got : -1;
}
