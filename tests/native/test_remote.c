/*
 * Layers that are not here: they read as if they were; one fetch serves all who wait; who must
 * not wait does not; what fails is told and may be tried again; what does not hold is fetched once
 * more; what is cached stays within its limit whoever reads.
 */
#undef NDEBUG
#include <assert.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "layer/open.h"
#include "layer/patience.h"
#include "store/snapshot.h"

enum { BLOCKS = 200, THREADS = 8 };

static char directory[] = "/tmp/pagestore-remote-XXXXXX";
static const ps_layer_id ID = {.tenant = {1}, .timeline = {2}, .number = 3};
static ps_layer_summary summary;
static uint8_t *whole; /* what the object store has */
static size_t size;

/* What the next fetches do. */
static unsigned fetches, failing, spoiled, delay_us;
static int has_it = 1;
static unsigned told_damaged, released;

static int
fetch(void *arg, const ps_layer_id *id, uint8_t kind, uint64_t offset, size_t length, uint8_t *out,
      ps_error *err)
{
    (void)arg;
    assert(id->number == ID.number && kind == PS_LAYER_DELTA);
    assert(length > 0 && offset + length <= size && offset % PS_REMOTE_CHUNK_BYTES == 0);
    __atomic_add_fetch(&fetches, 1, __ATOMIC_RELAXED);
    if (delay_us > 0)
        usleep(delay_us);
    if (!has_it)
        return ps_fail(err, PS_ERR_CORRUPT, "no object store has it");
    if (failing > 0) {
        failing--;
        return ps_fail(err, PS_ERR_REMOTE, "the store is away");
    }
    memcpy(out, whole + offset, length);
    if (spoiled > 0) {
        spoiled--;
        memset(out, 0xEE, length);
    }
    return PS_OK;
}

static int
damaged(void *arg, const ps_layer_id *id, uint8_t kind, const char *what)
{
    (void)arg, (void)id, (void)kind;
    assert(what[0] != '\0');
    told_damaged++;
    return has_it;
}

static void
release(void *arg)
{
    (void)arg;
    released++;
}

static char *
path_of(const char *name)
{
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static ps_key
block_key(uint32_t block)
{
    return ps_key_make(PS_KIND_REL_BLOCK, 1663, 5, 7, 0, block);
}

static uint32_t
page_of(uint32_t block, uint8_t *page)
{
    uint32_t noise = block + 1;
    for (uint32_t i = 0; i < PS_PAGE_SIZE; i++)
        page[i] = (uint8_t)((noise = noise * 1103515245u + 12345u) >> 16);
    return PS_PAGE_SIZE;
}

/* Several chunks long, at `path`; and what the object store has. */
static void
write_layer(const char *name)
{
    ps_open_layer *open;
    ps_batch batch;
    uint8_t page[PS_PAGE_SIZE];
    ps_error err = {0};
    ps_batch_init(&batch);
    assert(ps_open_layer_make(&open, NULL) == PS_OK);
    for (uint32_t block = 0; block < BLOCKS; block++) {
        ps_key key = block_key(block);
        uint64_t offset;
        assert(ps_batch_payload(&batch, page, page_of(block, page), &offset) == PS_OK);
        assert(ps_batch_entry(&batch, &key, PS_VALUE_IMAGE, 0, 1, offset, PS_PAGE_SIZE) == PS_OK);
    }
    assert(ps_open_layer_put(open, &batch, &err) == PS_OK);
    assert(ps_open_layer_flush(open, path_of(name), &ID, 1, &summary, &err) == PS_OK);
    ps_batch_free(&batch);
    ps_open_layer_release(open);
    FILE *file = fopen(path_of(name), "rb");
    assert(file != NULL);
    size = summary.bytes;
    whole = malloc(size);
    assert(fread(whole, 1, size, file) == size && size > 4 * PS_REMOTE_CHUNK_BYTES);
    fclose(file);
}

static ps_remote *
make_remote(uint64_t limit)
{
    const ps_remote_hooks hooks = {.fetch = fetch, .damaged = damaged, .release = release};
    ps_remote *remote;
    assert(ps_remote_make(&remote, path_of("cache"), limit, &hooks, NULL) == PS_OK);
    fetches = told_damaged = released = 0;
    return remote;
}

static ps_layer *
layer_at(const char *name, ps_remote *remote)
{
    ps_layer *layer;
    assert(ps_layer_make(&layer, path_of(name), &ID, &summary, NULL) == PS_OK);
    if (remote != NULL)
        ps_layer_lend(layer, remote);
    return layer;
}

static int
read_one(ps_layer *layer, uint32_t block, ps_error *err)
{
    uint8_t page[PS_PAGE_SIZE], expected[PS_PAGE_SIZE];
    ps_arena arena;
    ps_arena_init(&arena);
    ps_chain chain = {.arena = &arena, .page = page};
    ps_key key = block_key(block);
    int rc = ps_layer_collect(layer, &key, &(uint32_t){0}, 1, 1, &chain, err);
    if (rc == PS_OK) {
        page_of(block, expected);
        assert(chain.count == 1 && memcmp(page, expected, PS_PAGE_SIZE) == 0);
    }
    ps_arena_free(&arena);
    return rc;
}

static void
close_all(ps_layer *layer, ps_remote *remote)
{
    ps_layer_release(layer);
    assert(released == 0);
    ps_remote_release(remote);
    assert(released == 1);
    DIR *left = opendir(path_of("cache"));
    for (const struct dirent *entry = readdir(left); entry != NULL; entry = readdir(left))
        assert(entry->d_name[0] == '.');
    closedir(left);
    ps_cache_limit(0); /* every test reads anew */
    ps_cache_limit(PS_CACHE_DEFAULT_BYTES);
}

static void
it_reads_as_if_it_were_here(void)
{
    ps_error err = {0};
    ps_remote *remote = make_remote(UINT64_MAX);
    ps_layer *layer = layer_at("absent", remote);
    assert(read_one(layer, 7, &err) == PS_OK);
    assert(fetches == 2); /* the head with the block, and the end */
    for (uint32_t block = 0; block < BLOCKS; block++)
        assert(read_one(layer, block, &err) == PS_OK);
    assert(ps_layer_verify(layer, &err) == PS_OK);
    ps_remote_stats stats = ps_remote_read_stats(remote);
    assert(stats.cached_bytes == size && stats.fetched_bytes == size && stats.oldest > 0);
    assert(fetches < size / PS_REMOTE_CHUNK_BYTES + 2); /* in order: several at once */
    close_all(layer, remote);
}

static void
who_must_not_wait_does_not(void)
{
    ps_error err = {0};
    ps_remote *remote = make_remote(UINT64_MAX);
    ps_layer *layer = layer_at("absent", remote);
    ps_patience_set(PS_PATIENCE_NONE);
    assert(read_one(layer, 0, &err) == PS_ERR_WOULD_WAIT && fetches == 0);
    ps_patience_set(PS_PATIENCE_FILES);
    assert(read_one(layer, 0, &err) == PS_OK);
    unsigned before = fetches;
    ps_cache_limit(0);
    ps_patience_set(PS_PATIENCE_NONE);
    assert(read_one(layer, 1, &err) == PS_OK); /* of the same chunk */
    assert(read_one(layer, BLOCKS / 2, &err) == PS_ERR_WOULD_WAIT && fetches == before);
    ps_patience_set(PS_PATIENCE_FILES);
    close_all(layer, remote);
}

typedef struct reading {
    pthread_t thread;
    ps_layer *layer;
    int rc;
} reading;

static void *
read_in_thread(void *arg)
{
    reading *own = arg;
    ps_error err = {0};
    own->rc = read_one(own->layer, BLOCKS / 2, &err);
    return NULL;
}

static void
read_together(ps_layer *layer, reading *all)
{
    for (int i = 0; i < THREADS; i++) {
        all[i].layer = layer;
        assert(pthread_create(&all[i].thread, NULL, read_in_thread, &all[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(all[i].thread, NULL);
}

static void
one_fetch_serves_all_who_wait(void)
{
    ps_error err = {0};
    reading all[THREADS];
    ps_remote *remote = make_remote(UINT64_MAX);
    ps_layer *layer = layer_at("absent", remote);
    assert(read_one(layer, 0, &err) == PS_OK);
    fetches = 0;
    delay_us = 50000;
    read_together(layer, all);
    for (int i = 0; i < THREADS; i++)
        assert(all[i].rc == PS_OK);
    assert(fetches == 1);
    delay_us = 0;
    close_all(layer, remote);
}

static void
what_fails_is_told_to_all_and_can_be_tried_again(void)
{
    ps_error err = {0};
    reading all[THREADS];
    ps_remote *remote = make_remote(UINT64_MAX);
    ps_layer *layer = layer_at("absent", remote);
    failing = 1;
    assert(read_one(layer, 0, &err) == PS_ERR_REMOTE);
    assert(strstr(err.text, "the store is away") != NULL);
    assert(read_one(layer, 0, &err) == PS_OK);
    fetches = 0;
    failing = THREADS; /* one is told by the store, and the others by him */
    delay_us = 200000;
    read_together(layer, all);
    for (int i = 0; i < THREADS; i++)
        assert(all[i].rc == PS_ERR_REMOTE);
    assert(fetches <= THREADS);
    failing = delay_us = 0;
    assert(read_one(layer, BLOCKS / 2, &err) == PS_OK);
    close_all(layer, remote);
}

static void
what_does_not_hold_is_fetched_once_again(void)
{
    ps_error err = {0};
    ps_remote *remote = make_remote(UINT64_MAX);
    ps_layer *layer = layer_at("absent", remote);
    spoiled = 1; /* the head */
    assert(read_one(layer, 0, &err) == PS_OK);
    spoiled = 1; /* a block */
    assert(read_one(layer, BLOCKS / 2, &err) == PS_OK);
    spoiled = 2;
    assert(read_one(layer, BLOCKS / 4, &err) == PS_ERR_CORRUPT);
    assert(spoiled == 0 && read_one(layer, BLOCKS / 4, &err) == PS_OK);
    close_all(layer, remote);
}

static void
damage(const char *name, long at, long end)
{
    FILE *file = fopen(path_of(name), "r+b");
    assert(file != NULL);
    for (fseek(file, at, SEEK_SET); at < end; at++)
        fputc(0xEE, file);
    fclose(file);
}

static void
a_damaged_file_is_read_from_elsewhere(void)
{
    ps_error err = {0};
    ps_remote *remote = make_remote(UINT64_MAX);
    ps_layer *layer = layer_at("here", remote);
    assert(read_one(layer, 0, &err) == PS_OK && fetches == 0);
    damage("here", 200000, (long)size - 20000); /* blocks */
    ps_patience_set(PS_PATIENCE_NONE);
    assert(read_one(layer, BLOCKS / 2, &err) == PS_ERR_WOULD_WAIT);
    ps_patience_set(PS_PATIENCE_FILES);
    assert(read_one(layer, BLOCKS / 2, &err) == PS_OK && fetches > 0 && told_damaged == 1);
    for (uint32_t block = 0; block < BLOCKS; block++)
        assert(read_one(layer, block, &err) == PS_OK);
    assert(told_damaged == 1);
    ps_layer_release(layer);
    damage("here", 0, 100); /* the header */
    layer = layer_at("here", remote);
    assert(read_one(layer, 0, &err) == PS_OK && told_damaged == 2);
    ps_layer_release(layer);
    assert(truncate(path_of("here"), 1000) == 0);
    layer = layer_at("here", remote);
    assert(read_one(layer, 0, &err) == PS_OK && told_damaged == 3);
    ps_layer_release(layer);
    has_it = 0; /* then it is as without an object store */
    layer = layer_at("here", remote);
    assert(read_one(layer, 0, &err) == PS_ERR_CORRUPT);
    assert(strstr(err.text, "the file ends here") != NULL);
    ps_layer_release(layer);
    layer = layer_at("absent", remote);
    ps_remote_forget(remote, &ID);
    assert(read_one(layer, 0, &err) == PS_ERR_CORRUPT);
    has_it = 1;
    close_all(layer, remote);
}

static void *
read_all_in_thread(void *arg)
{
    ps_error err = {0};
    for (uint32_t block = 0; block < BLOCKS; block++)
        assert(read_one(arg, (block * 61) % BLOCKS, &err) == PS_OK);
    return NULL;
}

static void
what_is_cached_stays_within_its_limit(void)
{
    ps_error err = {0};
    pthread_t threads[THREADS];
    ps_remote *remote = make_remote(2 * PS_REMOTE_CHUNK_BYTES);
    ps_layer *layer = layer_at("absent", remote);
    ps_cache_limit(0);
    for (int i = 0; i < THREADS; i++)
        assert(pthread_create(&threads[i], NULL, read_all_in_thread, layer) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    read_all_in_thread(layer);
    ps_remote_stats stats = ps_remote_read_stats(remote);
    assert(stats.emptied_bytes > size);
    assert(stats.cached_bytes <= 2 * PS_REMOTE_CHUNK_BYTES);
    ps_remote_limit(remote, 0);
    assert(ps_remote_read_stats(remote).cached_bytes == 0);
    assert(read_one(layer, 0, &err) == PS_OK);
    close_all(layer, remote);
}

int
main(void)
{
    assert(mkdtemp(directory) != NULL);
    char command[300];
    snprintf(command, sizeof command, "mkdir %s", path_of("cache"));
    assert(system(command) == 0);
    write_layer("here");
    it_reads_as_if_it_were_here();
    who_must_not_wait_does_not();
    one_fetch_serves_all_who_wait();
    what_fails_is_told_to_all_and_can_be_tried_again();
    what_does_not_hold_is_fetched_once_again();
    a_damaged_file_is_read_from_elsewhere();
    what_is_cached_stays_within_its_limit();
    free(whole);
    snprintf(command, sizeof command, "rm -r %s", directory);
    assert(system(command) == 0);
    puts("ok");
    return 0;
}
