/*
 * Snapshots and groups under the sanitizers: versions that share what they are made of are freed
 * once; a file is there as long as a snapshot shows it; tables forget no key; readers take
 * snapshots while a writer makes new ones.
 */
#undef NDEBUG
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer/patience.h"
#include "store/timeline.h"

enum { FILES = 700, KEYS = 40 };

static char directory[] = "/tmp/pagestore-map-XXXXXX";
/* Of the tenant and the timeline of no name, whose directories stand within each other. */
#define NAMELESS "00000000000000000000000000000000"
static char tenant[200], within[300];

static ps_key
block_key(uint32_t block)
{
    return ps_key_make(PS_KIND_REL_BLOCK, 1663, 5, 7, 0, block);
}

/* Block 0, and some that few other files have, each with the file's number as its LSN. */
static ps_layer *
make_file(uint32_t number)
{
    char path[400];
    ps_layer_id id = {.number = number};
    ps_open_layer *open;
    ps_layer *file;
    ps_layer_summary summary;
    ps_batch batch;
    ps_batch_init(&batch);
    for (uint32_t i = 0; i < KEYS; i++) {
        ps_key key = block_key(i == 0 ? 0 : number * 1000 + i);
        uint64_t offset;
        assert(ps_batch_payload(&batch, "record", 6, &offset) == PS_OK);
        assert(ps_batch_entry(&batch, &key, PS_VALUE_RECORD, 0, number, offset, 6) == PS_OK);
    }
    snprintf(path, sizeof path, "%s/%u", within, number);
    assert(ps_open_layer_make(&open, NULL) == PS_OK);
    assert(ps_open_layer_put(open, &batch, NULL) == PS_OK);
    assert(ps_open_layer_flush(open, path, &id, 0, &summary, NULL) == PS_OK);
    assert(ps_layer_make(&file, path, &id, &summary, NULL) == PS_OK);
    ps_open_layer_release(open);
    ps_batch_free(&batch);
    return file;
}

static ps_layer *files[FILES + 1];

static uint32_t
count_values(const ps_snapshot *snapshot, ps_key key, uint64_t lsn, uint64_t *newest)
{
    ps_arena arena;
    ps_arena_init(&arena);
    ps_chain chain = {.arena = &arena};
    assert(ps_snapshot_collect(snapshot, &key, &(uint32_t){0}, 1, lsn, &chain, NULL) == PS_OK);
    for (uint32_t i = 1; i < chain.count; i++)
        assert(chain.items[i].lsn < chain.items[i - 1].lsn);
    if (newest != NULL)
        *newest = chain.count == 0 ? 0 : chain.items[0].lsn;
    uint32_t count = chain.count;
    ps_arena_free(&arena);
    return count;
}

static ps_snapshot *
with(ps_snapshot *snapshot, ps_layer *file)
{
    ps_source source = ps_source_of_file(file);
    ps_snapshot *made = ps_snapshot_replace(snapshot, NULL, 0, &source, 1);
    assert(made != NULL);
    ps_snapshot_release(snapshot);
    return made;
}

static ps_snapshot *
of_files(uint32_t first, uint32_t last)
{
    ps_snapshot *made = ps_snapshot_empty();
    for (uint32_t i = first; i <= last; i++)
        made = with(made, files[i]);
    return made;
}

static void
every_version_shows_its_own_files(void)
{
    static ps_snapshot *versions[FILES + 1];
    versions[0] = ps_snapshot_empty();
    for (uint32_t i = 1; i <= FILES; i++)
        versions[i] = with(ps_snapshot_retain(versions[i - 1]), files[i]);
    for (int round = 0; round < 12; round++) /* in which all tables are filled */
        assert(count_values(versions[FILES], block_key(0), UINT64_MAX, NULL) == FILES);
    for (uint32_t i = 0; i <= FILES; i += 7) {
        assert(ps_snapshot_file_count(versions[i]) == i);
        assert(count_values(versions[i], block_key(0), UINT64_MAX, NULL) == i);
        assert(count_values(versions[FILES], block_key(0), i, NULL) == i);
    }
    for (uint32_t i = 1; i <= FILES; i += 13) /* no filter forgets a key */
        for (uint32_t key = 1; key < KEYS; key++)
            assert(count_values(versions[FILES], block_key(i * 1000 + key), FILES, NULL) == 1);
    for (uint32_t i = 0; i <= FILES; i++)
        ps_snapshot_release(versions[i]);
}

static void
two_that_add_to_one_version_do_not_see_each_other(void)
{
    ps_snapshot *base = of_files(1, 100);
    ps_snapshot *one = with(ps_snapshot_retain(base), files[200]);
    ps_snapshot *other = with(ps_snapshot_retain(base), files[300]);
    uint64_t newest;
    assert(count_values(one, block_key(0), UINT64_MAX, &newest) == 101 && newest == 200);
    assert(count_values(other, block_key(0), UINT64_MAX, &newest) == 101 && newest == 300);
    assert(count_values(base, block_key(0), UINT64_MAX, &newest) == 100 && newest == 100);
    ps_snapshot_release(base);
    ps_snapshot_release(one);
    ps_snapshot_release(other);
}

/* Each branch has one file more, and sees its parent without the last of them. */
static void
a_deep_chain_of_branches_has_few_parts(void)
{
    ps_snapshot *deep = of_files(1, 1);
    for (uint32_t i = 2; i <= 500; i++) {
        ps_snapshot *own = of_files(i, i), *parent = deep;
        deep = ps_snapshot_over(own, parent, i % 5 == 0 ? i - 2 : i - 1);
        assert(deep != NULL);
        ps_snapshot_release(own);
        ps_snapshot_release(parent);
    }
    assert(deep->part_count <= 16);
    assert(count_values(deep, block_key(0), UINT64_MAX, NULL) == 400);
    assert(count_values(deep, block_key(4001), UINT64_MAX, NULL) == 0); /* behind 5's branch */
    assert(count_values(deep, block_key(6001), UINT64_MAX, NULL) == 1);
    ps_snapshot_release(deep);
}

/* As after a merge of old files, whose result is added last: here the oldest files are in the part
 * between, and one that lies among the newest in the last. */
static void
parts_are_gone_through_by_lsn_and_not_in_their_order(void)
{
    ps_snapshot *shown = of_files(401, 500);
    uint32_t ranges[][2] = {{201, 300}, {350, 350}};
    uint64_t newest;
    for (size_t i = 0; i < 2; i++) {
        ps_snapshot *own = of_files(ranges[i][0], ranges[i][1]), *before = shown;
        shown = ps_snapshot_over(own, before, UINT64_MAX - 1);
        assert(shown != NULL);
        ps_snapshot_release(own);
        ps_snapshot_release(before);
    }
    assert(shown->part_count == 3 && shown->parts[1].last < shown->parts[2].below);
    for (int round = 0; round < 6; round++)
        assert(count_values(shown, block_key(0), UINT64_MAX, &newest) == 201 && newest == 500);
    assert(count_values(shown, block_key(0), 350, &newest) == 101 && newest == 350);
    assert(count_values(shown, block_key(0), 349, &newest) == 100 && newest == 300);
    ps_snapshot_release(shown);
}

static void
what_is_replaced_stays_for_who_sees_it(void)
{
    ps_snapshot *before = of_files(1, 600);
    ps_source gone[3], added = ps_source_of_file(files[650]);
    for (uint32_t i = 0; i < 3; i++)
        gone[i] = ps_source_of_file(files[100 + 200 * i]);
    ps_snapshot *after = ps_snapshot_replace(before, gone, 3, &added, 1);
    assert(ps_snapshot_file_count(after) == 598);
    assert(count_values(after, block_key(0), UINT64_MAX, NULL) == 598);
    assert(count_values(after, block_key(300001), UINT64_MAX, NULL) == 0);
    assert(count_values(before, block_key(300001), UINT64_MAX, NULL) == 1);
    ps_snapshot_release(before);
    ps_snapshot_release(after);
}

static void
a_discarded_file_goes_with_its_last_snapshot(void)
{
    ps_layer *file = make_file(FILES + 5);
    char path[400];
    snprintf(path, sizeof path, "%s", ps_layer_path(file));
    ps_snapshot *one = with(ps_snapshot_empty(), file), *two = ps_snapshot_retain(one);
    ps_layer_discard(file);
    ps_layer_release(file);
    ps_snapshot_release(one);
    assert(access(path, F_OK) == 0);
    assert(count_values(two, block_key(0), UINT64_MAX, NULL) == 1);
    ps_snapshot_release(two);
    assert(access(path, F_OK) != 0);
}

static void
an_event_loop_leaves_empty_tables_to_a_thread(void)
{
    ps_snapshot *snapshot = of_files(1, 64);
    ps_arena arena;
    ps_arena_init(&arena);
    ps_chain chain = {.arena = &arena};
    ps_key key = block_key(0);
    ps_patience_set(PS_PATIENCE_NONE);
    assert(ps_snapshot_collect(snapshot, &key, &(uint32_t){0}, 1, 64, &chain, NULL) ==
           PS_ERR_WOULD_WAIT);
    ps_patience_set(PS_PATIENCE_FILES);
    assert(count_values(snapshot, key, 64, NULL) == 64);
    ps_patience_set(PS_PATIENCE_NONE);
    assert(count_values(snapshot, key, 64, NULL) == 64);
    ps_patience_set(PS_PATIENCE_FILES);
    ps_arena_free(&arena);
    ps_snapshot_release(snapshot);
}

static ps_timeline *timeline;

static void *
keep_reading(void *unused)
{
    (void)unused;
    ps_timeline_state state = {0};
    while (state.last_record_lsn < FILES) {
        ps_snapshot *snapshot;
        state = ps_timeline_read(timeline, &snapshot);
        assert(state.prev_record_lsn + 1 == state.last_record_lsn && state.earliest_lsn == 1);
        uint64_t newest;
        if (snapshot == NULL)
            continue;
        (void)count_values(snapshot, block_key(0), state.last_record_lsn, &newest);
        assert(newest == state.last_record_lsn);
        ps_snapshot_release(snapshot);
    }
    return NULL;
}

/* The snapshot is published first, then the position: so what is said can be read. */
static void
readers_see_position_and_snapshot_as_of_one_moment(void)
{
    timeline = ps_timeline_make(&(ps_timeline_state){
        .last_record_lsn = 1, .prev_record_lsn = 0, .earliest_lsn = 1, .horizon = 1});
    ps_snapshot *current = of_files(1, 1);
    ps_timeline_publish(timeline, current);
    pthread_t readers[2];
    for (int i = 0; i < 2; i++)
        assert(pthread_create(&readers[i], NULL, keep_reading, NULL) == 0);
    for (uint32_t i = 2; i <= FILES; i++) {
        current = with(current, files[i]);
        if (i % 50 == 0)
            ps_timeline_publish(timeline, NULL);
        ps_timeline_publish(timeline, current);
        ps_timeline_move(timeline, i, i - 1);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(readers[i], NULL);
    ps_snapshot_release(current);
    ps_timeline_release(timeline);
}

int
main(void)
{
    assert(mkdtemp(directory) != NULL);
    snprintf(tenant, sizeof tenant, "%s/" NAMELESS, directory);
    snprintf(within, sizeof within, "%s/" NAMELESS, tenant);
    assert(mkdir(tenant, 0700) == 0 && mkdir(within, 0700) == 0);
    for (uint32_t i = 1; i <= FILES; i++)
        files[i] = make_file(i);
    every_version_shows_its_own_files();
    two_that_add_to_one_version_do_not_see_each_other();
    parts_are_gone_through_by_lsn_and_not_in_their_order();
    a_deep_chain_of_branches_has_few_parts();
    what_is_replaced_stays_for_who_sees_it();
    a_discarded_file_goes_with_its_last_snapshot();
    an_event_loop_leaves_empty_tables_to_a_thread();
    readers_see_position_and_snapshot_as_of_one_moment();
    for (uint32_t i = 1; i <= FILES; i++) {
        ps_layer_discard(files[i]);
        ps_layer_release(files[i]);
    }
    assert(access(tenant, F_OK) != 0);
    assert(rmdir(directory) == 0); /* which is neither's, and was left */
    return 0;
}
