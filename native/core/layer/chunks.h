/*
 * Chunks of 2 MiB, which is what the arenas of open layers are made of.
 *
 * They come from the kernel and go back to it, never through malloc: so what an open layer held
 * is free memory once it is a file, whatever else was allocated meanwhile. Up to a limit they
 * are kept for the next open layer instead, which spares the kernel clearing them again. Each
 * is aligned so that it can be one huge page: values are looked up all over an open layer, and
 * with small pages every look-up would miss the TLB too.
 */
#ifndef PS_LAYER_CHUNKS_H
#define PS_LAYER_CHUNKS_H

#include <stddef.h>
#include <stdint.h>

#define PS_CHUNK_BYTES ((size_t)2 << 20)
#define PS_CHUNKS_DEFAULT_BYTES ((size_t)64 << 20)

/* Uninitialised; NULL when memory is out. */
void *ps_chunk_take(void);
void ps_chunk_give(void *chunk);

/* Given chunks are kept while all chunks, in use and kept, are within so many bytes. */
void ps_chunks_limit(size_t bytes);
/* Returns the kept ones to the kernel. */
void ps_chunks_trim(void);

typedef struct ps_chunks_stats {
    uint64_t used_bytes;
    uint64_t kept_bytes;
} ps_chunks_stats;

ps_chunks_stats ps_chunks_read_stats(void);

#endif
