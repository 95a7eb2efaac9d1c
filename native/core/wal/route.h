/* What the files of ingest share: its state, and the function of each resource manager. */
#ifndef PS_WAL_ROUTE_H
#define PS_WAL_ROUTE_H

#include "wal/decode.h"
#include "wal/format.h"
#include "wal/ingest.h"
#include "wal/reader.h"
#include "wal/sizes.h"

struct ps_ingest {
    ps_wal_reader reader;

    ps_sizes sizes;
    ps_key last_size_key; /* the relation fork whose size was asked for last */
    uint32_t last_size;
    int last_size_known;

    const ps_wal_format *format; /* known once the control values are loaded */
    int control_loaded;
    int counters_changed;
    ps_counters counters; /* next_full_xid exact, as far as known */
    uint64_t told_next_full_xid; /* as last put: rounded up */
    ps_settings settings;

    uint16_t origin; /* the replication origin that advanced last, or 0 */
    uint64_t origin_lsn;

    ps_patch_op *ops; /* the patch being built */
    size_t op_count;
    size_t op_capacity;

    /* During a feed. */
    const ps_meta_source *source;
    uint64_t source_lsn;
    ps_batch *batch;
    size_t batch_start; /* entries that earlier feeds put */
    ps_batch *checks;
    ps_ingest_step *step;
    ps_error *err;
    const ps_wal_decoded *decoded;
    uint64_t lsn; /* the end of the record under way */
};

/* ingest.c: putting values. All return PS_OK or an error with its text set. */
int ps_put(ps_ingest *in, const ps_key *key, uint8_t kind, const void *data, size_t length);
int ps_put_tombstone(ps_ingest *in, const ps_key *key);
int ps_put_zero(ps_ingest *in, const ps_key *key);
/* The value of a key after what this feed put; PS_ERR_NOT_FOUND as the source says it. */
int ps_latest(ps_ingest *in, const ps_key *key, uint8_t *out, size_t capacity, size_t *length);
int ps_ingest_nomem(ps_ingest *in);
/* "WAL record at X/X: <what>", naming the resource manager and its operation. */
int ps_refuse(ps_ingest *in, int code, const char *what);
/* Main data of at least this length, else PS_ERR_CORRUPT. */
int ps_need_main(ps_ingest *in, uint32_t length);

/* relation.c: sizes of relation forks and SLRU segments. */
int ps_get_size(ps_ingest *in, const ps_key *key, uint32_t *size);
int ps_set_size(ps_ingest *in, const ps_key *key, uint32_t size);
int ps_drop_size(ps_ingest *in, const ps_key *key);
void ps_forget_sizes(ps_ingest *in);
/* The live size keys in [low, high), ascending by nothing in particular. free() them. */
int ps_list_sizes(ps_ingest *in, const ps_key *low, const ps_key *high, ps_key **keys,
                  size_t *count);
/* Grows the fork to hold `block`, filling what is skipped; *grew when it was outside before. */
int ps_reach_block(ps_ingest *in, const ps_wal_block *block, int *grew);
int ps_drop_relation(ps_ingest *in, uint32_t spc, uint32_t db, uint32_t rel);

/* slru.c */
int ps_reach_slru_page(ps_ingest *in, enum ps_slru slru, uint32_t page);
int ps_drop_slru(ps_ingest *in, enum ps_slru slru);
int ps_patch_fill(ps_ingest *in, uint32_t offset, uint32_t length, uint8_t mask, uint8_t value);
int ps_patch_bytes(ps_ingest *in, uint32_t offset, const void *bytes, uint32_t length);
/* Puts the patch built so far and begins a new one. */
int ps_patch_put(ps_ingest *in, const ps_key *key);
int ps_set_commit_ts(ps_ingest *in, uint32_t xid, const uint8_t *subxids, uint32_t subxid_count,
                     int64_t time, uint16_t origin);

/* xlog.c: counters and settings. */
int ps_load_control(ps_ingest *in);
void ps_advance_xid(ps_ingest *in, uint32_t xid);
void ps_advance_multi(ps_ingest *in, uint32_t multi, uint32_t offset);
int ps_put_counters(ps_ingest *in);

static inline int
ps_xid_precedes(uint32_t a, uint32_t b)
{
    if (a < 3 || b < 3)
        return a < b;
    return (int32_t)(a - b) < 0;
}

static inline int
ps_multi_precedes(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

/* One a resource manager that has more than block references. */
int ps_route_xlog(ps_ingest *in);
int ps_route_xact(ps_ingest *in);
int ps_route_smgr(ps_ingest *in);
int ps_route_clog(ps_ingest *in);
int ps_route_dbase(ps_ingest *in);
int ps_route_multixact(ps_ingest *in);
int ps_route_tblspc(ps_ingest *in);
int ps_route_relmap(ps_ingest *in);
int ps_route_standby(ps_ingest *in);
int ps_route_heap(ps_ingest *in);
int ps_route_heap2(ps_ingest *in);
int ps_route_commit_ts(ps_ingest *in);
int ps_route_replorigin(ps_ingest *in);
int ps_route_logicalmsg(ps_ingest *in);
int ps_put_rewrite(ps_ingest *in);

#endif
