/* The vectored read: plan by key order, collect chains, then make all pages at once. */
#include <stdlib.h>

#include "store/page_read.h"

typedef struct keyed {
    ps_key key;
    uint32_t index;
} keyed;

static int
keyed_compare(const void *a, const void *b)
{
    return ps_key_compare(&((const keyed *)a)->key, &((const keyed *)b)->key);
}

/* A sequential request is in order already. */
static int
order_keys(ps_page_read *read, const ps_key *keys, size_t count)
{
    int ascending = 1;
    for (size_t i = 0; i < count; i++) {
        read->order[i] = (uint32_t)i;
        if (i > 0 && ps_key_compare(&keys[i - 1], &keys[i]) > 0)
            ascending = 0;
    }
    if (ascending)
        return PS_OK;
    keyed *sorted = malloc(count * sizeof *sorted);
    if (sorted == NULL)
        return PS_ERR_NOMEM;
    for (size_t i = 0; i < count; i++)
        sorted[i] = (keyed){.key = keys[i], .index = (uint32_t)i};
    qsort(sorted, count, sizeof *sorted, keyed_compare);
    for (size_t i = 0; i < count; i++)
        read->order[i] = sorted[i].index;
    free(sorted);
    return PS_OK;
}

static int
page_fault(int code, const ps_key *key, uint64_t lsn, const char *what, ps_error *err)
{
    return ps_fail(err, code, "block %u of %u/%u/%u fork %u (kind %02X) at LSN %X/%X: %s",
                   ps_key_block(key), ps_key_spc(key), ps_key_db(key), ps_key_rel(key),
                   ps_key_fork(key), ps_key_kind(key), (unsigned)(lsn >> 32), (unsigned)lsn, what);
}

/* The page a chain starts from, in `out`; *changes is how many values come on top of it. */
static int
begin_page(const ps_chain *chain, const ps_key *key, uint64_t lsn, uint8_t *out, uint32_t *changes,
           int *zeros, ps_error *err)
{
    if (chain->count == 0)
        return page_fault(PS_ERR_NOT_FOUND, key, lsn, "it has no value", err);
    if (!chain->complete)
        return page_fault(PS_ERR_NOT_FOUND, key, lsn, "its history has no beginning", err);
    const ps_chain_item *oldest = &chain->items[chain->count - 1];
    if (oldest->kind == PS_VALUE_TOMBSTONE)
        return page_fault(PS_ERR_NOT_FOUND, key, lsn, "it ceased to exist", err);
    *zeros = oldest->kind != PS_VALUE_IMAGE;
    *changes = chain->count;
    if (oldest->kind == PS_VALUE_IMAGE || oldest->kind == PS_VALUE_ZERO)
        *changes -= 1;
    if (*zeros)
        memset(out, 0, PS_PAGE_SIZE);
    return PS_OK;
}

static int
apply_patches(const ps_chain *chain, uint32_t changes, uint8_t *out)
{
    int rc = PS_OK;
    for (uint32_t i = changes; rc == PS_OK && i > 0; i--)
        rc = ps_patch_apply(out, chain->items[i - 1].data, chain->items[i - 1].length);
    return rc;
}

static int
has_record(const ps_chain *chain, uint32_t changes)
{
    for (uint32_t i = 0; i < changes; i++)
        if (chain->items[i].kind == PS_VALUE_RECORD)
            return 1;
    return 0;
}

/* Whether a chain's redo depends on the source's wal_log_hints: Heap2/VISIBLE alone does. */
static int
asks_for_hints(const ps_chain *chain, uint32_t changes)
{
    enum { INFO = 16, RMGR = 17, RM_HEAP2 = 9, VISIBLE = 0x40, OPCODE = 0x70 };
    for (uint32_t i = 0; i < changes; i++) {
        const ps_chain_item *item = &chain->items[i];
        if (item->kind == PS_VALUE_RECORD && item->length > RMGR &&
            item->data[RMGR] == RM_HEAP2 && (item->data[INFO] & OPCODE) == VISIBLE)
            return 1;
    }
    return 0;
}

/* A history without settings has none. */
static int
redo_flags(const ps_snapshot *snapshot, uint64_t lsn, ps_arena *arena, uint8_t *flags,
           ps_error *err)
{
    const ps_key key = ps_key_make(PS_KIND_CONTROL, 0, 0, 0, 0, 1);
    const uint8_t *data;
    uint32_t length;
    ps_settings settings;
    *flags = 0;
    int rc = ps_snapshot_get(snapshot, &key, lsn, arena, &data, &length, err);
    if (rc == PS_ERR_NOT_FOUND)
        return PS_OK;
    if (rc < 0)
        return rc;
    if (length != sizeof settings)
        return ps_fail(err, PS_ERR_CORRUPT, "settings of %u bytes", length);
    memcpy(&settings, data, sizeof settings);
    if (settings.wal_log_hints != 0 || settings.data_checksum_version != 0)
        *flags = PS_REDO_LOG_HINTS;
    return PS_OK;
}

int
ps_page_redo_flags(const ps_snapshot *snapshot, uint64_t lsn, uint8_t *flags, ps_error *err)
{
    ps_arena arena;
    ps_arena_init(&arena);
    int rc = redo_flags(snapshot, lsn, &arena, flags, err);
    ps_arena_free(&arena);
    return rc;
}

static int
make_request(ps_page_read *read, const ps_chain *chain, const ps_key *key, uint32_t changes,
             int zeros, uint8_t *out, ps_redo_request *request, ps_error *err)
{
    ps_redo_item *items = ps_arena_take(&read->arena, changes * sizeof *items);
    if (items == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a chain of %u values", changes);
    for (uint32_t i = 0; i < changes; i++) {
        const ps_chain_item *from = &chain->items[changes - 1 - i];
        items[i] = (ps_redo_item){.lsn = from->lsn,
                                  .kind = from->kind,
                                  .flags = from->flags,
                                  .length = from->length,
                                  .data = from->data};
    }
    *request = (ps_redo_request){
        .key = *key, .base = zeros ? NULL : out, .items = items, .count = changes, .out = out};
    return PS_OK;
}

/* Makes what needs no redo, and a request for each of the others. */
static int
make_pages(ps_page_read *read, const ps_snapshot *snapshot, const ps_key *keys, size_t count,
           uint64_t lsn, uint8_t *const *outs, ps_error *err)
{
    int hints = 0;
    uint8_t flags = 0;
    for (size_t i = 0; i < count; i++) {
        const ps_chain *chain = &read->chains[i];
        uint32_t changes = 0;
        int zeros = 0;
        int rc = begin_page(chain, &keys[i], lsn, outs[i], &changes, &zeros, err);
        if (rc < 0)
            return rc;
        if (!has_record(chain, changes)) {
            if (apply_patches(chain, changes, outs[i]) < 0)
                return page_fault(PS_ERR_CORRUPT, &keys[i], lsn, "a patch leaves the page", err);
        } else if (read->redo == NULL) {
            return page_fault(PS_ERR_NO_POSTGRES, &keys[i], lsn,
                              "it needs redo, by a Postgres that is not installed here", err);
        } else {
            rc = make_request(read, chain, &keys[i], changes, zeros, outs[i],
                              &read->requests[read->request_count++], err);
            if (rc < 0)
                return rc;
            hints |= asks_for_hints(chain, changes);
        }
    }
    int rc = hints ? redo_flags(snapshot, lsn, &read->arena, &flags, err) : PS_OK;
    for (size_t i = 0; i < read->request_count; i++)
        read->requests[i].flags = flags;
    return rc;
}

int
ps_page_read_collect(ps_page_read *read, const ps_snapshot *snapshot, const ps_key *keys,
                     size_t count, uint64_t lsn, uint8_t *const *outs, ps_error *err)
{
    read->order = ps_arena_take(&read->arena, count * sizeof *read->order);
    read->chains = ps_arena_take(&read->arena, count * sizeof *read->chains);
    read->requests = ps_arena_take(&read->arena, count * sizeof *read->requests);
    if (read->order == NULL || read->chains == NULL || read->requests == NULL ||
        order_keys(read, keys, count) < 0)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a read of %zu blocks", count);
    for (size_t i = 0; i < count; i++)
        read->chains[i] = (ps_chain){.arena = &read->arena, .page = outs[i]};
    int rc = ps_snapshot_collect(snapshot, keys, read->order, count, lsn, read->chains, err);
    return rc < 0 ? rc : make_pages(read, snapshot, keys, count, lsn, outs, err);
}

int
ps_page_read_begin_redo(ps_page_read *read, uint64_t wait_ns, ps_error *err)
{
    if (read->request_count == 0)
        return PS_OK;
    return ps_redo_begin(read->redo, read->requests, read->request_count, wait_ns, &read->batch,
                         err);
}

int
ps_page_read_redo(ps_page_read *read, ps_error *err)
{
    if (read->batch != NULL) {
        ps_redo_batch *batch = read->batch;
        read->batch = NULL;
        return ps_redo_finish(batch, err);
    }
    if (read->request_count == 0)
        return PS_OK;
    return ps_redo_apply(read->redo, read->requests, read->request_count, err);
}

void
ps_page_read_init(ps_page_read *read, ps_redo_pool *redo)
{
    *read = (ps_page_read){.redo = redo};
    ps_arena_init(&read->arena);
}

void
ps_page_read_free(ps_page_read *read)
{
    ps_arena_free(&read->arena);
}

int
ps_snapshot_read_pages(const ps_snapshot *snapshot, const ps_key *keys, size_t count, uint64_t lsn,
                       uint8_t *const *outs, ps_redo_pool *redo, ps_error *err)
{
    ps_page_read read;
    int rc = PS_OK;
    ps_page_read_init(&read, redo);
    if (count > UINT32_MAX)
        rc = ps_fail(err, PS_ERR_INVALID, "a read of %zu blocks", count);
    else if (count > 0)
        rc = ps_page_read_collect(&read, snapshot, keys, count, lsn, outs, err);
    if (rc == PS_OK)
        rc = ps_page_read_redo(&read, err);
    ps_page_read_free(&read);
    return rc;
}
