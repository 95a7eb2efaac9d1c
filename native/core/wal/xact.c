/* The Transaction resource manager: status bits, drops, two-phase state, commit times. */
#include "wal/route.h"

#define OP_COMMIT 0x00
#define OP_PREPARE 0x10
#define OP_ABORT 0x20
#define OP_COMMIT_PREPARED 0x30
#define OP_ABORT_PREPARED 0x40
#define HAS_INFO 0x80u

#define HAS_DBINFO (1u << 0)
#define HAS_SUBXACTS (1u << 1)
#define HAS_RELATIONS (1u << 2)
#define HAS_INVALS (1u << 3)
#define HAS_TWOPHASE (1u << 4)
#define HAS_ORIGIN (1u << 5)
#define HAS_GID (1u << 7)
#define HAS_DROPPED_STATS (1u << 8)

#define STATUS_COMMITTED 1u
#define STATUS_ABORTED 2u

#define XACTS_PER_PAGE 32768u
#define POSTGRES_EPOCH_MICROS (946684800LL * 1000000)

/* xl_xact_prepare */
enum { PREPARE_SUBXACTS = 28, PREPARE_GID_LENGTH = 54, PREPARE_LENGTH = 72, PREPARE_XID = 8 };

typedef struct finished {
    uint32_t xid;
    int64_t time; /* microseconds since 2000 */
    const uint8_t *subxids;
    uint32_t subxid_count;
    const uint8_t *relations; /* spc, db, rel: u32 each */
    uint32_t relation_count;
    int has_origin;
    uint64_t origin_lsn;
    int64_t origin_time;
} finished;

typedef struct cursor {
    const uint8_t *at;
    size_t left;
} cursor;

static const uint8_t *
take(cursor *c, size_t length)
{
    if (c->left < length)
        return NULL;
    const uint8_t *taken = c->at;
    c->at += length;
    c->left -= length;
    return taken;
}

/* An int32 count and that many things of `width` bytes. */
static int
take_array(cursor *c, size_t width, const uint8_t **items, uint32_t *count)
{
    const uint8_t *p = take(c, 4);
    if (p == NULL)
        return PS_ERR_CORRUPT;
    *count = ps_get_le32(p);
    if (*count > INT32_MAX || (*items = take(c, *count * width)) == NULL)
        return PS_ERR_CORRUPT;
    return PS_OK;
}

static int
take_gid(cursor *c)
{
    const uint8_t *end = memchr(c->at, 0, c->left);
    return end != NULL && take(c, (size_t)(end - c->at) + 1) != NULL ? PS_OK : PS_ERR_CORRUPT;
}

static int
parse_parts(cursor *c, uint32_t parts, uint32_t stats_length, finished *f)
{
    const uint8_t *ignored, *p;
    uint32_t count;
    if ((parts & HAS_DBINFO) != 0 && take(c, 8) == NULL)
        return PS_ERR_CORRUPT;
    if ((parts & HAS_SUBXACTS) != 0 && take_array(c, 4, &f->subxids, &f->subxid_count) != PS_OK)
        return PS_ERR_CORRUPT;
    if ((parts & HAS_RELATIONS) != 0 &&
        take_array(c, 12, &f->relations, &f->relation_count) != PS_OK)
        return PS_ERR_CORRUPT;
    if ((parts & HAS_DROPPED_STATS) != 0 && take_array(c, stats_length, &ignored, &count) != PS_OK)
        return PS_ERR_CORRUPT;
    if ((parts & HAS_INVALS) != 0 && take_array(c, 16, &ignored, &count) != PS_OK)
        return PS_ERR_CORRUPT;
    if ((parts & HAS_TWOPHASE) != 0) {
        if ((p = take(c, 4)) == NULL)
            return PS_ERR_CORRUPT;
        f->xid = ps_get_le32(p);
        if ((parts & HAS_GID) != 0 && take_gid(c) != PS_OK)
            return PS_ERR_CORRUPT;
    }
    if ((parts & HAS_ORIGIN) != 0) {
        if ((p = take(c, 16)) == NULL)
            return PS_ERR_CORRUPT;
        f->has_origin = 1;
        f->origin_lsn = ps_get_le64(p);
        f->origin_time = (int64_t)ps_get_le64(p + 8);
    }
    return PS_OK;
}

static int
parse(ps_ingest *in, finished *f)
{
    cursor c = {.at = in->decoded->main, .left = in->decoded->main_length};
    memset(f, 0, sizeof *f);
    f->xid = in->decoded->record.xid;
    const uint8_t *p = take(&c, 8);
    uint32_t parts = 0;
    if (p != NULL) {
        f->time = (int64_t)ps_get_le64(p);
        if ((in->decoded->record.info & HAS_INFO) != 0) {
            p = take(&c, 4);
            parts = p != NULL ? ps_get_le32(p) : 0;
        }
    }
    if (p == NULL || parse_parts(&c, parts, in->format->dropped_stats_length, f) != PS_OK)
        return ps_refuse(in, PS_ERR_CORRUPT, "its parts are longer than the record");
    return PS_OK;
}

/* Two bits a transaction; a patch for each run of xids that share a page. */
static int
set_status(ps_ingest *in, const finished *f, unsigned status)
{
    uint32_t page = f->xid / XACTS_PER_PAGE;
    int rc = ps_reach_slru_page(in, PS_SLRU_XACT, page);
    for (uint32_t i = 0; rc == PS_OK && i <= f->subxid_count; i++) {
        uint32_t xid = i == 0 ? f->xid : ps_get_le32(f->subxids + (size_t)(i - 1) * 4);
        if (xid / XACTS_PER_PAGE != page) {
            ps_key key = ps_key_make(PS_KIND_SLRU_PAGE, PS_SLRU_XACT, 0, 0, 0, page);
            rc = ps_patch_put(in, &key);
            page = xid / XACTS_PER_PAGE;
            if (rc == PS_OK)
                rc = ps_reach_slru_page(in, PS_SLRU_XACT, page);
        }
        unsigned shift = xid % 4 * 2;
        uint32_t at = xid % XACTS_PER_PAGE / 4;
        /* Neighbours share a byte, and then an op. The last is of this page: a put begins anew. */
        ps_patch_op *last = in->op_count > 0 ? &in->ops[in->op_count - 1] : NULL;
        if (rc == PS_OK && last != NULL && last->offset == at) {
            last->mask |= (uint8_t)(3u << shift);
            last->value |= (uint8_t)(status << shift);
        } else if (rc == PS_OK) {
            rc = ps_patch_fill(in, at, 1, (uint8_t)(3u << shift), (uint8_t)(status << shift));
        }
    }
    ps_key key = ps_key_make(PS_KIND_SLRU_PAGE, PS_SLRU_XACT, 0, 0, 0, page);
    return rc != PS_OK ? rc : ps_patch_put(in, &key);
}

/* By its time, for who asks what was there then; and as the last, for who asks whether anything
 * was committed since a position: clocks go back, positions do not. Beside it stands which
 * transactions had begun by then. */
static int
put_commit(ps_ingest *in, int64_t time)
{
    int64_t unix_micros = time + POSTGRES_EPOCH_MICROS;
    if (unix_micros < 0)
        unix_micros = 0;
    ps_key key = ps_key_make(PS_KIND_COMMIT_TIME, (uint32_t)((uint64_t)unix_micros >> 32),
                             (uint32_t)unix_micros, 0, 0, 0);
    int rc = ps_put(in, &key, PS_VALUE_IMAGE, &in->lsn, sizeof in->lsn);
    key = ps_key_make(PS_KIND_LAST_COMMIT, 0, 0, 0, 0, 0);
    uint64_t last[2] = {in->lsn, in->counters.next_full_xid};
    return rc != PS_OK ? rc : ps_put(in, &key, PS_VALUE_IMAGE, last, sizeof last);
}

/* Progress never goes back, unless a record says so by force. */
static int
advance_origin(ps_ingest *in, uint16_t origin, uint64_t remote_lsn, int force)
{
    uint64_t progress[2] = {0, 0};
    size_t length = 0;
    /* No origin, and the mark of what is not to be replicated. */
    if (origin == 0 || origin == UINT16_MAX)
        return PS_OK;
    ps_key key = ps_key_make(PS_KIND_ORIGIN, 0, 0, 0, 0, origin);
    if (in->origin == origin) {
        progress[0] = in->origin_lsn;
    } else {
        int rc = ps_latest(in, &key, (uint8_t *)progress, sizeof progress, &length);
        if (rc != PS_OK && rc != PS_ERR_NOT_FOUND)
            return rc;
        if (rc == PS_ERR_NOT_FOUND || length != sizeof progress)
            progress[0] = 0;
    }
    if (force || progress[0] < remote_lsn)
        progress[0] = remote_lsn;
    in->origin = origin;
    in->origin_lsn = progress[0];
    progress[1] = in->lsn;
    return ps_put(in, &key, PS_VALUE_IMAGE, progress, sizeof progress);
}

int
ps_route_replorigin(ps_ingest *in)
{
    const uint8_t *p = in->decoded->main;
    if ((in->decoded->record.info & 0xF0) == 0x00) {
        int rc = ps_need_main(in, 11);
        return rc != PS_OK ? rc
                           : advance_origin(in, ps_get_le16(p + 8), ps_get_le64(p), p[10] != 0);
    }
    int rc = ps_need_main(in, 2);
    if (rc != PS_OK)
        return rc;
    /* Its number may be given to another, whose progress begins anew. */
    in->origin = 0;
    ps_key key = ps_key_make(PS_KIND_ORIGIN, 0, 0, 0, 0, ps_get_le16(p));
    return ps_put_tombstone(in, &key);
}

static int
finish(ps_ingest *in, int committed, int was_prepared)
{
    finished f;
    int rc = parse(in, &f);
    if (rc != PS_OK)
        return rc;
    ps_advance_xid(in, f.xid);
    for (uint32_t i = 0; i < f.subxid_count; i++)
        ps_advance_xid(in, ps_get_le32(f.subxids + (size_t)i * 4));
    if (f.xid != 0)
        rc = set_status(in, &f, committed ? STATUS_COMMITTED : STATUS_ABORTED);
    if (rc == PS_OK && committed)
        rc = put_commit(in, f.time);
    if (rc == PS_OK && committed && f.xid != 0 && in->settings.track_commit_timestamp)
        rc = ps_set_commit_ts(in, f.xid, f.subxids, f.subxid_count,
                              f.has_origin ? f.origin_time : f.time, in->decoded->origin);
    if (rc == PS_OK && f.has_origin)
        rc = advance_origin(in, in->decoded->origin, f.origin_lsn, 0);
    for (uint32_t i = 0; rc == PS_OK && i < f.relation_count; i++) {
        const uint8_t *r = f.relations + (size_t)i * 12;
        rc = ps_drop_relation(in, ps_get_le32(r), ps_get_le32(r + 4), ps_get_le32(r + 8));
    }
    if (rc == PS_OK && was_prepared) {
        ps_key key = ps_key_make(PS_KIND_TWO_PHASE, 0, 0, 0, 0, f.xid);
        rc = ps_put_tombstone(in, &key);
    }
    return rc;
}

/* The record's main data is what the state file holds, up to its CRC. */
static int
prepare(ps_ingest *in)
{
    int rc = ps_need_main(in, PREPARE_LENGTH);
    if (rc != PS_OK)
        return rc;
    const uint8_t *p = in->decoded->main;
    uint32_t count = ps_get_le32(p + PREPARE_SUBXACTS);
    uint64_t at = PREPARE_LENGTH + ps_align8(ps_get_le16(p + PREPARE_GID_LENGTH));
    if (at + (uint64_t)count * 4 > in->decoded->main_length)
        return ps_refuse(in, PS_ERR_CORRUPT, "its parts are longer than the record");
    for (uint32_t i = 0; i < count; i++)
        ps_advance_xid(in, ps_get_le32(p + at + (size_t)i * 4));
    ps_key key = ps_key_make(PS_KIND_TWO_PHASE, 0, 0, 0, 0, ps_get_le32(p + PREPARE_XID));
    return ps_put(in, &key, PS_VALUE_IMAGE, p, in->decoded->main_length);
}

int
ps_route_xact(ps_ingest *in)
{
    switch (in->decoded->record.info & 0x70) {
    case OP_COMMIT:
        return finish(in, 1, 0);
    case OP_ABORT:
        return finish(in, 0, 0);
    case OP_COMMIT_PREPARED:
        return finish(in, 1, 1);
    case OP_ABORT_PREPARED:
        return finish(in, 0, 1);
    case OP_PREPARE:
        return prepare(in);
    default: /* ASSIGNMENT, INVALIDATIONS: for hot standbys and logical decoding */
        return PS_OK;
    }
}
