#include "store/snapshot.h"

#include <stdlib.h>

static uint64_t
cap(const ps_source *source, uint64_t lsn)
{
    return source->max_lsn < lsn ? source->max_lsn : lsn;
}

/* Keeps of `order` the keys whose chains want more, in order. */
static size_t
still_wanted(const ps_chain *chains, const uint32_t *order, size_t count, uint32_t *wanted)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (!chains[order[i]].complete)
            wanted[kept++] = order[i];
    return kept;
}

int
ps_snapshot_collect(const ps_snapshot *snapshot, const ps_key *keys, const uint32_t *order,
                    size_t count, uint64_t lsn, ps_chain *chains, ps_error *err)
{
    uint32_t few[64];
    uint32_t *wanted = count <= 64 ? few : malloc(count * sizeof *wanted);
    if (wanted == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a read of %zu blocks", count);
    size_t left = still_wanted(chains, order, count, wanted);
    int rc = PS_OK;
    for (size_t i = 0; rc == PS_OK && left > 0 && i < snapshot->count; i++) {
        const ps_source *source = &snapshot->sources[i];
        uint64_t upto = cap(source, lsn);
        rc = source->open != NULL
                 ? ps_open_layer_collect(source->open, keys, wanted, left, upto, chains, err)
                 : ps_layer_collect(source->file, keys, wanted, left, upto, chains, err);
        left = still_wanted(chains, wanted, left, wanted);
    }
    if (wanted != few)
        free(wanted);
    return rc;
}

int
ps_snapshot_get(const ps_snapshot *snapshot, const ps_key *key, uint64_t lsn, ps_arena *arena,
                const uint8_t **data, uint32_t *length, ps_error *err)
{
    ps_chain chain = {.arena = arena, .newest_only = 1};
    int rc = ps_snapshot_collect(snapshot, key, &(uint32_t){0}, 1, lsn, &chain, err);
    if (rc < 0)
        return rc;
    if (chain.count == 0 || chain.items[0].kind == PS_VALUE_TOMBSTONE)
        return ps_fail(err, PS_ERR_NOT_FOUND, "the key does not exist at that LSN");
    if (chain.items[0].kind != PS_VALUE_IMAGE)
        return ps_fail(err, PS_ERR_INVALID, "the newest value of the key is not a whole one");
    *data = chain.items[0].data;
    *length = chain.items[0].length;
    return PS_OK;
}

static int
source_get(void *context, const ps_key *key, uint64_t lsn, uint8_t *out, size_t capacity,
           size_t *length, ps_error *err)
{
    ps_arena arena;
    ps_arena_init(&arena);
    const uint8_t *data;
    uint32_t found;
    int rc = ps_snapshot_get(context, key, lsn, &arena, &data, &found, err);
    if (rc == PS_OK && found > capacity)
        rc = ps_fail(err, PS_ERR_INVALID, "a value of %u bytes, room for %zu", found, capacity);
    if (rc == PS_OK) {
        memcpy(out, data, found);
        *length = found;
    }
    ps_arena_free(&arena);
    return rc;
}

static int
source_scan(void *context, const ps_key *low, const ps_key *high, uint64_t lsn, ps_visit visit,
            void *arg, ps_error *err)
{
    return ps_snapshot_scan(context, low, high, lsn, visit, arg, err);
}

ps_meta_source
ps_snapshot_meta_source(const ps_snapshot *snapshot)
{
    return (ps_meta_source){
        .context = (void *)(uintptr_t)snapshot, .get = source_get, .scan = source_scan};
}
