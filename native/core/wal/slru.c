/* CLOG, MultiXact and CommitTs: pages of the SLRUs, changed by patches. */
#include "wal/route.h"

#define PAGES_PER_SEGMENT 32
#define CLOG_XACTS_PER_PAGE 32768u
#define COMMIT_TS_ENTRY 10u
#define COMMIT_TS_XACTS_PER_PAGE (PS_PAGE_SIZE / COMMIT_TS_ENTRY)
#define MULTI_OFFSETS_PER_PAGE (PS_PAGE_SIZE / 4)
#define MEMBER_GROUP 20u /* bytes: four flag bytes, then four xids */
#define MEMBERS_PER_PAGE (PS_PAGE_SIZE / MEMBER_GROUP * 4)
#define MAX_MEMBER_SEGMENT (UINT32_MAX / MEMBERS_PER_PAGE / PAGES_PER_SEGMENT)

static ps_key
page_key(enum ps_slru slru, uint32_t page)
{
    return ps_key_make(PS_KIND_SLRU_PAGE, slru, 0, 0, 0, page);
}

static ps_key
segment_key(enum ps_slru slru, uint32_t segment)
{
    return ps_key_make(PS_KIND_SLRU_SIZE, slru, 0, 0, 0, segment);
}

/* Makes the page exist: fills its segment with zeros up to it. *created: it did not before. */
static int
reach(ps_ingest *in, enum ps_slru slru, uint32_t page, int *created)
{
    ps_key segment = segment_key(slru, page / PAGES_PER_SEGMENT);
    uint32_t first = page - page % PAGES_PER_SEGMENT;
    uint32_t size;
    int rc = ps_get_size(in, &segment, &size);
    if (rc != PS_OK)
        return rc;
    if (size == PS_SIZE_ABSENT)
        size = 0;
    *created = page - first >= size;
    if (!*created)
        return PS_OK;
    rc = ps_set_size(in, &segment, page - first + 1);
    for (uint32_t at = first + size; rc == PS_OK && at <= page; at++) {
        ps_key key = page_key(slru, at);
        rc = ps_put_zero(in, &key);
    }
    return rc;
}

int
ps_reach_slru_page(ps_ingest *in, enum ps_slru slru, uint32_t page)
{
    int created;
    return reach(in, slru, page, &created);
}

static int
drop_segments(ps_ingest *in, enum ps_slru slru, int (*drops)(uint32_t segment, uint32_t arg),
              uint32_t arg)
{
    ps_key low = segment_key(slru, 0);
    ps_key high = segment_key(slru + 1, 0);
    ps_key *keys;
    size_t count;
    int rc = ps_list_sizes(in, &low, &high, &keys, &count);
    if (rc != PS_OK)
        return rc;
    for (size_t i = 0; rc == PS_OK && i < count; i++)
        if (drops(ps_key_block(&keys[i]), arg))
            rc = ps_drop_size(in, &keys[i]);
    free(keys);
    return rc;
}

static int
any(uint32_t segment, uint32_t arg)
{
    (void)segment;
    (void)arg;
    return 1;
}

int
ps_drop_slru(ps_ingest *in, enum ps_slru slru)
{
    return drop_segments(in, slru, any, 0);
}

/*
 * Whether a whole segment lies before a cutoff page, on the circle of 2^32 ids: each of its
 * ends must lie before the page's first and before its last id.
 */
static int
page_precedes(uint32_t page, uint32_t cutoff, uint32_t per_page, uint32_t first_id,
              int (*precedes)(uint32_t, uint32_t))
{
    uint32_t a = page * per_page + first_id + 1;
    uint32_t b = cutoff * per_page + first_id + 1;
    return precedes(a, b) && precedes(a, b + per_page - 1);
}

static int
segment_precedes(uint32_t segment, uint32_t cutoff, uint32_t per_page, uint32_t first_id,
                 int (*precedes)(uint32_t, uint32_t))
{
    uint32_t first = segment * PAGES_PER_SEGMENT;
    return page_precedes(first, cutoff, per_page, first_id, precedes) &&
           page_precedes(first + PAGES_PER_SEGMENT - 1, cutoff, per_page, first_id, precedes);
}

static int
xid_precedes(uint32_t a, uint32_t b)
{
    return ps_xid_precedes(a, b);
}

static int
multi_precedes(uint32_t a, uint32_t b)
{
    return ps_multi_precedes(a, b);
}

static int
clog_segment_is_old(uint32_t segment, uint32_t cutoff)
{
    return segment_precedes(segment, cutoff, CLOG_XACTS_PER_PAGE, 3, xid_precedes);
}

static int
commit_ts_segment_is_old(uint32_t segment, uint32_t cutoff)
{
    return segment_precedes(segment, cutoff, COMMIT_TS_XACTS_PER_PAGE, 3, xid_precedes);
}

static int
offsets_segment_is_old(uint32_t segment, uint32_t cutoff)
{
    return segment_precedes(segment, cutoff, MULTI_OFFSETS_PER_PAGE, 1, multi_precedes);
}

/* The page number that a record begins with, and what follows it. */
static int
take_page(ps_ingest *in, uint32_t following, uint32_t *page, const uint8_t **rest)
{
    uint32_t length = in->format->slru_page_length;
    int rc = ps_need_main(in, length + following);
    if (rc != PS_OK)
        return rc;
    const uint8_t *p = in->decoded->main;
    if (length == 8 && ps_get_le32(p + 4) != 0)
        return ps_refuse(in, PS_ERR_CORRUPT, "it names a page beyond all of its SLRU");
    *page = ps_get_le32(p);
    *rest = p + length;
    return PS_OK;
}

/* A page of zeros, whether it existed or not. */
static int
zero_page(ps_ingest *in, enum ps_slru slru)
{
    int created;
    uint32_t page;
    const uint8_t *rest;
    int rc = take_page(in, 0, &page, &rest);
    if (rc != PS_OK)
        return rc;
    rc = reach(in, slru, page, &created);
    if (rc != PS_OK || created)
        return rc;
    /*
     * A page of multixact offsets that exists was made by the CREATE_ID of the id before its
     * first, which wrote into it: such a page is only asked for again by a server of an older
     * minor version, or by one that restarted in between. What it holds stays.
     */
    if (slru == PS_SLRU_MULTIXACT_OFFSETS)
        return PS_OK;
    ps_key key = page_key(slru, page);
    return ps_put_zero(in, &key);
}

int
ps_route_clog(ps_ingest *in)
{
    if ((in->decoded->record.info & 0xF0) == 0x00)
        return zero_page(in, PS_SLRU_XACT);
    uint32_t page;
    const uint8_t *rest;
    int rc = take_page(in, 8, &page, &rest);
    if (rc != PS_OK)
        return rc;
    uint32_t oldest = ps_get_le32(rest);
    if (ps_xid_precedes(in->counters.oldest_xid, oldest)) {
        in->counters.oldest_xid = oldest;
        in->counters.oldest_xid_db = ps_get_le32(rest + 4);
        in->counters_changed = 1;
    }
    return drop_segments(in, PS_SLRU_XACT, clog_segment_is_old, page);
}

int
ps_route_commit_ts(ps_ingest *in)
{
    if ((in->decoded->record.info & 0xF0) == 0x00)
        return zero_page(in, PS_SLRU_COMMIT_TS);
    uint32_t page;
    const uint8_t *rest;
    int rc = take_page(in, 4, &page, &rest);
    if (rc != PS_OK)
        return rc;
    uint32_t oldest = ps_get_le32(rest);
    if (in->counters.oldest_commit_ts_xid != 0 &&
        ps_xid_precedes(in->counters.oldest_commit_ts_xid, oldest)) {
        in->counters.oldest_commit_ts_xid = oldest;
        in->counters_changed = 1;
    }
    return drop_segments(in, PS_SLRU_COMMIT_TS, commit_ts_segment_is_old, page);
}

int
ps_patch_fill(ps_ingest *in, uint32_t offset, uint32_t length, uint8_t mask, uint8_t value)
{
    if (in->op_count == in->op_capacity) {
        size_t grown = in->op_capacity ? in->op_capacity * 2 : 64;
        ps_patch_op *moved = realloc(in->ops, grown * sizeof *moved);
        if (moved == NULL)
            return ps_ingest_nomem(in);
        in->ops = moved;
        in->op_capacity = grown;
    }
    in->ops[in->op_count++] = (ps_patch_op){.offset = (uint16_t)offset,
                                            .length = (uint16_t)length,
                                            .mask = mask,
                                            .value = value};
    return PS_OK;
}

int
ps_patch_bytes(ps_ingest *in, uint32_t offset, const void *bytes, uint32_t length)
{
    const uint8_t *p = bytes;
    for (uint32_t i = 0, run; i < length; i += run) {
        for (run = 1; i + run < length && p[i + run] == p[i]; run++)
            ;
        int rc = ps_patch_fill(in, offset + i, run, 0xFF, p[i]);
        if (rc != PS_OK)
            return rc;
    }
    return PS_OK;
}

int
ps_patch_put(ps_ingest *in, const ps_key *key)
{
    size_t length = in->op_count * sizeof *in->ops;
    in->op_count = 0;
    return ps_put(in, key, PS_VALUE_PATCH, in->ops, length);
}

static int
set_offset(ps_ingest *in, uint32_t multi, uint32_t offset)
{
    uint32_t page = multi / MULTI_OFFSETS_PER_PAGE;
    int rc = ps_reach_slru_page(in, PS_SLRU_MULTIXACT_OFFSETS, page);
    if (rc != PS_OK)
        return rc;
    rc = ps_patch_bytes(in, multi % MULTI_OFFSETS_PER_PAGE * 4, &offset, sizeof offset);
    ps_key key = page_key(PS_SLRU_MULTIXACT_OFFSETS, page);
    return rc != PS_OK ? rc : ps_patch_put(in, &key);
}

/* `members`: pairs of u32 xid, u32 status; consecutive places from `offset` on, around 2^32. */
static int
set_members(ps_ingest *in, uint32_t offset, const uint8_t *members, uint32_t count)
{
    for (uint32_t i = 0; i < count;) {
        uint32_t page = (offset + i) / MEMBERS_PER_PAGE;
        int rc = ps_reach_slru_page(in, PS_SLRU_MULTIXACT_MEMBERS, page);
        for (; rc == PS_OK && i < count && (offset + i) / MEMBERS_PER_PAGE == page; i++) {
            uint32_t place = (offset + i) % MEMBERS_PER_PAGE;
            uint32_t group = place / 4 * MEMBER_GROUP;
            rc = ps_patch_bytes(in, group + 4 + place % 4 * 4, members + (size_t)i * 8, 4);
            if (rc == PS_OK)
                rc = ps_patch_fill(in, group + place % 4, 1, 0xFF, members[(size_t)i * 8 + 4]);
        }
        ps_key key = page_key(PS_SLRU_MULTIXACT_MEMBERS, page);
        if (rc == PS_OK)
            rc = ps_patch_put(in, &key);
        if (rc != PS_OK)
            return rc;
    }
    return PS_OK;
}

static int
create_multi(ps_ingest *in)
{
    int rc = ps_need_main(in, 12);
    if (rc != PS_OK)
        return rc;
    const uint8_t *p = in->decoded->main;
    uint32_t multi = ps_get_le32(p), offset = ps_get_le32(p + 4), count = ps_get_le32(p + 8);
    if (count > (in->decoded->main_length - 12) / 8)
        return ps_refuse(in, PS_ERR_CORRUPT, "it is too short for its members");
    /* The next id's offset tells how many members this one has. 0 is neither id nor offset. */
    uint32_t following = multi + 1 == 0 ? 1 : multi + 1;
    uint32_t behind = offset + count == 0 ? 1 : offset + count;
    rc = set_offset(in, multi, offset);
    if (rc == PS_OK)
        rc = set_offset(in, following, behind);
    if (rc == PS_OK)
        rc = set_members(in, offset, p + 12, count);
    if (rc != PS_OK)
        return rc;
    ps_advance_multi(in, multi + 1, offset + count);
    for (uint32_t i = 0; i < count; i++)
        ps_advance_xid(in, ps_get_le32(p + 12 + (size_t)i * 8));
    return PS_OK;
}

static int
truncate_multis(ps_ingest *in)
{
    int rc = ps_need_main(in, 20);
    if (rc != PS_OK)
        return rc;
    const uint8_t *p = in->decoded->main;
    uint32_t oldest = ps_get_le32(p + 8);
    uint32_t segment = ps_get_le32(p + 12) / MEMBERS_PER_PAGE / PAGES_PER_SEGMENT;
    uint32_t last = ps_get_le32(p + 16) / MEMBERS_PER_PAGE / PAGES_PER_SEGMENT;
    in->counters.oldest_multi = oldest;
    in->counters.oldest_multi_db = ps_get_le32(p);
    in->counters_changed = 1;
    /* Ends: both lie on the circle up to MAX_MEMBER_SEGMENT. */
    while (rc == PS_OK && segment != last) {
        ps_key key = segment_key(PS_SLRU_MULTIXACT_MEMBERS, segment);
        uint32_t size;
        rc = ps_get_size(in, &key, &size);
        if (rc == PS_OK && size != PS_SIZE_ABSENT)
            rc = ps_drop_size(in, &key);
        segment = segment == MAX_MEMBER_SEGMENT ? 0 : segment + 1;
    }
    /* One id back, as Postgres: if none is newer, the oldest's own page may not be there yet. */
    uint32_t before = oldest == 1 ? UINT32_MAX : oldest - 1;
    if (rc == PS_OK)
        rc = drop_segments(in, PS_SLRU_MULTIXACT_OFFSETS, offsets_segment_is_old,
                           before / MULTI_OFFSETS_PER_PAGE);
    return rc;
}

int
ps_route_multixact(ps_ingest *in)
{
    switch (in->decoded->record.info & 0xF0) {
    case 0x00:
        return zero_page(in, PS_SLRU_MULTIXACT_OFFSETS);
    case 0x10:
        return zero_page(in, PS_SLRU_MULTIXACT_MEMBERS);
    case 0x20:
        return create_multi(in);
    default:
        return truncate_multis(in);
    }
}

/* The transaction itself, then its subtransactions. */
static uint32_t
xid_at(uint32_t xid, const uint8_t *subxids, uint32_t i)
{
    return i == 0 ? xid : ps_get_le32(subxids + (size_t)(i - 1) * 4);
}

int
ps_set_commit_ts(ps_ingest *in, uint32_t xid, const uint8_t *subxids, uint32_t subxid_count,
                 int64_t time, uint16_t origin)
{
    uint8_t entry[COMMIT_TS_ENTRY];
    memcpy(entry, &time, 8);
    memcpy(entry + 8, &origin, 2);
    uint32_t newest = xid;
    for (uint32_t i = 0; i <= subxid_count;) {
        uint32_t page = xid_at(xid, subxids, i) / COMMIT_TS_XACTS_PER_PAGE;
        int rc = ps_reach_slru_page(in, PS_SLRU_COMMIT_TS, page);
        for (; rc == PS_OK && i <= subxid_count; i++) {
            uint32_t id = xid_at(xid, subxids, i);
            if (id / COMMIT_TS_XACTS_PER_PAGE != page)
                break;
            rc = ps_patch_bytes(in, id % COMMIT_TS_XACTS_PER_PAGE * COMMIT_TS_ENTRY, entry,
                                sizeof entry);
            newest = id;
        }
        ps_key key = page_key(PS_SLRU_COMMIT_TS, page);
        if (rc == PS_OK)
            rc = ps_patch_put(in, &key);
        if (rc != PS_OK)
            return rc;
    }
    if (ps_xid_precedes(in->counters.newest_commit_ts_xid, newest)) {
        in->counters.newest_commit_ts_xid = newest;
        in->counters_changed = 1;
    }
    return PS_OK;
}
