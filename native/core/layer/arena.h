/* Memory that is handed out in order and freed all at once. Not thread-safe. */
#ifndef PS_LAYER_ARENA_H
#define PS_LAYER_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct ps_arena_chunk ps_arena_chunk;

typedef struct ps_arena {
    ps_arena_chunk *chunks; /* the first is the one being filled */
    size_t used;            /* in that chunk */
    size_t reserved;        /* bytes in all chunks: what the arena costs */
} ps_arena;

void ps_arena_init(ps_arena *arena);
void ps_arena_free(ps_arena *arena);
/* Eight-byte aligned, uninitialised; NULL when memory is out. */
void *ps_arena_take(ps_arena *arena, size_t size);
void *ps_arena_copy(ps_arena *arena, const void *data, size_t size);

#endif
