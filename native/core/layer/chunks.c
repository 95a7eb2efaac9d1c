#include "layer/chunks.h"

#include <pthread.h>
#include <sys/mman.h>

typedef struct kept_chunk {
    struct kept_chunk *next;
} kept_chunk;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all of this file's state */
static kept_chunk *kept;
static size_t kept_count;
static size_t used_count;
static size_t limit = PS_CHUNKS_DEFAULT_BYTES / PS_CHUNK_BYTES;

/* Maps twice the room and gives back what lies before and behind the aligned chunk. */
static void *
map_chunk(void)
{
    uint8_t *room = mmap(NULL, 2 * PS_CHUNK_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        return NULL;
    size_t before = (PS_CHUNK_BYTES - (uintptr_t)room % PS_CHUNK_BYTES) % PS_CHUNK_BYTES;
    if (before > 0)
        munmap(room, before);
    munmap(room + before + PS_CHUNK_BYTES, PS_CHUNK_BYTES - before);
    madvise(room + before, PS_CHUNK_BYTES, MADV_HUGEPAGE); /* small pages do as well */
    return room + before;
}

void *
ps_chunk_take(void)
{
    pthread_mutex_lock(&lock);
    kept_chunk *chunk = kept;
    if (chunk != NULL) {
        kept = chunk->next;
        kept_count--;
    }
    used_count++;
    pthread_mutex_unlock(&lock);
    void *taken = chunk != NULL ? (void *)chunk : map_chunk();
    if (taken == NULL) {
        pthread_mutex_lock(&lock);
        used_count--;
        pthread_mutex_unlock(&lock);
    }
    return taken;
}

void
ps_chunk_give(void *given)
{
    kept_chunk *chunk = given;
    pthread_mutex_lock(&lock);
    int keep = used_count + kept_count <= limit;
    used_count--;
    if (keep) {
        chunk->next = kept;
        kept = chunk;
        kept_count++;
    }
    pthread_mutex_unlock(&lock);
    if (!keep)
        munmap(chunk, PS_CHUNK_BYTES);
}

/* Takes kept chunks off the list until so many chunks are left, and returns them to the kernel. */
static void
shrink(size_t most)
{
    for (;;) {
        pthread_mutex_lock(&lock);
        kept_chunk *chunk = used_count + kept_count > most ? kept : NULL;
        if (chunk != NULL) {
            kept = chunk->next;
            kept_count--;
        }
        pthread_mutex_unlock(&lock);
        if (chunk == NULL)
            return;
        munmap(chunk, PS_CHUNK_BYTES);
    }
}

void
ps_chunks_limit(size_t bytes)
{
    pthread_mutex_lock(&lock);
    limit = bytes / PS_CHUNK_BYTES;
    pthread_mutex_unlock(&lock);
    shrink(bytes / PS_CHUNK_BYTES);
}

void
ps_chunks_trim(void)
{
    shrink(0);
}

ps_chunks_stats
ps_chunks_read_stats(void)
{
    pthread_mutex_lock(&lock);
    ps_chunks_stats stats = {.used_bytes = used_count * PS_CHUNK_BYTES,
                             .kept_bytes = kept_count * PS_CHUNK_BYTES};
    pthread_mutex_unlock(&lock);
    return stats;
}
