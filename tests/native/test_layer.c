/*
 * Layer files under the sanitizers: what was written is read back; a flipped bit anywhere and
 * a cut anywhere are found and named; readers and the writer of an open layer do not disturb
 * each other.
 */
#undef NDEBUG
#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer/writer.h"
#include "store/snapshot.h"

static char directory[] = "/tmp/pagestore-layer-XXXXXX";
static const ps_layer_id ID = {.tenant = {1}, .timeline = {2}, .number = 3};

static char *
path_of(const char *name)
{
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void
put(ps_batch *batch, const ps_key *key, uint8_t kind, uint8_t flags, uint64_t lsn,
    const void *data, uint32_t length)
{
    uint64_t offset;
    assert(ps_batch_payload(batch, data, length, &offset) == PS_OK);
    assert(ps_batch_entry(batch, key, kind, flags, lsn, offset, length) == PS_OK);
}

static ps_key
block_key(uint32_t block)
{
    return ps_key_make(PS_KIND_REL_BLOCK, 1663, 5, 7, 0, block);
}

/* Forty blocks, each an image and ten records, and a size per LSN. */
static ps_open_layer *
filled_layer(void)
{
    ps_open_layer *layer;
    assert(ps_open_layer_make(&layer, NULL) == PS_OK);
    ps_batch batch;
    ps_batch_init(&batch);
    uint8_t page[PS_PAGE_SIZE];
    uint32_t noise = 1;
    for (uint64_t lsn = 1; lsn <= 11; lsn++) {
        for (uint32_t block = 0; block < 40; block++) {
            for (uint32_t i = 0; i < PS_PAGE_SIZE; i++)
                page[i] = (uint8_t)(i % 3 == 0 ? (noise = noise * 1103515245u + 12345u) >> 16 : 0);
            ps_key key = block_key(block);
            if (lsn == 1)
                put(&batch, &key, PS_VALUE_IMAGE, 0, lsn, page, PS_PAGE_SIZE);
            else
                put(&batch, &key, PS_VALUE_RECORD, 0, lsn, page, 40 + block);
        }
        ps_key size = ps_key_make(PS_KIND_REL_SIZE, 1663, 5, 7, 0, 0);
        put(&batch, &size, PS_VALUE_IMAGE, 0, lsn, &(uint32_t){40}, 4);
    }
    assert(ps_open_layer_put(layer, &batch, NULL) == PS_OK);
    ps_batch_free(&batch);
    return layer;
}

static ps_snapshot *
snapshot_of(ps_source source)
{
    ps_snapshot *empty = ps_snapshot_empty();
    ps_snapshot *made = ps_snapshot_replace(empty, NULL, 0, &source, 1);
    assert(made != NULL);
    ps_snapshot_release(empty);
    return made;
}

static void
compare_chains(ps_source left, ps_source right, uint64_t lsn)
{
    ps_snapshot *snapshots[2] = {snapshot_of(left), snapshot_of(right)};
    for (uint32_t block = 0; block < 42; block++) {
        ps_key key = block_key(block);
        ps_arena arena;
        ps_arena_init(&arena);
        ps_chain chains[2] = {{.arena = &arena}, {.arena = &arena}};
        for (int i = 0; i < 2; i++)
            assert(ps_snapshot_collect(snapshots[i], &key, &(uint32_t){0}, 1, lsn, &chains[i],
                                       NULL) == PS_OK);
        assert(chains[0].count == chains[1].count);
        assert(chains[0].count == (block < 40 ? (lsn > 11 ? 11 : lsn) : 0));
        for (uint32_t i = 0; i < chains[0].count; i++) {
            const ps_chain_item *a = &chains[0].items[i], *b = &chains[1].items[i];
            assert(a->lsn == b->lsn && a->kind == b->kind && a->length == b->length);
            assert(memcmp(a->data, b->data, a->length) == 0);
        }
        ps_arena_free(&arena);
    }
    for (int i = 0; i < 2; i++)
        ps_snapshot_release(snapshots[i]);
}

static ps_layer_summary
a_flushed_layer_reads_as_the_open_one(void)
{
    ps_open_layer *open = filled_layer();
    ps_layer_summary summary;
    ps_error err = {0};
    assert(ps_open_layer_flush(open, path_of("whole"), &ID, 1, &summary, &err) == PS_OK);
    assert(summary.entries == 11 * 41 && summary.keys == 41);
    assert(summary.first_lsn == 1 && summary.last_lsn == 11);
    ps_layer *file;
    assert(ps_layer_make(&file, path_of("whole"), &ID, &summary, &err) == PS_OK);
    assert(ps_layer_verify(file, &err) == PS_OK);
    ps_source a = {.open = open, .upper = UINT64_MAX};
    ps_source b = ps_source_of_file(file);
    for (uint64_t lsn = 0; lsn < 13; lsn++)
        compare_chains(a, b, lsn);
    ps_batch late;
    ps_batch_init(&late);
    ps_key key = block_key(1);
    put(&late, &key, PS_VALUE_ZERO, 0, 12, NULL, 0);
    assert(ps_open_layer_put(open, &late, &err) == PS_ERR_CLOSED);
    ps_batch_free(&late);
    ps_layer_release(file);
    ps_open_layer_release(open);
    return summary;
}

static uint8_t *
read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    assert(file != NULL);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*size);
    assert(fread(bytes, 1, *size, file) == *size);
    fclose(file);
    return bytes;
}

static void
expect_corrupt(const ps_layer_summary *summary, const ps_layer_id *id)
{
    ps_layer *file;
    ps_error err = {0};
    assert(ps_layer_make(&file, path_of("damaged"), id, summary, &err) == PS_OK);
    assert(ps_layer_verify(file, &err) == PS_ERR_CORRUPT);
    assert(strstr(err.text, "damaged: offset ") != NULL);
    ps_layer_release(file);
}

static void
damage_anywhere_is_found(const ps_layer_summary *summary)
{
    size_t size;
    uint8_t *bytes = read_file(path_of("whole"), &size);
    int fd = open(path_of("damaged"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert(pwrite(fd, bytes, size, 0) == (ssize_t)size);
    for (size_t at = 0; at < size; at += at < 400 || size - at < 4000 ? 1 : 97) {
        uint8_t flipped = bytes[at] ^ (uint8_t)(1u << at % 8);
        assert(pwrite(fd, &flipped, 1, (off_t)at) == 1);
        expect_corrupt(summary, &ID);
        assert(pwrite(fd, &bytes[at], 1, (off_t)at) == 1);
    }
    for (size_t cut = size - 1; cut > 0; cut -= cut < 1000 ? 1 : 577) {
        assert(ftruncate(fd, (off_t)cut) == 0);
        ps_layer_summary shorter = *summary;
        expect_corrupt(summary, &ID);
        shorter.bytes = cut; /* even if the catalog agreed */
        expect_corrupt(&shorter, &ID);
    }
    assert(ftruncate(fd, (off_t)size) == 0 && pwrite(fd, bytes, size, 0) == (ssize_t)size);
    ps_layer_id other = ID;
    other.timeline[5] = 1;
    expect_corrupt(summary, &other);
    other = ID;
    other.number = 4;
    expect_corrupt(summary, &other);
    close(fd);
    free(bytes);
}

static ps_open_layer *shared;

static void *
keep_reading(void *unused)
{
    (void)unused;
    uint64_t seen = 0;
    while (seen < 20000) {
        uint64_t lsn = ps_open_layer_stats(shared).last_lsn;
        ps_snapshot *snapshot =
            snapshot_of((ps_source){.open = shared, .upper = UINT64_MAX});
        ps_arena arena;
        ps_arena_init(&arena);
        ps_key key = block_key((uint32_t)lsn);
        ps_chain chain = {.arena = &arena};
        assert(ps_snapshot_collect(snapshot, &key, &(uint32_t){0}, 1, lsn, &chain, NULL) == PS_OK);
        assert(lsn == 0 || (chain.count == 1 && chain.items[0].lsn == lsn));
        ps_arena_free(&arena);
        ps_snapshot_release(snapshot);
        seen = lsn;
    }
    return NULL;
}

static void
readers_see_whole_values_while_a_writer_puts(void)
{
    assert(ps_open_layer_make(&shared, NULL) == PS_OK);
    pthread_t readers[2];
    for (int i = 0; i < 2; i++)
        assert(pthread_create(&readers[i], NULL, keep_reading, NULL) == 0);
    ps_batch batch;
    ps_batch_init(&batch);
    for (uint64_t lsn = 1; lsn <= 20000; lsn++) {
        ps_key key = block_key((uint32_t)lsn);
        put(&batch, &key, PS_VALUE_RECORD, PS_WILL_INIT, lsn, &lsn, sizeof lsn);
        if (lsn % 50 == 0) {
            assert(ps_open_layer_put(shared, &batch, NULL) == PS_OK);
            ps_batch_clear(&batch);
        }
    }
    for (int i = 0; i < 2; i++)
        pthread_join(readers[i], NULL);
    ps_batch_free(&batch);
    ps_open_layer_release(shared);
}

static void
bad_batches_leave_the_layer_alone(void)
{
    ps_open_layer *layer = filled_layer();
    ps_open_stats before = ps_open_layer_stats(layer);
    ps_batch batch;
    ps_batch_init(&batch);
    ps_key key = block_key(0);
    ps_error err = {0};
    put(&batch, &key, PS_VALUE_ZERO, 0, 20, NULL, 0);
    put(&batch, &key, PS_VALUE_ZERO, 0, 19, NULL, 0);
    assert(ps_open_layer_put(layer, &batch, &err) == PS_ERR_INVALID);
    ps_batch_clear(&batch);
    put(&batch, &key, PS_VALUE_IMAGE, 0, 20, "short", 5);
    assert(ps_open_layer_put(layer, &batch, &err) == PS_ERR_INVALID);
    ps_batch_clear(&batch);
    put(&batch, &key, PS_VALUE_RECORD, 0, 20, "payload", 7);
    batch.entries[0].offset = 1;
    assert(ps_open_layer_put(layer, &batch, &err) == PS_ERR_INVALID);
    batch.entries[0].offset = UINT64_MAX;
    assert(ps_open_layer_put(layer, &batch, &err) == PS_ERR_INVALID);
    ps_batch_clear(&batch);
    put(&batch, &key, 9, 0, 20, NULL, 0);
    assert(ps_open_layer_put(layer, &batch, &err) == PS_ERR_INVALID);
    assert(ps_open_layer_stats(layer).entries == before.entries);
    ps_batch_free(&batch);
    ps_open_layer_release(layer);
}

static void
a_writer_refuses_disorder_and_leaves_nothing(void)
{
    ps_layer_writer *writer;
    ps_error err = {0};
    ps_key key = block_key(5), before = block_key(4);
    assert(ps_layer_writer_make(&writer, path_of("new"), &ID, PS_LAYER_IMAGE, 1, &err) == PS_OK);
    assert(ps_layer_writer_add(writer, &key, 7, PS_VALUE_ZERO, 0, NULL, 0, &err) == PS_OK);
    assert(ps_layer_writer_add(writer, &before, 7, PS_VALUE_ZERO, 0, NULL, 0, &err) ==
           PS_ERR_INVALID);
    assert(ps_layer_writer_add(writer, &key, 7, PS_VALUE_ZERO, 0, NULL, 0, &err) ==
           PS_ERR_INVALID);
    ps_layer_writer_free(writer);
    assert(access(path_of("new"), F_OK) != 0);
    assert(ps_layer_writer_make(&writer, path_of("no/such"), &ID, 1, 1, &err) == PS_ERR_IO);
    assert(writer == NULL);
}

int
main(void)
{
    assert(mkdtemp(directory) != NULL);
    ps_layer_summary summary = a_flushed_layer_reads_as_the_open_one();
    damage_anywhere_is_found(&summary);
    readers_see_whole_values_while_a_writer_puts();
    bad_batches_leave_the_layer_alone();
    a_writer_refuses_disorder_and_leaves_nothing();
    unlink(path_of("whole"));
    unlink(path_of("damaged"));
    rmdir(directory);
    return 0;
}
