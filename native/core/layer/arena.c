#include "layer/arena.h"

#include <stdlib.h>
#include <string.h>

#include "layer/chunks.h"

#define FIRST_CHUNK ((size_t)4096)
#define LARGEST_CHUNK (PS_CHUNK_BYTES - sizeof(ps_arena_chunk))

struct ps_arena_chunk {
    ps_arena_chunk *next;
    size_t size;
    uint8_t bytes[];
};

void
ps_arena_init(ps_arena *arena)
{
    memset(arena, 0, sizeof *arena);
}

void
ps_arena_free(ps_arena *arena)
{
    for (ps_arena_chunk *chunk = arena->chunks; chunk != NULL;) {
        ps_arena_chunk *next = chunk->next;
        if (chunk->size == LARGEST_CHUNK)
            ps_chunk_give(chunk);
        else
            free(chunk);
        chunk = next;
    }
    ps_arena_init(arena);
}

static ps_arena_chunk *
chunk_make(ps_arena *arena, size_t size)
{
    ps_arena_chunk *chunk =
        size == LARGEST_CHUNK ? ps_chunk_take() : malloc(sizeof *chunk + size);
    if (chunk != NULL) {
        chunk->size = size;
        arena->reserved += sizeof *chunk + size;
    }
    return chunk;
}

void *
ps_arena_take(ps_arena *arena, size_t size)
{
    ps_arena_chunk *current = arena->chunks;
    size = (size + 7) & ~(size_t)7;
    if (current != NULL && size <= current->size - arena->used) {
        void *bytes = current->bytes + arena->used;
        arena->used += size;
        return bytes;
    }
    size_t grown = current == NULL ? FIRST_CHUNK : current->size * 2;
    if (grown > LARGEST_CHUNK)
        grown = LARGEST_CHUNK;
    if (current != NULL && size > grown / 4) { /* alone, behind the one being filled */
        ps_arena_chunk *chunk = chunk_make(arena, size);
        if (chunk == NULL)
            return NULL;
        chunk->next = current->next;
        current->next = chunk;
        return chunk->bytes;
    }
    ps_arena_chunk *chunk = chunk_make(arena, size > grown ? size : grown);
    if (chunk == NULL)
        return NULL;
    chunk->next = current;
    arena->chunks = chunk;
    arena->used = size;
    return chunk->bytes;
}

void *
ps_arena_copy(ps_arena *arena, const void *data, size_t size)
{
    void *bytes = ps_arena_take(arena, size);
    if (bytes != NULL && size > 0)
        memcpy(bytes, data, size);
    return bytes;
}
