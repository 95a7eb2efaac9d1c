/* How snapshots are made from each other. What they are read by is in collect.c and scan.c. */
#include "store/snapshot.h"

#include <stdlib.h>

/* A branch's first files join its parent's last ones while both are so few together. */
#define JOIN_MOST 64u

/* Lists in one piece of memory with the snapshot; both are filled by who makes it. */
static ps_snapshot *
snapshot_make(size_t memory, size_t parts)
{
    ps_snapshot *made = calloc(1, sizeof *made + memory * sizeof *made->memory +
                                      parts * sizeof *made->parts);
    if (made == NULL)
        return NULL;
    made->refs = 1;
    made->memory = (ps_source *)(made + 1);
    made->parts = (ps_part *)(made->memory + memory);
    return made;
}

ps_snapshot *
ps_snapshot_empty(void)
{
    return snapshot_make(0, 0);
}

ps_snapshot *
ps_snapshot_retain(const ps_snapshot *snapshot)
{
    ps_snapshot *same = (ps_snapshot *)(uintptr_t)snapshot;
    __atomic_add_fetch(&same->refs, 1, __ATOMIC_RELAXED);
    return same;
}

void
ps_snapshot_release(ps_snapshot *snapshot)
{
    if (snapshot == NULL || __atomic_sub_fetch(&snapshot->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (uint32_t i = 0; i < snapshot->memory_count; i++)
        ps_open_layer_release(snapshot->memory[i].open);
    for (uint32_t i = 0; i < snapshot->part_count; i++)
        ps_group_release(snapshot->parts[i].group);
    free(snapshot);
}

ps_source
ps_source_of_file(ps_layer *file)
{
    const ps_layer_summary *known = ps_layer_known(file);
    return (ps_source){.file = file, .lower = known->first_lsn, .upper = known->last_lsn};
}

static uint64_t
least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t
most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* All parts are there: what lies below each. */
static ps_snapshot *
finish(ps_snapshot *made)
{
    uint64_t below = 0;
    for (uint32_t i = 0; i < made->part_count; i++) {
        ps_part *part = &made->parts[i];
        part->below = below;
        below = most(below, least(part->last, part->upper));
    }
    return made;
}

static void
add_memory(ps_snapshot *to, const ps_source *source)
{
    ps_open_layer_retain(source->open);
    to->memory[to->memory_count++] = *source;
}

static void
add_part(ps_snapshot *to, ps_part part)
{
    ps_group_retain(part.group);
    to->parts[to->part_count++] = part;
}

static int
is_listed(const ps_source *list, size_t count, const ps_layer *file)
{
    for (size_t i = 0; i < count; i++)
        if (list[i].file == file)
            return 1;
    return 0;
}

static void
widen(ps_part *part, const ps_source *source)
{
    part->count++;
    part->lower = least(part->lower, source->lower);
    part->last = most(part->last, source->upper);
}

/* Adds to a new part what another shows, with its bound, but for the files of `gone`. */
static void
copy_files(ps_part *to, const ps_part *from, const ps_source *gone, size_t gone_count)
{
    for (uint32_t i = 0; i < from->count; i++) {
        ps_source source = from->group->files[i];
        source.upper = least(source.upper, from->upper);
        if (source.lower > source.upper || is_listed(gone, gone_count, source.file))
            continue;
        (void)ps_group_add(to->group, to->count, &source); /* there is room, and nobody else */
        widen(to, &source);
    }
}

/* Once a new part has all files, what was known of those that came from another, in the same
 * order, at `at` and behind it. */
static void
copy_columns(const ps_part *to, uint32_t at, const ps_part *from)
{
    for (uint32_t i = 0; i < from->count && at < to->count; i++)
        if (to->group->files[at].file == from->group->files[i].file)
            ps_group_copy_column(to->group, to->count, at++, from->group, i);
}

static int
new_part(ps_part *part, uint32_t room)
{
    *part = (ps_part){
        .group = ps_group_make(room), .lower = UINT64_MAX, .upper = UINT64_MAX};
    return part->group == NULL ? PS_ERR_NOMEM : PS_OK;
}

/* A file more, in the last part if that may grow; else in a part of its own. */
static int
push(ps_snapshot *to, const ps_source *source)
{
    ps_part *last = to->part_count > 0 ? &to->parts[to->part_count - 1] : NULL;
    if (last != NULL && last->upper == UINT64_MAX &&
        ps_group_add(last->group, last->count, source)) {
        widen(last, source);
        return PS_OK;
    }
    int grows = last != NULL && last->upper == UINT64_MAX && last->count < PS_GROUP_MOST;
    ps_part made;
    if (new_part(&made, grows ? last->count + 1 : 1) < 0)
        return PS_ERR_NOMEM;
    if (grows)
        copy_files(&made, last, NULL, 0);
    (void)ps_group_add(made.group, made.count, source);
    widen(&made, source);
    if (grows) {
        copy_columns(&made, 0, last);
        ps_group_release(last->group);
        *last = made;
    } else {
        to->parts[to->part_count++] = made;
    }
    return PS_OK;
}

/* Whether a part shows a file of the list. */
static int
shows(const ps_part *part, const ps_source *list, size_t count)
{
    for (uint32_t i = 0; count > 0 && i < part->count; i++)
        if (is_listed(list, count, part->group->files[i].file))
            return 1;
    return 0;
}

static int
keep_part(ps_snapshot *to, const ps_part *part, const ps_source *gone, size_t gone_count)
{
    if (!shows(part, gone, gone_count)) {
        add_part(to, *part);
        return PS_OK;
    }
    ps_part made;
    if (new_part(&made, part->count) < 0)
        return PS_ERR_NOMEM;
    copy_files(&made, part, gone, gone_count);
    copy_columns(&made, 0, part);
    if (made.count > 0)
        to->parts[to->part_count++] = made;
    else
        ps_group_release(made.group);
    return PS_OK;
}

static int
is_open_listed(const ps_source *list, size_t count, const ps_open_layer *open)
{
    for (size_t i = 0; i < count; i++)
        if (list[i].open == open)
            return 1;
    return 0;
}

ps_snapshot *
ps_snapshot_replace(const ps_snapshot *snapshot, const ps_source *gone, size_t gone_count,
                    const ps_source *added, size_t added_count)
{
    size_t files_gone = 0;
    for (size_t i = 0; i < gone_count; i++)
        files_gone += gone[i].file != NULL;
    ps_snapshot *made = snapshot_make(snapshot->memory_count + added_count,
                                      snapshot->part_count + added_count);
    int rc = made == NULL ? PS_ERR_NOMEM : PS_OK;
    for (uint32_t i = 0; rc == PS_OK && i < snapshot->memory_count; i++)
        if (!is_open_listed(gone, gone_count, snapshot->memory[i].open))
            add_memory(made, &snapshot->memory[i]);
    for (uint32_t i = 0; rc == PS_OK && i < snapshot->part_count; i++)
        rc = keep_part(made, &snapshot->parts[i], gone, files_gone > 0 ? gone_count : 0);
    for (size_t i = 0; rc == PS_OK && i < added_count; i++) {
        if (added[i].open != NULL)
            add_memory(made, &added[i]);
        else
            rc = push(made, &added[i]);
    }
    if (rc == PS_OK)
        return finish(made);
    ps_snapshot_release(made);
    return NULL;
}

/* Makes one part of the last two, if they are few together. */
static int
join_last(ps_snapshot *to)
{
    if (to->part_count < 2)
        return PS_OK;
    ps_part *older = &to->parts[to->part_count - 2], *newer = older + 1;
    if (older->count + newer->count > JOIN_MOST)
        return PS_OK;
    ps_part made;
    if (new_part(&made, older->count + newer->count) < 0)
        return PS_ERR_NOMEM;
    copy_files(&made, older, NULL, 0);
    uint32_t first_of_newer = made.count;
    copy_files(&made, newer, NULL, 0);
    copy_columns(&made, 0, older);
    copy_columns(&made, first_of_newer, newer);
    ps_group_release(older->group);
    ps_group_release(newer->group);
    *older = made;
    to->part_count--;
    return PS_OK;
}

/* What is in memory of the parent counts if it began before the branch; or may yet do so, after
 * a restart, while it is empty. */
static void
add_parents_memory(ps_snapshot *to, const ps_snapshot *parent, uint64_t lsn)
{
    for (uint32_t i = 0; i < parent->memory_count; i++) {
        ps_source source = parent->memory[i];
        uint64_t first, last;
        source.upper = least(source.upper, lsn);
        if (ps_open_layer_bounds(source.open, &first, &last) < 0 || first <= source.upper)
            add_memory(to, &source);
    }
}

ps_snapshot *
ps_snapshot_over(const ps_snapshot *own, const ps_snapshot *parent, uint64_t lsn)
{
    ps_snapshot *made = snapshot_make(own->memory_count + parent->memory_count,
                                      own->part_count + parent->part_count);
    if (made == NULL)
        return NULL;
    for (uint32_t i = 0; i < own->memory_count; i++)
        add_memory(made, &own->memory[i]);
    add_parents_memory(made, parent, lsn);
    for (uint32_t i = 0; i < parent->part_count; i++) {
        ps_part part = parent->parts[i];
        part.upper = least(part.upper, lsn);
        if (part.lower <= part.upper)
            add_part(made, part);
    }
    for (uint32_t i = 0; i < own->part_count; i++) {
        add_part(made, own->parts[i]);
        if (i == 0 && join_last(made) < 0) {
            ps_snapshot_release(made);
            return NULL;
        }
    }
    return finish(made);
}

size_t
ps_snapshot_file_count(const ps_snapshot *snapshot)
{
    size_t count = 0;
    for (uint32_t i = 0; i < snapshot->part_count; i++)
        for (uint32_t f = 0; f < snapshot->parts[i].count; f++)
            count += snapshot->parts[i].group->files[f].lower <= snapshot->parts[i].upper;
    return count;
}

void
ps_snapshot_files(const ps_snapshot *snapshot, ps_layer **files)
{
    for (uint32_t i = snapshot->part_count; i > 0; i--) {
        const ps_part *part = &snapshot->parts[i - 1];
        for (uint32_t f = part->count; f > 0; f--)
            if (part->group->files[f - 1].lower <= part->upper)
                *files++ = part->group->files[f - 1].file;
    }
}
