/* Images: of each key that the inputs have, what it is at one LSN. */
#include "store/compacting.h"
#include "store/page_read.h"

/* Pages that are read at once: enough for redo helpers to have something in flight. */
#define AT_ONCE 64u

static int
add(ps_compaction *work, const ps_input *at, ps_error *err)
{
    ps_passing *made = ps_compaction_add(work, err);
    if (made == NULL)
        return PS_ERR_NOMEM;
    *made = (ps_passing){.key = at->header.key,
                         .lsn = work->options.image_lsn,
                         .kind = PS_VALUE_IMAGE,
                         .length = PS_PAGE_SIZE};
    if (ps_key_is_page(&at->header.key))
        return PS_OK; /* read with others */
    made->kind = at->header.kind;
    made->flags = at->header.flags;
    made->length = at->header.length;
    made->data = ps_arena_copy(&work->arena, at->data, at->header.length);
    return made->data == NULL ? ps_fail(err, PS_ERR_NOMEM, "out of memory for a value") : PS_OK;
}

/* Learns how many blocks the relation of a key has at the LSN. */
static int
look_at_relation(ps_compaction *work, const ps_key *relation, ps_error *err)
{
    ps_key key = *relation;
    key.b[0] = PS_KIND_REL_SIZE;
    ps_arena arena;
    ps_arena_init(&arena);
    const uint8_t *data;
    uint32_t length;
    int rc = ps_snapshot_get(work->snapshot, &key, work->options.image_lsn, &arena, &data, &length,
                             err);
    work->relation_blocks = 0;
    if (rc == PS_OK && length == sizeof work->relation_blocks)
        memcpy(&work->relation_blocks, data, sizeof work->relation_blocks);
    else if (rc == PS_OK)
        rc = ps_fail(err, PS_ERR_CORRUPT, "a relation's size of %u bytes", length);
    ps_arena_free(&arena);
    work->relation = *relation;
    work->relation_known = rc == PS_OK || rc == PS_ERR_NOT_FOUND;
    return work->relation_known ? PS_OK : rc;
}

/* Whether anybody may ask for a page at the LSN. */
static int
exists(ps_compaction *work, const ps_key *key, int *answer, ps_error *err)
{
    *answer = 1;
    if (ps_key_kind(key) != PS_KIND_REL_BLOCK)
        return PS_OK;
    ps_key relation = *key;
    ps_put_be32(relation.b + 14, 0);
    if (!work->relation_known || ps_key_compare(&relation, &work->relation) != 0) {
        int rc = look_at_relation(work, &relation, err);
        if (rc < 0)
            return rc;
    }
    *answer = ps_key_block(key) < work->relation_blocks;
    return PS_OK;
}

/* The foremost key, and past it. */
static int
take_key(ps_compaction *work, ps_error *err)
{
    const ps_input *at = ps_inputs_at(&work->inputs);
    int there = at->header.lsn <= work->options.image_lsn, rc = PS_OK;
    if (!there)
        return ps_inputs_next(&work->inputs, err);
    work->taken++;
    if (ps_key_is_page(&at->header.key))
        rc = exists(work, &at->header.key, &there, err);
    if (rc == PS_OK && there)
        rc = add(work, at, err);
    return rc == PS_OK ? ps_inputs_skip_key(&work->inputs, err) : rc;
}

/* Gives the pages among the values that are ahead their bytes. */
static int
read_pages(ps_compaction *work, ps_error *err)
{
    ps_key keys[AT_ONCE];
    uint8_t *outs[AT_ONCE];
    size_t count = 0;
    for (size_t i = 0; i < work->ahead_count; i++) {
        ps_passing *value = &work->ahead[i];
        if (!ps_key_is_page(&value->key))
            continue;
        outs[count] = ps_arena_take(&work->arena, PS_PAGE_SIZE);
        if (outs[count] == NULL)
            return ps_fail(err, PS_ERR_NOMEM, "out of memory for %zu pages", count);
        value->data = outs[count];
        keys[count++] = value->key;
    }
    work->stats.images += count;
    return ps_snapshot_read_pages(work->snapshot, keys, count, work->options.image_lsn, outs,
                                  work->redo, err);
}

int
ps_images_fill(ps_compaction *work, ps_error *err)
{
    int rc = ps_pace_go_on(&work->pace, err);
    while (rc == PS_OK && work->ahead_count < AT_ONCE && ps_inputs_at(&work->inputs) != NULL)
        rc = take_key(work, err);
    return rc == PS_OK ? read_pages(work, err) : rc;
}
