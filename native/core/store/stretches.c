#include "store/stretches.h"

#include "layer/patience.h"

/* How many columns of tables a lookup fills, and with how many empty ones an event loop puts up. */
#define LEARN_MOST 64u
#define UNKNOWN_MOST 32u

static int
no_memory(const ps_stretches *stretches, ps_error *err)
{
    return ps_fail(err, PS_ERR_NOMEM, "out of memory for a read of %zu blocks",
                   stretches->wanted->count);
}

int
ps_stretches_init(ps_stretches *stretches, const ps_snapshot *snapshot, ps_wanted *wanted,
                  ps_error *err)
{
    stretches->snapshot = snapshot;
    stretches->wanted = wanted;
    stretches->parts = snapshot->part_count;
    stretches->memory_at = 0;
    stretches->learned = stretches->unknown = 0;
    ps_candidates_init(&stretches->found);
    ps_candidates_init(&stretches->memory);
    int rc = ps_candidates_add_memory(&stretches->memory, snapshot, wanted->lsn);
    if (rc < 0)
        return no_memory(stretches, err);
    ps_candidates_sort(&stretches->memory);
    return PS_OK;
}

void
ps_stretches_free(ps_stretches *stretches)
{
    ps_candidates_free(&stretches->memory);
    ps_candidates_free(&stretches->found);
}

static uint64_t
most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static int
has_memory(const ps_stretches *stretches)
{
    return stretches->memory_at < stretches->memory.count;
}

/* Up to which LSN the parts that are left have anything; none: 0. */
static uint64_t
end_of_parts(const ps_stretches *stretches)
{
    if (stretches->parts == 0)
        return 0;
    const ps_part *part = &stretches->snapshot->parts[stretches->parts - 1];
    return most(part->below, part->last < part->upper ? part->last : part->upper);
}

static uint64_t
end_of_memory(const ps_stretches *stretches)
{
    return has_memory(stretches) ? stretches->memory.items[stretches->memory_at].upper : 0;
}

/* Fills some columns that are empty: of files that were found in the catalog, or just written.
 * As long as they are, each lookup has to ask their files one by one. */
static int
learn(ps_stretches *stretches, const ps_part *part, ps_error *err)
{
    uint32_t unknown = ps_group_unknown(part->group, part->count);
    stretches->unknown += unknown;
    if (unknown == 0)
        return PS_OK;
    if (!ps_patience_allows_files())
        return stretches->unknown <= UNKNOWN_MOST
                   ? PS_OK
                   : ps_fail(err, PS_ERR_WOULD_WAIT, "the filters of %u layers are to be read",
                             stretches->unknown);
    for (uint32_t at = part->count; at > 0 && stretches->learned < LEARN_MOST; at--) {
        if (ps_group_knows(part->group, at - 1))
            continue;
        ps_group_learn(part->group, at - 1);
        stretches->learned++;
    }
    return PS_OK;
}

/* Of all keys that are open. */
static int
make_probes(ps_stretches *stretches)
{
    ps_wanted *wanted = stretches->wanted;
    size_t bytes = wanted->count * sizeof *wanted->probes;
    wanted->probes = wanted->count == 1 ? &stretches->one
                                        : ps_arena_take(&stretches->found.arena, bytes);
    if (wanted->probes == NULL)
        return PS_ERR_NOMEM;
    for (size_t place = 0; place < wanted->count; place++)
        if ((wanted->open[place / 64] >> place % 64 & 1) != 0)
            wanted->probes[place] = ps_probe_of(&wanted->keys[wanted->order[place]]);
    return PS_OK;
}

static int
take_part(ps_stretches *stretches, ps_error *err)
{
    const ps_part *part = &stretches->snapshot->parts[--stretches->parts];
    ps_wanted *wanted = stretches->wanted;
    if (part->lower > wanted->lsn)
        return PS_OK;
    const ps_table *table = ps_group_table(part->group, part->count);
    if (table != NULL && wanted->probes == NULL && make_probes(stretches) < 0)
        return no_memory(stretches, err);
    int rc = table == NULL ? PS_OK : learn(stretches, part, err);
    if (stretches->parts > 0 && wanted->count == 1 && wanted->probes != NULL)
        ps_group_prefetch(part[-1].group, wanted->probes); /* most likely it comes next */
    if (rc == PS_OK && ps_candidates_add_part(&stretches->found, part, table, wanted) < 0)
        rc = no_memory(stretches, err);
    return rc;
}

static int
take_memory(ps_stretches *stretches, ps_error *err)
{
    const ps_candidate *next = &stretches->memory.items[stretches->memory_at++];
    int rc = ps_candidates_add(&stretches->found, next);
    return rc < 0 ? no_memory(stretches, err) : PS_OK;
}

int
ps_stretches_next(ps_stretches *stretches, ps_error *err)
{
    ps_candidates *found = &stretches->found;
    uint64_t lowest = UINT64_MAX, left;
    size_t seen = 0;
    int rc = PS_OK;
    if (stretches->parts == 0 && !has_memory(stretches))
        return 0;
    found->count = 0;
    do {
        rc = end_of_memory(stretches) >= end_of_parts(stretches) && has_memory(stretches)
                 ? take_memory(stretches, err)
                 : take_part(stretches, err);
        for (; seen < found->count; seen++)
            if (found->items[seen].lower < lowest)
                lowest = found->items[seen].lower;
        left = most(end_of_parts(stretches), end_of_memory(stretches));
    } while (rc == PS_OK && left >= lowest && (stretches->parts > 0 || has_memory(stretches)));
    ps_candidates_sort(found);
    return rc < 0 ? rc : 1;
}
