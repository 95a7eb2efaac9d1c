#include "store/compacting.h"

#include <stdlib.h>

/* So many values are put out between two looks at whether to go on. */
#define STRIDE 256u
/* A key is cut in two only where a file has become so many times as long as it should be. */
#define LONGEST 2u

static int
take_layers(ps_compaction *work, ps_layer *const *layers, size_t count, ps_error *err)
{
    work->layers = calloc(count + 1, sizeof(ps_layer *));
    if (work->layers == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for %zu layers", count);
    work->first_lsn = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        const ps_layer_summary *known = ps_layer_known(layers[i]);
        if (known->kind != PS_LAYER_DELTA && work->options.image_lsn == 0)
            return ps_fail(err, PS_ERR_INVALID, "%s: not a delta layer", ps_layer_path(layers[i]));
        work->layers[work->count++] = ps_layer_retain(layers[i]);
        if (known->first_lsn < work->first_lsn)
            work->first_lsn = known->first_lsn;
        if (known->last_lsn > work->last_lsn)
            work->last_lsn = known->last_lsn;
        work->total_bytes += known->bytes;
        work->total_values += known->entries;
    }
    return PS_OK;
}

/* Below a tombstone of the inputs is all that is not one of them. */
static int
open_sieve(ps_compaction *work, const ps_kept *kept, ps_error *err)
{
    ps_source *inputs = calloc(work->count + 1, sizeof *inputs);
    if (inputs == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for %zu layers", work->count);
    for (size_t i = 0; i < work->count; i++)
        inputs[i] = ps_source_of_file(work->layers[i]);
    ps_snapshot *below = ps_snapshot_replace(work->snapshot, inputs, work->count, NULL, 0);
    free(inputs);
    if (below == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a snapshot");
    int rc = ps_sieve_init(&work->sieve, kept, work->snapshot, below, err);
    ps_snapshot_release(below);
    return rc;
}

int
ps_compaction_open(ps_compaction **work, ps_layer *const *layers, size_t count,
                   const ps_snapshot *snapshot, ps_redo_pool *redo,
                   const ps_compaction_options *options, ps_error *err)
{
    *work = NULL;
    ps_compaction *made = calloc(1, sizeof *made);
    if (made == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a compaction");
    made->options = *options;
    made->options.kept = (ps_kept){0};
    made->options.uppers = NULL;
    made->redo = redo;
    made->next_low = options->low;
    made->snapshot = ps_snapshot_retain(snapshot);
    ps_arena_init(&made->arena);
    ps_history_init(&made->history, made->snapshot, redo, &options->bounds,
                    &made->pace);
    int rc = take_layers(made, layers, count, err);
    if (rc == PS_OK)
        rc = open_sieve(made, &options->kept, err);
    if (rc == PS_OK)
        rc = ps_inputs_open(&made->inputs, made->layers, options->uppers, made->count,
                            &made->next_low, err);
    if (rc < 0)
        ps_compaction_free(made);
    else
        *work = made;
    return rc;
}

void
ps_compaction_free(ps_compaction *work)
{
    if (work == NULL)
        return;
    ps_inputs_close(&work->inputs);
    ps_history_free(&work->history);
    ps_arena_free(&work->arena);
    ps_sieve_free(&work->sieve);
    for (size_t i = 0; i < work->count; i++)
        ps_layer_release(work->layers[i]);
    free(work->layers);
    free(work->ahead);
    ps_snapshot_release(work->snapshot);
    free(work);
}

void
ps_compaction_pause(ps_compaction *work, int paused)
{
    ps_pace_pause(&work->pace, paused);
}

void
ps_compaction_cancel(ps_compaction *work)
{
    ps_pace_cancel(&work->pace);
}

ps_compaction_stats
ps_compaction_read_stats(const ps_compaction *work)
{
    ps_compaction_stats stats = work->stats;
    double part = work->total_values == 0 ? 1 : (double)work->taken / (double)work->total_values;
    stats.bytes_read = (uint64_t)(part * (double)work->total_bytes);
    stats.images += work->history.made;
    stats.refused += work->history.refused;
    return stats;
}

ps_passing *
ps_compaction_add(ps_compaction *work, ps_error *err)
{
    if (work->ahead_count == work->ahead_capacity) {
        size_t grown = work->ahead_capacity == 0 ? 64 : work->ahead_capacity * 2;
        ps_passing *ahead = realloc(work->ahead, grown * sizeof *ahead);
        if (ahead == NULL) {
            ps_fail(err, PS_ERR_NOMEM, "out of memory for a compaction");
            return NULL;
        }
        work->ahead = ahead;
        work->ahead_capacity = grown;
    }
    return &work->ahead[work->ahead_count++];
}

static int
fill(ps_compaction *work, const char *path, ps_error *err)
{
    ps_arena_free(&work->arena);
    work->ahead_count = work->ahead_at = 0;
    if (work->options.image_lsn != 0)
        return ps_images_fill(work, err);
    return ps_merge_fill(work, path, err);
}

/* The next value to be put out: of a page that was gone through, its images in front of what they
 * stand for. NULL at the end. */
static int
next(ps_compaction *work, const char *path, const ps_passing **value, ps_error *err)
{
    *value = NULL;
    int rc = work->ahead_at < work->ahead_count ? PS_OK : fill(work, path, err);
    if (rc < 0 || work->ahead_count == 0)
        return rc;
    const ps_passing *found = &work->ahead[work->ahead_at];
    if (work->surveyed && ps_key_compare(&found->key, &work->surveyed_key) == 0) {
        uint64_t lsn;
        rc = ps_history_take(&work->history, found->lsn, &lsn, work->page, err);
        if (rc < 0)
            return rc;
        if (lsn != 0) {
            work->image = (ps_passing){.key = found->key,
                                       .lsn = lsn,
                                       .kind = PS_VALUE_IMAGE,
                                       .length = PS_PAGE_SIZE,
                                       .data = work->page};
            *value = &work->image;
            return PS_OK;
        }
    }
    work->ahead_at++;
    *value = found;
    return PS_OK;
}

/* The same, without what is dead by what came before it. */
static int
next_alive(ps_compaction *work, const char *path, const ps_passing **value, ps_error *err)
{
    for (;;) {
        int rc = next(work, path, value, err);
        const ps_passing *found = *value;
        if (rc < 0 || found == NULL || ps_sieve_is_idle(&work->sieve))
            return rc;
        rc = ps_sieve_is_dead(&work->sieve, &found->key, found->lsn, found->kind, found->flags,
                              err);
        if (rc <= 0)
            return rc;
        work->stats.dead++;
        if (work->stats.dead % STRIDE == 0 && (rc = ps_pace_go_on(&work->pace, err)) < 0)
            return rc;
    }
}

/* The one that waits comes out, unless it is dead. */
static int
release(ps_compaction *work, const ps_passing *behind, const ps_passing **value, ps_error *err)
{
    int dead = ps_sieve_decide(&work->sieve, behind, err);
    if (dead < 0)
        return dead;
    if (dead) {
        work->stats.dead++;
        return PS_OK;
    }
    work->released = work->sieve.waiting;
    memcpy(work->released_data, work->sieve.payload, sizeof work->released_data);
    work->released.data = work->released_data;
    *value = &work->released;
    return PS_OK;
}

/* The next value that is needed. */
static int
next_needed(ps_compaction *work, const char *path, const ps_passing **value, ps_error *err)
{
    *value = work->held;
    work->held = NULL;
    if (*value == NULL) {
        *value = work->behind;
        work->behind = NULL;
    }
    while (*value == NULL) {
        const ps_passing *found;
        int waited = work->sieve.waits;
        int rc = next_alive(work, path, &found, err);
        if (rc == PS_OK && waited)
            rc = release(work, found, value, err);
        if (rc < 0 || found == NULL)
            return rc;
        if (ps_sieve_must_wait(&work->sieve, found))
            ps_sieve_wait(&work->sieve, found);
        else if (*value == NULL)
            *value = found;
        else
            work->behind = found;
    }
    return PS_OK;
}

/* Where a file of so many bytes may end, before a value. Values of one key and LSN stay together,
 * since their order is nowhere but in the file. */
static int
ends_before(const ps_compaction *work, uint64_t bytes, const ps_passing *last,
            const ps_passing *value)
{
    if (bytes < work->options.file_bytes)
        return 0;
    if (ps_key_compare(&last->key, &value->key) != 0)
        return 1;
    return bytes >= LONGEST * work->options.file_bytes && last->lsn != value->lsn;
}

static int
put(ps_compaction *work, ps_layer_writer *writer, const ps_passing *value, ps_error *err)
{
    work->stats.values++;
    return ps_layer_writer_add(writer, &value->key, value->lsn, value->kind, value->flags,
                               value->data, value->length, err);
}

/* Puts values into a file until it is to end; *ended is 0 if that is because there are none. */
static int
put_values(ps_compaction *work, ps_layer_writer *writer, const char *path, ps_passing *last,
           int *ended, ps_error *err)
{
    int rc = PS_OK;
    *ended = 0;
    for (uint32_t done = 0;; done++) {
        const ps_passing *value;
        if (done % STRIDE == 0)
            rc = ps_pace_go_on(&work->pace, err);
        if (rc == PS_OK)
            rc = next_needed(work, path, &value, err);
        if (rc < 0 || value == NULL)
            return rc;
        if (done > 0 && ends_before(work, ps_layer_writer_bytes(writer), last, value)) {
            work->held = value;
            *ended = 1;
            return PS_OK;
        }
        rc = put(work, writer, value, err);
        if (rc < 0)
            return rc;
        *last = *value; /* for its key and LSN: the payload goes */
    }
}

static ps_key
behind(const ps_key *key)
{
    ps_key next_key = *key;
    for (size_t i = PS_KEY_LEN; i > 0 && ++next_key.b[i - 1] == 0; i--)
        continue;
    return next_key;
}

/* What the file says that it stands for. */
static void
cover(ps_compaction *work, ps_layer_writer *writer, const ps_passing *last, int is_last)
{
    if (work->options.image_lsn == 0) {
        /* Of all files of a merge alike: so it is seen that they are one. */
        ps_layer_writer_cover(writer, &last->key, &last->key, work->first_lsn, work->last_lsn);
        return;
    }
    ps_key greatest = last->key;
    if (is_last)
        memset(greatest.b, 0xFF, sizeof greatest.b);
    ps_layer_writer_cover(writer, &work->next_low, &greatest, work->options.image_lsn,
                          work->options.image_lsn);
    work->next_low = behind(&greatest);
}

static int
write_file(ps_compaction *work, ps_layer_writer *writer, const char *path,
           ps_layer_summary *summary, int *written, ps_error *err)
{
    ps_passing last = {0};
    int ended;
    int rc = put_values(work, writer, path, &last, &ended, err);
    *written = rc == PS_OK && last.lsn != 0;
    if (!*written)
        return rc;
    cover(work, writer, &last, !ended);
    return ps_layer_writer_finish(writer, summary, err);
}

int
ps_compaction_write(ps_compaction *work, const char *path, const ps_layer_id *id, int level,
                    ps_layer_summary *summary, int *written, ps_error *err)
{
    uint8_t kind = work->options.image_lsn == 0 ? PS_LAYER_DELTA : PS_LAYER_IMAGE;
    ps_layer_writer *writer;
    *written = 0;
    int rc = ps_layer_writer_make(&writer, path, id, kind, level, err);
    if (rc == PS_OK)
        rc = write_file(work, writer, path, summary, written, err);
    ps_layer_writer_free(writer);
    return rc;
}
