#include "wal/ingest.h"

#include "wal/route.h"

/* Sizes kept from one feed to the next: about 32 bytes each. */
#define KEPT_SIZES 65536

typedef struct rmgr {
    const char *name;
    uint8_t has_blocks;
    int (*route)(ps_ingest *in);
} rmgr;

static const rmgr rmgrs[PS_RMGR_COUNT] = {
    [PS_RMGR_XLOG] = {"XLOG", 1, ps_route_xlog},
    [PS_RMGR_XACT] = {"Transaction", 0, ps_route_xact},
    [PS_RMGR_SMGR] = {"Storage", 0, ps_route_smgr},
    [PS_RMGR_CLOG] = {"CLOG", 0, ps_route_clog},
    [PS_RMGR_DBASE] = {"Database", 0, ps_route_dbase},
    [PS_RMGR_TBLSPC] = {"Tablespace", 0, ps_route_tblspc},
    [PS_RMGR_MULTIXACT] = {"MultiXact", 0, ps_route_multixact},
    [PS_RMGR_RELMAP] = {"RelMap", 0, ps_route_relmap},
    [PS_RMGR_STANDBY] = {"Standby", 0, ps_route_standby},
    [PS_RMGR_HEAP2] = {"Heap2", 1, ps_route_heap2},
    [PS_RMGR_HEAP] = {"Heap", 1, ps_route_heap},
    [PS_RMGR_BTREE] = {"Btree", 1, NULL},
    [PS_RMGR_HASH] = {"Hash", 1, NULL},
    [PS_RMGR_GIN] = {"Gin", 1, NULL},
    [PS_RMGR_GIST] = {"Gist", 1, NULL},
    [PS_RMGR_SEQ] = {"Sequence", 1, NULL},
    [PS_RMGR_SPGIST] = {"SPGist", 1, NULL},
    [PS_RMGR_BRIN] = {"BRIN", 1, NULL},
    [PS_RMGR_COMMIT_TS] = {"CommitTs", 0, ps_route_commit_ts},
    [PS_RMGR_REPLORIGIN] = {"ReplicationOrigin", 0, ps_route_replorigin},
    [PS_RMGR_GENERIC] = {"Generic", 1, NULL},
    [PS_RMGR_LOGICALMSG] = {"LogicalMessage", 0, ps_route_logicalmsg},
};

int
ps_ingest_nomem(ps_ingest *in)
{
    return ps_fail(in->err, PS_ERR_NOMEM, "no memory for the values of WAL record " PS_LSN_FORMAT,
                   PS_LSN_ARGS(in->decoded->record.lsn));
}

int
ps_refuse(ps_ingest *in, int code, const char *what)
{
    const ps_wal_record *r = &in->decoded->record;
    char custom[16];
    const char *name = custom;
    if (r->rmgr < PS_RMGR_COUNT)
        name = rmgrs[r->rmgr].name;
    else
        snprintf(custom, sizeof custom, "number %u", r->rmgr);
    return ps_fail(in->err, code,
                   "WAL record at " PS_LSN_FORMAT " of resource manager %s, info 0x%02X: %s",
                   PS_LSN_ARGS(r->lsn), name, r->info, what);
}

int
ps_need_main(ps_ingest *in, uint32_t length)
{
    if (in->decoded->main_length < length)
        return ps_refuse(in, PS_ERR_CORRUPT, "it is too short for what it says to be");
    return PS_OK;
}

int
ps_put(ps_ingest *in, const ps_key *key, uint8_t kind, const void *data, size_t length)
{
    uint64_t offset;
    int rc = ps_batch_payload(in->batch, data, length, &offset);
    if (rc == PS_OK)
        rc = ps_batch_entry(in->batch, key, kind, 0, in->lsn, offset, (uint32_t)length);
    return rc == PS_OK ? PS_OK : ps_ingest_nomem(in);
}

int
ps_put_tombstone(ps_ingest *in, const ps_key *key)
{
    return ps_put(in, key, PS_VALUE_TOMBSTONE, NULL, 0);
}

int
ps_put_zero(ps_ingest *in, const ps_key *key)
{
    return ps_put(in, key, PS_VALUE_ZERO, NULL, 0);
}

int
ps_latest(ps_ingest *in, const ps_key *key, uint8_t *out, size_t capacity, size_t *length)
{
    /* A walk will do: only copied databases and a change of origin ask. Sizes have a table. */
    for (size_t i = in->batch->count; i > in->batch_start; i--) {
        const ps_entry *entry = &in->batch->entries[i - 1];
        if (ps_key_compare(&entry->key, key) != 0)
            continue;
        if (entry->kind == PS_VALUE_TOMBSTONE || entry->length > capacity)
            return PS_ERR_NOT_FOUND;
        *length = entry->length;
        memcpy(out, in->batch->data + entry->offset, *length);
        return PS_OK;
    }
    return in->source->get(in->source->context, key, in->source_lsn, out, capacity, length,
                           in->err);
}

static int
put_image(ps_ingest *in, ps_batch *batch, const ps_key *key, const ps_wal_block *b)
{
    uint8_t page[PS_PAGE_SIZE];
    uint64_t offset;
    int rc = ps_wal_restore_image(b, in->lsn, page, in->err);
    if (rc != PS_OK)
        return rc;
    rc = ps_batch_payload(batch, page, sizeof page, &offset);
    if (rc == PS_OK)
        rc = ps_batch_entry(batch, key, PS_VALUE_IMAGE, 0, in->lsn, offset, sizeof page);
    return rc == PS_OK ? PS_OK : ps_ingest_nomem(in);
}

/* *payload: where the record lies in the batch, UINT64_MAX before its first use. */
static int
put_record(ps_ingest *in, const ps_key *key, uint8_t flags, uint64_t *payload)
{
    const ps_wal_record *r = &in->decoded->record;
    int rc = PS_OK;
    if (*payload == UINT64_MAX)
        rc = ps_batch_payload(in->batch, r->data, r->length, payload);
    if (rc == PS_OK)
        rc = ps_batch_entry(in->batch, key, PS_VALUE_RECORD, flags, in->lsn, *payload, r->length);
    return rc == PS_OK ? PS_OK : ps_ingest_nomem(in);
}

static int
route_blocks(ps_ingest *in)
{
    uint64_t payload = UINT64_MAX;
    for (unsigned i = 0; i < in->decoded->block_count; i++) {
        const ps_wal_block *b = &in->decoded->blocks[i];
        int grew = 0;
        int is_image = ps_wal_applies(b);
        if (in->decoded->record.rmgr == PS_RMGR_XLOG) {
            if (!b->has_image) /* a hint-bit record with full_page_writes off says nothing */
                continue;
            is_image = 1;
        }
        if (b->fork > PS_FORK_INIT)
            return ps_refuse(in, PS_ERR_CORRUPT, "it names a fork that Postgres does not have");
        int rc = ps_reach_block(in, b, &grew);
        if (rc != PS_OK)
            return rc;
        ps_key key = ps_key_make(PS_KIND_REL_BLOCK, b->spc, b->db, b->rel, b->fork, b->block);
        if (is_image)
            rc = put_image(in, in->batch, &key, b);
        else
            rc = put_record(in, &key, b->will_init || grew ? PS_WILL_INIT : 0, &payload);
        if (rc == PS_OK && b->has_image && !is_image && in->checks != NULL)
            rc = put_image(in, in->checks, &key, b);
        if (rc != PS_OK)
            return rc;
    }
    return PS_OK;
}

static int
route(ps_ingest *in)
{
    const ps_wal_record *r = &in->decoded->record;
    if (r->rmgr >= PS_RMGR_FIRST_CUSTOM)
        return ps_refuse(in, PS_ERR_UNSUPPORTED, "records of custom resource managers are refused");
    if (r->rmgr >= PS_RMGR_COUNT)
        return ps_refuse(in, PS_ERR_UNSUPPORTED, "Postgres has no such resource manager");
    const rmgr *manager = &rmgrs[r->rmgr];
    if ((in->format->operations[r->rmgr] >> (r->info >> 4) & 1) == 0)
        return ps_refuse(in, PS_ERR_UNSUPPORTED, "its major has no such operation");
    if (!manager->has_blocks && in->decoded->block_count > 0)
        return ps_refuse(in, PS_ERR_CORRUPT, "it refers to blocks, which it should not");
    /* Any record may be the first to show an id; the counters are put once, at the end. */
    ps_advance_xid(in, r->xid);
    int rc = manager->route != NULL ? manager->route(in) : PS_OK;
    if (rc == PS_OK && in->decoded->block_count > 0)
        rc = route_blocks(in);
    if (rc == PS_OK && in->counters_changed)
        rc = ps_put_counters(in);
    return rc;
}

static int
take_record(ps_ingest *in, const ps_wal_record *record)
{
    ps_wal_decoded decoded;
    ps_batch *batch = in->batch, *checks = in->checks;
    size_t count = batch->count, length = batch->data_length;
    size_t check_count = checks != NULL ? checks->count : 0;
    size_t check_length = checks != NULL ? checks->data_length : 0;
    int rc = ps_wal_decode(record, &decoded, in->err);
    if (rc == PS_OK) {
        in->decoded = &decoded;
        in->lsn = record->end_lsn;
        /* A record that failed may have left half a patch. */
        in->op_count = 0;
        rc = route(in);
        in->decoded = NULL;
    }
    if (rc == PS_OK) {
        in->step->records++;
        return PS_OK;
    }
    /* What a record puts stands at the end: cutting there takes back this record and no other. */
    batch->count = count;
    batch->data_length = length;
    if (checks != NULL) {
        checks->count = check_count;
        checks->data_length = check_length;
    }
    in->step->has_clone = 0;
    return rc;
}

/* What is remembered beyond the source may belong to a record that failed: ask again. */
static void
forget(ps_ingest *in)
{
    ps_forget_sizes(in);
    in->control_loaded = 0;
    in->origin = 0;
}

static void
begin_feed(ps_ingest *in)
{
    /* Only between feeds: during one, nobody else knows what it changed. */
    if (in->sizes.count > KEPT_SIZES)
        ps_forget_sizes(in);
    /* Around 2^32: 0 says "never changed", and old numbers would come again. */
    if (++in->sizes.feed == 0) {
        ps_forget_sizes(in);
        in->sizes.feed = 1;
    }
}

static int
feed(ps_ingest *in, const uint8_t *chunk, size_t length)
{
    const uint8_t *cursor = chunk;
    int rc = PS_OK;
    if (!in->control_loaded)
        rc = ps_load_control(in);
    while (rc == PS_OK && !in->step->has_clone) {
        uint64_t end = in->reader.end_lsn, prev = in->reader.prev_lsn;
        ps_wal_record record;
        rc = ps_wal_reader_next(&in->reader, &cursor, chunk + length, &record, in->err);
        if (rc != PS_OK)
            break;
        rc = take_record(in, &record);
        /* The reader counts it as given already; after a failure it must be given again. */
        if (rc != PS_OK)
            ps_wal_reader_rewind(&in->reader, end, prev);
    }
    in->step->consumed = (size_t)(cursor - chunk);
    return rc == PS_WAL_MORE ? PS_OK : rc;
}

int
ps_ingest_feed(ps_ingest *in, const uint8_t *chunk, size_t length, const ps_meta_source *source,
               ps_batch *batch, ps_batch *checks, ps_ingest_step *step, ps_error *err)
{
    ps_error ignored;
    memset(step, 0, sizeof *step);
    begin_feed(in);
    in->source = source;
    in->source_lsn = in->reader.end_lsn;
    in->batch = batch;
    in->batch_start = batch->count;
    in->checks = checks;
    in->step = step;
    in->err = err != NULL ? err : &ignored;
    int rc = feed(in, chunk, length);
    if (rc != PS_OK) {
        /* Half a record of an earlier feed may be under way: it comes again from its start. */
        ps_wal_reader_rewind(&in->reader, in->reader.end_lsn, in->reader.prev_lsn);
        forget(in);
    } else if (step->has_clone) {
        forget(in);
    }
    in->source = NULL;
    in->batch = in->checks = NULL;
    in->step = NULL;
    in->err = NULL;
    return rc;
}

int
ps_ingest_new(uint64_t start_lsn, uint64_t prev_record_lsn, ps_ingest **out, ps_error *err)
{
    ps_ingest *in = calloc(1, sizeof *in);
    if (in == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "no memory for an ingestor");
    int rc = ps_wal_reader_init(&in->reader, start_lsn, prev_record_lsn, err);
    if (rc != PS_OK) {
        free(in);
        return rc;
    }
    *out = in;
    return PS_OK;
}

void
ps_ingest_free(ps_ingest *in)
{
    if (in == NULL)
        return;
    ps_wal_reader_free(&in->reader);
    ps_sizes_free(&in->sizes);
    free(in->ops);
    free(in);
}

ps_ingest_position
ps_ingest_where(const ps_ingest *in)
{
    return (ps_ingest_position){.next_lsn = in->reader.lsn,
                                .last_record_lsn = in->reader.end_lsn,
                                .prev_record_lsn = in->reader.prev_lsn};
}
