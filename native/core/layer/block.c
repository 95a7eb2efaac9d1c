/* Reading values out of a pinned layer: blocks by way of the cache, positions, cursors. */
#include <pthread.h>
#include <stdlib.h>

#include "crc32c.h"
#include "layer/codec.h"
#include "layer/patience.h"
#include "layer/reading.h"
#include "value.h"

/* What a reading thread keeps from block to block; freed when the thread ends. */
typedef struct scratch {
    ps_decompressor *decompressor;
    uint8_t *stored;
    size_t capacity;
} scratch;

static pthread_key_t scratch_key;
static pthread_once_t scratch_prepared = PTHREAD_ONCE_INIT;

static void
scratch_free(void *memory)
{
    scratch *own = memory;
    ps_decompressor_free(own->decompressor);
    free(own->stored);
    free(own);
}

static void
scratch_prepare(void)
{
    pthread_key_create(&scratch_key, scratch_free);
}

static scratch *
scratch_for(size_t bytes)
{
    pthread_once(&scratch_prepared, scratch_prepare);
    scratch *own = pthread_getspecific(scratch_key);
    if (own == NULL) {
        own = calloc(1, sizeof *own);
        if (own == NULL)
            return NULL;
        own->decompressor = ps_decompressor_make();
        if (own->decompressor == NULL || pthread_setspecific(scratch_key, own) != 0) {
            scratch_free(own);
            return NULL;
        }
    }
    if (own->capacity < bytes) {
        uint8_t *grown = realloc(own->stored, bytes);
        if (grown == NULL)
            return NULL;
        own->stored = grown;
        own->capacity = bytes;
    }
    return own;
}

static uint32_t
little32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int
block_fault(const ps_layer *layer, uint32_t number, const char *what, ps_error *err)
{
    return ps_fail(err, PS_ERR_CORRUPT, "%s: offset %llu: block %u: %s", layer->path,
                   (unsigned long long)layer->index[number].offset, number, what);
}

static const uint8_t *
header_at(const ps_block *block, uint32_t i)
{
    return block->data + 4 + (size_t)i * PS_LAYER_VALUE_HEADER_BYTES;
}

/* After this the block's values can be used without further checks. */
static int
check_block(const ps_layer *layer, ps_block *block, ps_error *err)
{
    const ps_layer_index_entry *entry = &layer->index[block->number];
    uint32_t values = block->length < 4 ? 0 : little32(block->data);
    if (values == 0 || values > (block->length - 4) / PS_LAYER_VALUE_HEADER_BYTES)
        return block_fault(layer, block->number, "an impossible number of values", err);
    uint32_t payloads = 4 + values * PS_LAYER_VALUE_HEADER_BYTES;
    for (uint32_t i = 0; i < values; i++) {
        ps_layer_value_header header;
        ps_layer_value_decode(header_at(block, i), &header);
        if (header.offset < payloads || header.offset > block->length ||
            header.length > block->length - header.offset || header.kind < PS_VALUE_IMAGE ||
            header.kind > PS_VALUE_TOMBSTONE)
            return block_fault(layer, block->number, "a value leaves it", err);
        ps_ordered_key key = ps_key_order(&header.key);
        if (i == values - 1 &&
            ps_position_compare(&key, header.lsn, &entry->key, entry->lsn) != 0)
            return block_fault(layer, block->number, "not what the index says", err);
    }
    block->values = values;
    return PS_OK;
}

static int
read_stored(ps_layer *layer, uint8_t *out, size_t length, uint64_t offset, ps_error *err)
{
    /* What is cached is in part not there yet, which reads as zeros. */
    if (__atomic_load_n(&layer->cached, __ATOMIC_RELAXED) == NULL) {
        int fd = __atomic_load_n(&layer->fd, __ATOMIC_RELAXED);
        if (ps_patience_read(fd, out, length, (off_t)offset) > 0)
            return PS_OK;
        if (!ps_patience_allows_files())
            return ps_fail(err, PS_ERR_WOULD_WAIT, "%s is to be read", layer->path);
    }
    return ps_layer_read_at(layer, out, length, offset, err);
}

static int
try_block(ps_layer *layer, ps_block *block, ps_error *err)
{
    const ps_layer_index_entry *entry = &layer->index[block->number];
    size_t stored = (size_t)entry->stored + PS_LAYER_BLOCK_CRC_BYTES;
    scratch *own = scratch_for(stored);
    if (own == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "%s: out of memory for a block", layer->path);
    int rc = ps_layer_pin_file(layer, err);
    if (rc < 0)
        return rc;
    rc = read_stored(layer, own->stored, stored, entry->offset, err);
    ps_layer_unpin_file(layer);
    if (rc < 0)
        return rc;
    uint32_t crc = ps_crc32c(ps_layer_block_seed(layer->seed, entry->offset), own->stored,
                             entry->stored);
    if (crc != little32(own->stored + entry->stored))
        return block_fault(layer, block->number, "its checksum is wrong", err);
    if (!ps_decompress(own->decompressor, entry->codec, block->data, entry->raw, own->stored,
                       entry->stored))
        return block_fault(layer, block->number, "it does not decompress", err);
    return check_block(layer, block, err);
}

/* Once more, of what the object store has. */
static int
mend_block(ps_layer *layer, ps_block *block, ps_error *err)
{
    const ps_layer_index_entry *entry = &layer->index[block->number];
    ps_error damage = {.code = PS_ERR_CORRUPT};
    if (!ps_patience_allows_files())
        return ps_fail(err, PS_ERR_WOULD_WAIT, "%s is to be fetched", layer->path);
    if (err != NULL)
        damage = *err;
    int rc = ps_layer_pin_file(layer, err);
    if (rc < 0)
        return rc;
    int mended = ps_layer_mend(layer, entry->offset,
                               (uint64_t)entry->stored + PS_LAYER_BLOCK_CRC_BYTES, &damage);
    ps_layer_unpin_file(layer);
    return mended ? try_block(layer, block, err) : ps_fail(err, damage.code, "%s", damage.text);
}

static int
read_block(ps_layer *layer, ps_block *block, ps_error *err)
{
    int rc = try_block(layer, block, err);
    return ps_layer_may_mend(rc) && layer->remote != NULL ? mend_block(layer, block, err) : rc;
}

/* Of the files of all layers that are small, so much is held; no more than a part of what indexes
 * may take (lru.c), where it counts too. */
static size_t held_bytes;

static size_t
bytes_of_blocks(const ps_layer *layer)
{
    size_t bytes = layer->blocks * sizeof *layer->held;
    for (uint32_t i = 0; i < layer->blocks; i++)
        bytes += sizeof(ps_block) + layer->index[i].raw;
    return bytes;
}

void
ps_layer_let_blocks_go(ps_layer *layer)
{
    if (layer->held == NULL)
        return;
    __atomic_sub_fetch(&held_bytes, bytes_of_blocks(layer), __ATOMIC_RELAXED);
    for (uint32_t i = 0; i < layer->blocks; i++)
        free(layer->held[i]);
    free(layer->held);
    layer->held = NULL;
}

/* What cannot be read is left to who needs it, and is told what is wrong. */
void
ps_layer_hold(ps_layer *layer)
{
    if (layer->known.bytes > PS_LAYER_HELD_FILE)
        return;
    size_t bytes = bytes_of_blocks(layer);
    if (bytes > PS_LAYER_HELD_BYTES ||
        __atomic_load_n(&held_bytes, __ATOMIC_RELAXED) + bytes > ps_layers_hold_most())
        return;
    layer->held = calloc(layer->blocks, sizeof *layer->held);
    if (layer->held == NULL)
        return;
    __atomic_add_fetch(&held_bytes, bytes, __ATOMIC_RELAXED);
    int rc = PS_OK;
    for (uint32_t i = 0; rc == PS_OK && i < layer->blocks; i++) {
        ps_block *made = ps_block_make(layer->uid, i, layer->index[i].raw);
        rc = made == NULL ? PS_ERR_NOMEM : read_block(layer, made, NULL);
        layer->held[i] = made;
        if (made != NULL)
            made->held = 1;
    }
    if (rc == PS_OK)
        layer->memory += bytes;
    else
        ps_layer_let_blocks_go(layer);
}

static int
get_block(ps_layer *layer, uint32_t number, int uncached, ps_block **block, ps_error *err)
{
    if (layer->held != NULL) {
        *block = layer->held[number];
        return PS_OK;
    }
    *block = uncached ? NULL : ps_cache_get(layer->uid, number);
    if (*block != NULL)
        return PS_OK;
    ps_block *made = ps_block_make(layer->uid, number, layer->index[number].raw);
    if (made == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "%s: out of memory for a block", layer->path);
    int rc = read_block(layer, made, err);
    if (rc < 0) {
        ps_block_release(made);
        return rc;
    }
    if (!uncached)
        ps_cache_add(made);
    *block = made;
    return PS_OK;
}

/* The first block whose last value is not before the position; layer->blocks if none. */
static uint32_t
locate_block(const ps_layer *layer, const ps_ordered_key *key, uint64_t lsn, uint32_t near)
{
    const ps_layer_index_entry *index = layer->index;
    uint32_t low = 0, high = layer->blocks;
    if (ps_position_compare(&index[near].key, index[near].lsn, key, lsn) < 0)
        low = near + 1;
    else
        high = near;
    /* Batches come in key order: the answer is most often here or next. */
    if (low < high && ps_position_compare(&index[low].key, index[low].lsn, key, lsn) >= 0)
        return low;
    if (high > 0 && low < high &&
        ps_position_compare(&index[high - 1].key, index[high - 1].lsn, key, lsn) < 0)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ps_position_compare(&index[middle].key, index[middle].lsn, key, lsn) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The first value of the block at or after the position; block->values when there is none. */
static uint32_t
locate_value(const ps_block *block, const ps_key *key, uint64_t lsn)
{
    uint32_t low = 0, high = block->values;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        ps_layer_value_header header;
        ps_layer_value_decode(header_at(block, middle), &header);
        int order = ps_key_compare(&header.key, key);
        if (order < 0 || (order == 0 && header.lsn > lsn))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int
ps_layer_cursor_open(ps_layer_cursor *cursor, ps_layer *layer, ps_error *err)
{
    memset(cursor, 0, sizeof *cursor);
    int rc = ps_layer_pin(layer, err);
    if (rc == PS_OK)
        cursor->layer = layer;
    return rc;
}

void
ps_layer_cursor_close(ps_layer_cursor *cursor)
{
    ps_block_release(cursor->block);
    if (cursor->layer != NULL)
        ps_layer_unpin(cursor->layer);
    memset(cursor, 0, sizeof *cursor);
}

static int
cursor_load(ps_layer_cursor *cursor, uint32_t number, ps_error *err)
{
    if (cursor->block != NULL && cursor->number == number)
        return PS_OK;
    ps_block_release(cursor->block);
    cursor->block = NULL;
    cursor->valid = 0;
    int rc = get_block(cursor->layer, number, cursor->uncached, &cursor->block, err);
    if (rc == PS_OK)
        cursor->number = number;
    return rc;
}

int
ps_layer_cursor_next(ps_layer_cursor *cursor, ps_error *err)
{
    cursor->at++;
    cursor->valid = 1;
    if (cursor->at < cursor->block->values)
        return PS_OK;
    if (cursor->number + 1 >= cursor->layer->blocks) {
        cursor->valid = 0;
        return PS_OK;
    }
    int rc = cursor_load(cursor, cursor->number + 1, err);
    cursor->at = 0;
    cursor->valid = rc == PS_OK;
    return rc;
}

int
ps_layer_cursor_previous(ps_layer_cursor *cursor, ps_error *err)
{
    if (cursor->at > 0) {
        cursor->at--;
        cursor->valid = 1;
        return PS_OK;
    }
    if (cursor->number == 0) {
        cursor->valid = 0;
        return PS_OK;
    }
    int rc = cursor_load(cursor, cursor->number - 1, err);
    cursor->valid = rc == PS_OK;
    if (rc == PS_OK)
        cursor->at = cursor->block->values - 1;
    return rc;
}

int
ps_layer_cursor_seek(ps_layer_cursor *cursor, const ps_key *key, uint64_t lsn, int before,
                     ps_error *err)
{
    ps_ordered_key ordered = ps_key_order(key);
    uint32_t near = cursor->block == NULL ? 0 : cursor->number;
    uint32_t number = locate_block(cursor->layer, &ordered, lsn, near);
    int beyond = number == cursor->layer->blocks;
    if (beyond && !before) {
        cursor->valid = 0;
        return PS_OK;
    }
    int rc = cursor_load(cursor, beyond ? number - 1 : number, err);
    if (rc < 0)
        return rc;
    cursor->at = locate_value(cursor->block, key, lsn);
    cursor->valid = 1;
    return before ? ps_layer_cursor_previous(cursor, err) : PS_OK;
}

int
ps_layer_cursor_place(ps_layer_cursor *cursor, uint32_t part, uint32_t parts, ps_error *err)
{
    uint32_t number = (uint32_t)((uint64_t)cursor->layer->blocks * part / parts);
    int rc = cursor_load(cursor, number, err);
    if (rc == PS_OK) {
        cursor->at = cursor->block->values - 1;
        cursor->valid = 1;
    }
    return rc;
}

void
ps_layer_cursor_value(const ps_layer_cursor *cursor, ps_layer_value_header *header,
                      const uint8_t **data)
{
    ps_layer_value_decode(header_at(cursor->block, cursor->at), header);
    *data = cursor->block->data + header->offset;
}

static int
collect_one(ps_layer_cursor *cursor, const ps_key *key, uint64_t lsn, ps_chain *chain,
            ps_error *err)
{
    int rc = ps_layer_cursor_seek(cursor, key, lsn, 0, err);
    while (rc == PS_OK && cursor->valid && !chain->complete) {
        ps_layer_value_header header;
        const uint8_t *data;
        ps_layer_cursor_value(cursor, &header, &data);
        if (ps_key_compare(&header.key, key) != 0)
            break;
        rc = ps_chain_add(chain, header.lsn, header.kind, header.flags, data, header.length, err);
        if (rc == PS_OK && !chain->complete)
            rc = ps_layer_cursor_next(cursor, err);
    }
    return rc;
}

int
ps_layer_collect(ps_layer *layer, const ps_key *keys, const uint32_t *order, size_t count,
                 uint64_t lsn, ps_chain *chains, ps_error *err)
{
    ps_layer_cursor cursor = {0};
    int rc = PS_OK;
    if (layer->known.first_lsn > lsn)
        return PS_OK;
    for (size_t i = 0; rc == PS_OK && i < count; i++) {
        const ps_key *key = &keys[order[i]];
        ps_ordered_key ordered = ps_key_order(key);
        if (chains[order[i]].complete || ps_ordered_compare(&ordered, &layer->min) < 0 ||
            ps_ordered_compare(&ordered, &layer->max) > 0)
            continue;
        if (cursor.layer == NULL)
            rc = ps_layer_cursor_open(&cursor, layer, err);
        if (rc == PS_OK && ps_layer_filter_test(layer->filter, layer->filter_bytes,
                                                ps_ordered_hash(&ordered)))
            rc = collect_one(&cursor, key, lsn, &chains[order[i]], err);
    }
    ps_layer_cursor_close(&cursor);
    return rc;
}

int
ps_layer_verify(ps_layer *layer, ps_error *err)
{
    int rc = ps_layer_pin(layer, err);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; rc == PS_OK && i < layer->blocks; i++) {
        ps_block *block = ps_block_make(layer->uid, i, layer->index[i].raw);
        rc = block == NULL ? ps_fail(err, PS_ERR_NOMEM, "out of memory for a block")
                           : read_block(layer, block, err);
        ps_block_release(block);
    }
    ps_layer_unpin(layer);
    return rc;
}

int
ps_layer_depth(ps_layer *layer, uint64_t *weight, ps_error *err)
{
    ps_layer_cursor cursor;
    ps_ordered_key last = {0};
    uint64_t row = 0;
    *weight = 0;
    int rc = ps_layer_cursor_open(&cursor, layer, err);
    cursor.uncached = 1;
    if (rc == PS_OK)
        rc = ps_layer_cursor_seek(&cursor, &layer->known.min_key, UINT64_MAX, 0, err);
    while (rc == PS_OK && cursor.valid) {
        ps_layer_value_header header;
        const uint8_t *data;
        ps_layer_cursor_value(&cursor, &header, &data);
        ps_ordered_key key = ps_key_order(&header.key);
        if (ps_ordered_compare(&key, &last) != 0)
            row = 0;
        last = key;
        row += ps_value_weight(header.kind);
        *weight = row > *weight ? row : *weight;
        if (ps_value_ends_chain(header.kind, header.flags))
            row = 0;
        rc = ps_layer_cursor_next(&cursor, err);
    }
    ps_layer_cursor_close(&cursor);
    return rc;
}
