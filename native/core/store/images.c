/* Images: of each key that the inputs have, what it is at one LSN. */
#include "store/compacting.h"
#include "store/page_read.h"

/* Pages that are read at once: enough for redo helpers to have something in flight. */
#define AT_ONCE 64u

static int
add_page(ps_compaction *work, const ps_key *key, ps_error *err)
{
    ps_passing *made = ps_compaction_add(work, err);
    if (made == NULL)
        return PS_ERR_NOMEM;
    *made = (ps_passing){.key = *key,
                         .lsn = work->options.image_lsn,
                         .kind = PS_VALUE_IMAGE,
                         .length = PS_PAGE_SIZE};
    return PS_OK; /* it is read with others */
}

/* What is no page. The newest value need not be among the inputs: retention may have left an old
 * one in a delta layer, and a newer one in the images of a pass before. */
static int
add_value(ps_compaction *work, const ps_key *key, ps_error *err)
{
    ps_chain chain = {.arena = &work->arena, .newest_only = 1};
    int rc = ps_snapshot_collect(work->snapshot, key, &(uint32_t){0}, 1, work->options.image_lsn,
                                 &chain, err);
    if (rc < 0 || chain.count == 0)
        return rc;
    ps_passing *made = ps_compaction_add(work, err);
    if (made == NULL)
        return PS_ERR_NOMEM;
    *made = (ps_passing){.key = *key,
                         .lsn = work->options.image_lsn,
                         .kind = chain.items[0].kind,
                         .flags = chain.items[0].flags,
                         .length = chain.items[0].length,
                         .data = chain.items[0].data};
    return PS_OK;
}

/* The foremost key, and past it. */
static int
take_key(ps_compaction *work, ps_error *err)
{
    const ps_input *at = ps_inputs_at(&work->inputs);
    int there = at->header.lsn <= work->options.image_lsn && at->header.lsn <= at->upto;
    int rc = PS_OK;
    if (!there)
        return ps_inputs_next(&work->inputs, err);
    work->taken++;
    if (ps_key_kind(&at->header.key) == PS_KIND_REL_BLOCK)
        there = ps_sieve_reads_block(&work->sieve, &at->header.key, work->options.image_lsn, err);
    if (there < 0)
        rc = there;
    else if (there)
        rc = ps_key_is_page(&at->header.key) ? add_page(work, &at->header.key, err)
                                             : add_value(work, &at->header.key, err);
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
