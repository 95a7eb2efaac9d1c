/*
 * Compaction under the sanitizers: merges whose pages get images, one hot page, files cut within
 * it, images of all, what nobody reads left out, and work that is cancelled or let go in the midst.
 */
#undef NDEBUG
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/compaction.h"

enum { FILES = 6, PER_FILE = 400, PAGES = 5, MOST = 500 };

static char directory[] = "/tmp/pagestore-compaction-XXXXXX";
static uint32_t numbers;

static ps_key
block_key(uint32_t block)
{
    return ps_key_make(PS_KIND_REL_BLOCK, 1663, 5, 7, 0, block);
}

static void
add(ps_batch *batch, ps_key key, uint8_t kind, uint64_t lsn, const void *data, uint32_t length)
{
    uint64_t offset;
    assert(ps_batch_payload(batch, data, length, &offset) == PS_OK);
    assert(ps_batch_entry(batch, &key, kind, 0, lsn, offset, length) == PS_OK);
}

static ps_layer *
flushed(const ps_batch *batch)
{
    char path[200];
    ps_layer_id id = {.number = ++numbers};
    ps_open_layer *open;
    ps_layer *file;
    ps_layer_summary summary;
    snprintf(path, sizeof path, "%s/%u", directory, numbers);
    assert(ps_open_layer_make(&open, NULL) == PS_OK);
    assert(ps_open_layer_put(open, batch, NULL) == PS_OK);
    assert(ps_open_layer_flush(open, path, &id, 0, &summary, NULL) == PS_OK);
    assert(ps_layer_make(&file, path, &id, &summary, NULL) == PS_OK);
    ps_open_layer_release(open);
    return file;
}

/* Zeros and a relation's size first; then patches, every second of block 0. */
static void
make_files(ps_layer **files)
{
    uint64_t lsn = 1;
    for (uint32_t f = 0; f < FILES; f++) {
        ps_batch batch;
        ps_batch_init(&batch);
        uint32_t blocks = PAGES;
        if (f == 0)
            add(&batch, ps_key_make(PS_KIND_REL_SIZE, 1663, 5, 7, 0, 0), PS_VALUE_IMAGE, lsn,
                &blocks, sizeof blocks);
        for (uint32_t b = 0; f == 0 && b < PAGES; b++)
            add(&batch, block_key(b), PS_VALUE_ZERO, lsn, "", 0);
        for (uint32_t i = 0; i < PER_FILE; i++) {
            ps_patch_op op = {.offset = (uint16_t)(lsn % 5000), .length = 3, .mask = 0xFF,
                              .value = (uint8_t)lsn};
            lsn += i % 3; /* some share an LSN */
            ps_key key = block_key(i % 2 == 0 ? 0 : 1 + i % (PAGES - 1));
            add(&batch, key, PS_VALUE_PATCH, lsn + 1, &op, sizeof op);
        }
        lsn += 2;
        files[f] = flushed(&batch);
        ps_batch_free(&batch);
    }
}

static ps_snapshot *
snapshot_of(ps_layer *const *files, size_t count)
{
    ps_source sources[MOST + FILES];
    for (size_t i = 0; i < count; i++)
        sources[i] = ps_source_of_file(files[i]);
    ps_snapshot *empty = ps_snapshot_empty();
    ps_snapshot *made = ps_snapshot_replace(empty, NULL, 0, sources, count);
    assert(made != NULL);
    ps_snapshot_release(empty);
    return made;
}

/* All files of some work. */
static size_t
written(ps_compaction *work, ps_layer **out)
{
    for (size_t count = 0;; count++) {
        char path[200];
        ps_layer_id id = {.number = ++numbers};
        ps_layer_summary summary;
        int there;
        ps_error err = {0};
        snprintf(path, sizeof path, "%s/%u", directory, numbers);
        int rc = ps_compaction_write(work, path, &id, 0, &summary, &there, &err);
        if (rc != PS_OK)
            fprintf(stderr, "%s\n", err.text);
        assert(rc == PS_OK);
        if (!there)
            return count;
        assert(count < MOST);
        assert(ps_layer_make(&out[count], path, &id, &summary, NULL) == PS_OK);
    }
}

static void
check_at(const ps_snapshot *a, const ps_snapshot *b, uint64_t first, uint64_t last, uint64_t step)
{
    ps_key keys[PAGES];
    uint8_t *left = malloc(PAGES * PS_PAGE_SIZE), *right = malloc(PAGES * PS_PAGE_SIZE);
    uint8_t *lefts[PAGES], *rights[PAGES];
    assert(left != NULL && right != NULL);
    for (uint32_t i = 0; i < PAGES; i++) {
        keys[i] = block_key(i);
        lefts[i] = left + i * PS_PAGE_SIZE;
        rights[i] = right + i * PS_PAGE_SIZE;
    }
    for (uint64_t lsn = first; lsn <= last; lsn += step) {
        assert(ps_snapshot_read_pages(a, keys, PAGES, lsn, lefts, NULL, NULL) == PS_OK);
        assert(ps_snapshot_read_pages(b, keys, PAGES, lsn, rights, NULL, NULL) == PS_OK);
        assert(memcmp(left, right, PAGES * PS_PAGE_SIZE) == 0);
    }
    free(left);
    free(right);
}

static void
check_same(const ps_snapshot *a, const ps_snapshot *b, uint64_t last)
{
    check_at(a, b, 1, last, 37);
}

static void
release(ps_layer **files, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ps_layer_discard(files[i]);
        ps_layer_release(files[i]);
    }
}

static void
check_work(ps_layer **files, const ps_snapshot *before, uint64_t last, uint64_t file_bytes,
           uint64_t image_lsn)
{
    ps_compaction_options options = {
        .file_bytes = file_bytes,
        .image_lsn = image_lsn,
        .bounds = {.open_weight = 3, .weight = 7, .bytes = 1 << 20}};
    ps_compaction *work;
    ps_layer *out[MOST + FILES];
    assert(ps_compaction_open(&work, files, FILES, before, NULL, &options, NULL) == PS_OK);
    size_t count = written(work, out);
    assert(count > 0 && (file_bytes > 400 || count >= 3));
    assert(ps_compaction_read_stats(work).images >= PAGES);
    ps_compaction_free(work);
    for (uint32_t i = 0; image_lsn != 0 && i < FILES; i++)
        out[count + i] = files[i];
    ps_snapshot *after = snapshot_of(out, count + (image_lsn != 0 ? FILES : 0));
    check_same(before, after, last);
    ps_snapshot_release(after);
    release(out, count);
}

/* Read at two LSNs, and from a third on. Then two passes of images, and both made one. */
static void
check_kept(ps_layer **files, const ps_snapshot *before, uint64_t last)
{
    const uint64_t boundaries[] = {last / 4, last / 2, last - 9};
    const size_t all = sizeof boundaries / sizeof *boundaries;
    ps_compaction_options options = {
        .file_bytes = 3000,
        .bounds = {.open_weight = 3, .weight = 7, .bytes = 1 << 20},
        .kept = {.boundaries = boundaries, .count = all}};
    ps_compaction *work;
    ps_layer *out[MOST];
    assert(ps_compaction_open(&work, files, FILES, before, NULL, &options, NULL) == PS_OK);
    size_t merged = written(work, out), count = merged;
    assert(ps_compaction_read_stats(work).dead > 9 * FILES * PER_FILE / 10);
    ps_compaction_free(work);
    ps_snapshot *after = snapshot_of(out, count);
    check_at(before, after, boundaries[0], boundaries[0], 1);
    check_at(before, after, boundaries[1], boundaries[1], 1);
    check_at(before, after, boundaries[2], last, 1);
    for (uint64_t lsn = last - 8; lsn <= last; lsn += 8) {
        options.image_lsn = lsn;
        assert(ps_compaction_open(&work, out, merged, after, NULL, &options, NULL) == PS_OK);
        count += written(work, out + count);
        ps_compaction_free(work);
    }
    ps_snapshot *both = snapshot_of(out, count);
    uint32_t part;
    const ps_kept end = {.boundaries = &last, .count = 1};
    assert(ps_layer_dead_part(both, out[merged], &end, last, &part, NULL) == PS_OK && part == 1024);
    assert(ps_layer_dead_part(both, out[count - 1], &end, last, &part, NULL) == PS_OK && part == 0);
    options.kept = end;
    assert(ps_compaction_open(&work, out + merged, count - merged, both, NULL, &options, NULL) ==
           PS_OK);
    size_t one = written(work, out + count);
    ps_compaction_free(work);
    ps_snapshot *only = snapshot_of(out + count, one);
    check_at(before, only, last, last, 1);
    ps_snapshot_release(only);
    ps_snapshot_release(both);
    ps_snapshot_release(after);
    release(out, count + one);
}

/* What is let go in the midst, or cancelled, leaves nothing. */
static void
check_ends(ps_layer **files, const ps_snapshot *before)
{
    ps_compaction_options options = {
        .file_bytes = 1, .bounds = {.open_weight = 3, .weight = 7, .bytes = 1 << 20}};
    ps_compaction *work;
    char path[200];
    ps_layer_id id = {.number = ++numbers};
    ps_layer_summary summary;
    int there;
    snprintf(path, sizeof path, "%s/%u", directory, numbers);
    assert(ps_compaction_open(&work, files, FILES, before, NULL, &options, NULL) == PS_OK);
    assert(ps_compaction_write(work, path, &id, 1, &summary, &there, NULL) == PS_OK && there);
    unlink(path);
    ps_compaction_cancel(work);
    assert(ps_compaction_write(work, path, &id, 1, &summary, &there, NULL) == PS_ERR_CLOSED);
    assert(access(path, F_OK) != 0);
    ps_compaction_free(work);
}

int
main(void)
{
    ps_layer *files[FILES];
    assert(mkdtemp(directory) != NULL);
    make_files(files);
    uint64_t last = ps_layer_known(files[FILES - 1])->last_lsn, depth;
    ps_snapshot *before = snapshot_of(files, FILES);
    assert(ps_layer_depth(files[1], &depth, NULL) == PS_OK && depth == PER_FILE / 2);
    const uint64_t sizes[] = {400, 3000, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_work(files, before, last, sizes[i], 0);
        check_work(files, before, last, sizes[i], last);
        check_work(files, before, last, sizes[i], last / 2);
    }
    check_kept(files, before, last);
    check_ends(files, before);
    ps_snapshot_release(before);
    release(files, FILES);
    rmdir(directory);
    puts("ok");
    return 0;
}
