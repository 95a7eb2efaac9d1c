/*
 * An immutable layer file, read.
 *
 * Making a ps_layer touches no file: what the catalog knows of it (key and LSN range) is
 * enough to pass it over. The first read that is in range checks header and footer and takes
 * index and filter into memory; most layers without the key are then passed over by their
 * filter. Only to read a block is the file itself held open. Indexes and open files have
 * limits over all layers of the process, and the least recently used go first.
 *
 * Every block's checksum is verified before the block is parsed. Whatever does not hold is
 * PS_ERR_CORRUPT, naming the file and the offset.
 */
#ifndef PS_LAYER_FILE_H
#define PS_LAYER_FILE_H

#include "layer/block_cache.h"
#include "layer/chain.h"
#include "layer/format.h"
#include "layer/remote.h"

#define PS_LAYERS_DEFAULT_OPEN 256u
#define PS_LAYERS_DEFAULT_INDEX_BYTES ((size_t)64 << 20)

typedef struct ps_layer ps_layer;

/* `known` is what the catalog says; the header must agree when the file is opened. */
int ps_layer_make(ps_layer **layer, const char *path, const ps_layer_id *id,
                  const ps_layer_summary *known, ps_error *err);
/* Before anybody else has it: what of its file is not here, or does not hold, comes from there. */
void ps_layer_lend(ps_layer *layer, ps_remote *remote);
/* One more, or one fewer, who reads it. With the last it is freed; nobody else frees it. */
ps_layer *ps_layer_retain(ps_layer *layer);
void ps_layer_release(ps_layer *layer);
/* Its file goes with the last who reads it; so do the directories that are named after its timeline
 * and its tenant, if they are empty then. */
void ps_layer_discard(ps_layer *layer);
/* How many read it. */
unsigned ps_layer_readers(const ps_layer *layer);
/* Second of `ps_layers_now` at which its index was last asked for. */
uint32_t ps_layer_used(const ps_layer *layer);
/* Its file is not here any more: closes it unless somebody reads. */
void ps_layer_let_go(ps_layer *layer);
const ps_layer_id *ps_layer_identity(const ps_layer *layer);
const char *ps_layer_path(const ps_layer *layer);
const ps_layer_summary *ps_layer_known(const ps_layer *layer);
/* Tells the time, in seconds of any clock, by which the use of layers is noted. */
void ps_layers_now(uint32_t second);
void ps_layers_limit(unsigned open_files, size_t index_bytes);
typedef struct ps_layers_stats {
    unsigned open_files;
    unsigned loaded;
    size_t index_bytes;
} ps_layers_stats;
ps_layers_stats ps_layers_read_stats(void);
/* How often the disk has failed while a layer file was read; the words of the last time. */
uint64_t ps_layers_faults(ps_error *last);

/* As ps_open_layer_collect; the chains of `order` are asked for in ascending key order. */
int ps_layer_collect(ps_layer *layer, const ps_key *keys, const uint32_t *order, size_t count,
                     uint64_t lsn, ps_chain *chains, ps_error *err);

/* Reads and checks every byte of the file. */
int ps_layer_verify(ps_layer *layer, ps_error *err);
/* The most that one read has to apply of its values, by ps_value_weight. Reads the whole file. */
int ps_layer_depth(ps_layer *layer, uint64_t *weight, ps_error *err);

/* Walks over the values in file order, either way. Holds the layer open and one block. */
typedef struct ps_layer_cursor {
    ps_layer *layer;
    ps_block *block;
    uint32_t number; /* of the block */
    uint32_t at;     /* value within it */
    int valid;
    int uncached; /* its blocks are not taken into the cache: of who reads a file once */
} ps_layer_cursor;

int ps_layer_cursor_open(ps_layer_cursor *cursor, ps_layer *layer, ps_error *err);
void ps_layer_cursor_close(ps_layer_cursor *cursor);
/* To the first value at or after (key, lsn); with `before`, to the last one before it. */
int ps_layer_cursor_seek(ps_layer_cursor *cursor, const ps_key *key, uint64_t lsn, int before,
                         ps_error *err);
/* To the last value of the block that is behind `part` of `parts` of all blocks. */
int ps_layer_cursor_place(ps_layer_cursor *cursor, uint32_t part, uint32_t parts, ps_error *err);
int ps_layer_cursor_next(ps_layer_cursor *cursor, ps_error *err);
int ps_layer_cursor_previous(ps_layer_cursor *cursor, ps_error *err);
/* The payload stays until the cursor moves. */
void ps_layer_cursor_value(const ps_layer_cursor *cursor, ps_layer_value_header *header,
                           const uint8_t **data);

#endif
