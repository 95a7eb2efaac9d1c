/* The XLOG and Standby resource managers: counters and settings of the control file. */
#include "wal/route.h"

#define CHECKPOINT_LENGTH 88
#define XID_STEP 1024 /* next_full_xid is put rounded up to a multiple of this */
#define FIRST_NORMAL_XID 3

/* The value of a control key, or zeros while there is none. */
static int
load(ps_ingest *in, uint32_t block, void *value, size_t length)
{
    ps_key key = ps_key_make(PS_KIND_CONTROL, 0, 0, 0, 0, block);
    size_t got = 0;
    memset(value, 0, length);
    int rc = in->source->get(in->source->context, &key, in->source_lsn, value, length, &got,
                             in->err);
    if (rc == PS_ERR_NOT_FOUND)
        return PS_OK;
    if (rc == PS_OK && got != length)
        return ps_refuse(in, PS_ERR_CORRUPT, "the stored control values have the wrong length");
    return rc;
}

int
ps_load_control(ps_ingest *in)
{
    int rc = load(in, 0, &in->counters, sizeof in->counters);
    if (rc == PS_OK)
        rc = load(in, 1, &in->settings, sizeof in->settings);
    if (rc != PS_OK)
        return rc;
    in->format = ps_wal_format_by_catalog(in->settings.catalog_version);
    if (in->format == NULL)
        return ps_fail(in->err, PS_ERR_UNSUPPORTED,
                       "no known Postgres has the catalog version %u of this timeline",
                       in->settings.catalog_version);
    /* Pages of another major are refused from here on, whatever came first. */
    in->reader.format = in->format;
    in->told_next_full_xid = in->counters.next_full_xid;
    in->counters_changed = 0;
    in->control_loaded = 1;
    return PS_OK;
}

/* Makes sure that next_full_xid lies beyond `xid`, which is near it. */
void
ps_advance_xid(ps_ingest *in, uint32_t xid)
{
    uint64_t next = in->counters.next_full_xid;
    if (xid < FIRST_NORMAL_XID || ps_xid_precedes(xid, (uint32_t)next))
        return;
    uint64_t epoch = next & ~(uint64_t)UINT32_MAX;
    uint32_t following = xid + 1;
    if (following < FIRST_NORMAL_XID)
        following = FIRST_NORMAL_XID;
    if (following < (uint32_t)next)
        epoch += (uint64_t)1 << 32;
    in->counters.next_full_xid = epoch | following;
    if (in->counters.next_full_xid > in->told_next_full_xid)
        in->counters_changed = 1;
}

void
ps_advance_multi(ps_ingest *in, uint32_t multi, uint32_t offset)
{
    if (ps_multi_precedes(in->counters.next_multi, multi)) {
        in->counters.next_multi = multi;
        in->counters_changed = 1;
    }
    if (ps_multi_precedes(in->counters.next_multi_offset, offset)) {
        in->counters.next_multi_offset = offset;
        in->counters_changed = 1;
    }
}

/* Puts the counters as they are, but for next_full_xid: rounded up, unless told exactly. */
int
ps_put_counters(ps_ingest *in)
{
    ps_counters value = in->counters;
    /* Ids may be skipped, never given twice: so up, and one value serves many transactions. */
    if (value.next_full_xid > in->told_next_full_xid) {
        value.next_full_xid = (value.next_full_xid + XID_STEP - 1) / XID_STEP * XID_STEP;
        if ((uint32_t)value.next_full_xid < FIRST_NORMAL_XID)
            value.next_full_xid |= FIRST_NORMAL_XID;
        in->told_next_full_xid = value.next_full_xid;
    }
    value.next_full_xid = in->told_next_full_xid;
    in->counters_changed = 0;
    ps_key key = ps_key_make(PS_KIND_CONTROL, 0, 0, 0, 0, 0);
    return ps_put(in, &key, PS_VALUE_IMAGE, &value, sizeof value);
}

/* The CheckPoint struct: offsets in bytes. (Since 17 there is a wal_level at 20.) */
enum {
    CP_FULL_PAGE_WRITES = 16,
    CP_NEXT_XID = 24,
    CP_NEXT_OID = 32,
    CP_NEXT_MULTI = 36,
    CP_NEXT_MULTI_OFFSET = 40,
    CP_OLDEST_XID = 44,
    CP_OLDEST_XID_DB = 48,
    CP_OLDEST_MULTI = 52,
    CP_OLDEST_MULTI_DB = 56,
    CP_TIME = 64,
    CP_OLDEST_COMMIT_TS = 72,
    CP_NEWEST_COMMIT_TS = 76,
    CP_OLDEST_ACTIVE_XID = 80
};

static void
take_oldest(ps_ingest *in, const uint8_t *cp)
{
    ps_counters *c = &in->counters;
    c->oldest_xid = ps_get_le32(cp + CP_OLDEST_XID);
    c->oldest_xid_db = ps_get_le32(cp + CP_OLDEST_XID_DB);
    c->oldest_multi = ps_get_le32(cp + CP_OLDEST_MULTI);
    c->oldest_multi_db = ps_get_le32(cp + CP_OLDEST_MULTI_DB);
}

/* A shutdown checkpoint is believed in all; an online one was composed a while ago. */
static int
take_checkpoint(ps_ingest *in, int is_shutdown)
{
    int rc = ps_need_main(in, CHECKPOINT_LENGTH);
    if (rc != PS_OK)
        return rc;
    const uint8_t *cp = in->decoded->main;
    ps_counters *c = &in->counters;
    c->full_page_writes = cp[CP_FULL_PAGE_WRITES] != 0;
    c->checkpoint_time = (int64_t)ps_get_le64(cp + CP_TIME);
    c->oldest_active_xid = ps_get_le32(cp + CP_OLDEST_ACTIVE_XID);
    c->oldest_commit_ts_xid = ps_get_le32(cp + CP_OLDEST_COMMIT_TS);
    uint64_t next_xid = ps_get_le64(cp + CP_NEXT_XID);
    if (is_shutdown) {
        take_oldest(in, cp);
        c->newest_commit_ts_xid = ps_get_le32(cp + CP_NEWEST_COMMIT_TS);
        c->next_oid = ps_get_le32(cp + CP_NEXT_OID);
        c->next_multi = ps_get_le32(cp + CP_NEXT_MULTI);
        c->next_multi_offset = ps_get_le32(cp + CP_NEXT_MULTI_OFFSET);
        c->next_full_xid = in->told_next_full_xid = next_xid;
    } else {
        if (ps_xid_precedes(c->oldest_xid, ps_get_le32(cp + CP_OLDEST_XID))) {
            c->oldest_xid = ps_get_le32(cp + CP_OLDEST_XID);
            c->oldest_xid_db = ps_get_le32(cp + CP_OLDEST_XID_DB);
        }
        if (ps_multi_precedes(c->oldest_multi, ps_get_le32(cp + CP_OLDEST_MULTI))) {
            c->oldest_multi = ps_get_le32(cp + CP_OLDEST_MULTI);
            c->oldest_multi_db = ps_get_le32(cp + CP_OLDEST_MULTI_DB);
        }
        uint32_t newest = ps_get_le32(cp + CP_NEWEST_COMMIT_TS);
        if (newest == 0 || ps_xid_precedes(c->newest_commit_ts_xid, newest))
            c->newest_commit_ts_xid = newest;
        ps_advance_multi(in, ps_get_le32(cp + CP_NEXT_MULTI),
                         ps_get_le32(cp + CP_NEXT_MULTI_OFFSET));
        if (next_xid > c->next_full_xid)
            c->next_full_xid = next_xid;
    }
    in->counters_changed = 1;
    return PS_OK;
}

static int
change_commit_ts(ps_ingest *in, uint32_t track)
{
    if (track == in->settings.track_commit_timestamp)
        return PS_OK;
    in->settings.track_commit_timestamp = track;
    in->counters_changed = 1;
    /* While it is off nothing is noted: earlier times would have a gap behind them, unseen. */
    if (!track) {
        in->counters.oldest_commit_ts_xid = 0;
        in->counters.newest_commit_ts_xid = 0;
        return ps_drop_slru(in, PS_SLRU_COMMIT_TS);
    }
    if (in->counters.oldest_commit_ts_xid == 0) {
        in->counters.oldest_commit_ts_xid = (uint32_t)in->counters.next_full_xid;
        in->counters.newest_commit_ts_xid = (uint32_t)in->counters.next_full_xid;
    }
    return PS_OK;
}

static int
take_parameters(ps_ingest *in)
{
    int rc = ps_need_main(in, 26);
    if (rc != PS_OK)
        return rc;
    const uint8_t *p = in->decoded->main;
    ps_settings *s = &in->settings;
    if (ps_get_le32(p + 20) == 0)
        return ps_refuse(in, PS_ERR_UNSUPPORTED,
                         "wal_level was set to minimal, which leaves changes out of the WAL");
    s->max_connections = ps_get_le32(p);
    s->max_worker_processes = ps_get_le32(p + 4);
    s->max_wal_senders = ps_get_le32(p + 8);
    s->max_prepared_xacts = ps_get_le32(p + 12);
    s->max_locks_per_xact = ps_get_le32(p + 16);
    s->wal_level = ps_get_le32(p + 20);
    s->wal_log_hints = p[24] != 0;
    rc = change_commit_ts(in, p[25] != 0);
    ps_key key = ps_key_make(PS_KIND_CONTROL, 0, 0, 0, 0, 1);
    return rc != PS_OK ? rc : ps_put(in, &key, PS_VALUE_IMAGE, s, sizeof *s);
}

static int
check_full_page_images(ps_ingest *in)
{
    for (unsigned i = 0; i < in->decoded->block_count; i++)
        if (!in->decoded->blocks[i].has_image)
            return ps_refuse(in, PS_ERR_CORRUPT, "a full-page image record lacks the image");
    return PS_OK;
}

int
ps_route_xlog(ps_ingest *in)
{
    int rc;
    switch (in->decoded->record.info & 0xF0) {
    case 0x00: /* CHECKPOINT_SHUTDOWN */
        return take_checkpoint(in, 1);
    case 0x10: /* CHECKPOINT_ONLINE */
        return take_checkpoint(in, 0);
    case 0x30: /* NEXTOID */
        if ((rc = ps_need_main(in, 4)) != PS_OK)
            return rc;
        in->counters.next_oid = ps_get_le32(in->decoded->main);
        in->counters_changed = 1;
        return PS_OK;
    case 0x60: /* PARAMETER_CHANGE */
        return take_parameters(in);
    case 0x80: /* FPW_CHANGE */
        if ((rc = ps_need_main(in, 1)) != PS_OK)
            return rc;
        in->counters.full_page_writes = in->decoded->main[0] != 0;
        in->counters_changed = 1;
        return PS_OK;
    case 0xB0: /* FPI */
        return check_full_page_images(in);
    default: /* NOOP, SWITCH, BACKUP_END, END_OF_RECOVERY, FPI_FOR_HINT, CHECKPOINT_REDO, ... */
        return PS_OK;
    }
}

int
ps_route_standby(ps_ingest *in)
{
    if ((in->decoded->record.info & 0xF0) != 0x10) /* only RUNNING_XACTS says something */
        return PS_OK;
    int rc = ps_need_main(in, 24);
    if (rc != PS_OK)
        return rc;
    uint32_t next_xid = ps_get_le32(in->decoded->main + 12);
    uint32_t oldest = ps_get_le32(in->decoded->main + 16);
    /* The first that was not given yet. */
    if (next_xid > FIRST_NORMAL_XID)
        ps_advance_xid(in, next_xid - 1);
    if (oldest != in->counters.oldest_active_xid) {
        in->counters.oldest_active_xid = oldest;
        in->counters_changed = 1;
    }
    return PS_OK;
}
