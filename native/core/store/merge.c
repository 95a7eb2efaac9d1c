/* A merge: each value of the inputs, and images where a page's values are many. */
#include "store/compacting.h"

/* How many bytes of a page's values are held back until it is known whether it needs images. */
#define HELD_BYTES ((size_t)256 << 10)
/* How much is taken from the inputs at once. */
#define AHEAD_MOST 256u
#define AHEAD_BYTES ((size_t)64 << 10)

static int
is_surveyed(const ps_compaction *work, const ps_key *key)
{
    return work->surveyed && ps_key_compare(key, &work->surveyed_key) == 0;
}

static int
take(ps_compaction *work, ps_error *err)
{
    const ps_input *at = ps_inputs_at(&work->inputs);
    ps_passing *made = ps_compaction_add(work, err);
    const uint8_t *data =
        made == NULL ? NULL : ps_arena_copy(&work->arena, at->data, at->header.length);
    if (data == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a value");
    *made = (ps_passing){.key = at->header.key,
                         .lsn = at->header.lsn,
                         .kind = at->header.kind,
                         .flags = at->header.flags,
                         .length = at->header.length,
                         .data = data};
    work->taken++;
    return ps_inputs_next(&work->inputs, err);
}

/* Values of a page, as long as they are so few that no image is needed between them. */
static int
take_page(ps_compaction *work, const ps_key *key, int *many, ps_error *err)
{
    const ps_chain_bounds *bounds = &work->options.bounds;
    uint64_t weight = 0, bytes = 0;
    int rc = PS_OK;
    *many = 0;
    for (const ps_input *at; rc == PS_OK && (at = ps_inputs_at(&work->inputs)) != NULL;) {
        if (ps_key_compare(&at->header.key, key) != 0)
            return PS_OK;
        weight += ps_value_weight(at->header.kind);
        bytes += at->header.length;
        *many = weight >= bounds->open_weight || bytes >= bounds->bytes || bytes > HELD_BYTES;
        if (*many)
            return PS_OK;
        if (ps_value_ends_chain(at->header.kind, at->header.flags))
            weight = bytes = 0;
        rc = take(work, err);
    }
    return rc;
}

/* Some of the foremost key's values. */
static int
take_some(ps_compaction *work, const char *path, ps_error *err)
{
    const ps_key key = ps_inputs_at(&work->inputs)->header.key;
    if (work->options.bounds.open_weight == 0 || !ps_key_is_page(&key) || is_surveyed(work, &key))
        return take(work, err);
    int many;
    int rc = take_page(work, &key, &many, err);
    if (rc < 0 || !many)
        return rc;
    rc = ps_history_survey(&work->history, &key, work->layers, work->count, path, err);
    work->surveyed = 1;
    work->surveyed_key = key;
    return rc == PS_OK ? take(work, err) : rc;
}

int
ps_merge_fill(ps_compaction *work, const char *path, ps_error *err)
{
    int rc = PS_OK;
    for (const ps_input *at; rc == PS_OK && (at = ps_inputs_at(&work->inputs)) != NULL;) {
        /* The images of one page at a time: until its values are out, no other is gone through. */
        int held = work->ahead_count > 0 &&
                   is_surveyed(work, &work->ahead[work->ahead_count - 1].key) &&
                   !is_surveyed(work, &at->header.key);
        if (held || work->ahead_count >= AHEAD_MOST || work->arena.reserved >= AHEAD_BYTES)
            break;
        rc = take_some(work, path, err);
    }
    return rc;
}
