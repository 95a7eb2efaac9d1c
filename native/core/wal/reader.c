#include "wal/reader.h"

#include <stdlib.h>
#include <string.h>

#include "crc32c.h"

#define RMGR_XLOG 0
#define XLOG_SWITCH 0x40

static size_t
smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* A reader lives as long as its timeline is read: it does not keep what a huge record took. */
#define KEPT_CAPACITY (1u << 20)

static uint32_t
page_room(uint64_t lsn)
{
    return PS_WAL_PAGE - (uint32_t)(lsn % PS_WAL_PAGE);
}

int
ps_wal_reader_init(ps_wal_reader *reader, uint64_t lsn, uint64_t prev_lsn, ps_error *err)
{
    memset(reader, 0, sizeof *reader);
    uint64_t in_page = lsn % PS_WAL_PAGE;
    if (lsn == 0 || lsn % 8 != 0 ||
        (in_page != 0 && in_page < ps_wal_header_length(lsn - in_page)))
        return ps_fail(err, PS_ERR_INVALID, "no WAL record can end at " PS_LSN_FORMAT,
                       PS_LSN_ARGS(lsn));
    ps_wal_reader_rewind(reader, lsn, prev_lsn);
    return PS_OK;
}

void
ps_wal_reader_free(ps_wal_reader *reader)
{
    free(reader->held);
    memset(reader, 0, sizeof *reader);
}

void
ps_wal_reader_rewind(ps_wal_reader *reader, uint64_t end_lsn, uint64_t prev_lsn)
{
    reader->lsn = reader->end_lsn = end_lsn;
    reader->prev_lsn = prev_lsn;
    reader->start_lsn = 0;
    reader->skip_to = 0;
    reader->under_way = 0;
    reader->total = 0;
    reader->padding = 0;
    reader->page_length = 0;
    reader->held_length = 0;
}

static void
drop_held(ps_wal_reader *reader)
{
    free(reader->held);
    reader->held = NULL;
    reader->held_capacity = 0;
    reader->held_length = 0;
}

static int
hold(ps_wal_reader *reader, const uint8_t *bytes, size_t length)
{
    /* Grows with the bytes that come, not to the length the record claims: no CRC vouches for that
     * yet, and it may be 1 GiB. */
    size_t need = reader->held_length + length;
    if (need > reader->held_capacity) {
        size_t grown = reader->held_capacity ? reader->held_capacity : 4096;
        while (grown < need)
            grown *= 2;
        uint8_t *moved = realloc(reader->held, grown);
        if (moved == NULL)
            return PS_ERR_NOMEM;
        reader->held = moved;
        reader->held_capacity = grown;
    }
    memcpy(reader->held + reader->held_length, bytes, length);
    reader->held_length = need;
    return PS_OK;
}

/* `page_lsn` is where the header in reader->page stands. */
static int
check_page(ps_wal_reader *reader, uint64_t page_lsn, ps_error *err)
{
    const uint8_t *h = reader->page;
    uint32_t info = ps_get_le16(h + 2);
    uint32_t runs_on = ps_get_le32(h + 16);
    const ps_wal_format *format =
        reader->format != NULL ? reader->format : ps_wal_format_by_magic(ps_get_le16(h));
    if (format == NULL || ps_get_le16(h) != format->magic || (info & ~PS_WAL_ALL_FLAGS) != 0 ||
        ps_get_le64(h + 8) != page_lsn)
        return ps_fail(err, PS_ERR_CORRUPT,
                       "at " PS_LSN_FORMAT ": this is no WAL page header for that place",
                       PS_LSN_ARGS(page_lsn));
    reader->format = format;
    int is_long = ps_wal_header_length(page_lsn) == PS_WAL_LONG_HEADER;
    if (is_long != ((info & PS_WAL_LONG) != 0))
        return ps_fail(err, PS_ERR_CORRUPT,
                       "at " PS_LSN_FORMAT ": a WAL page header of the wrong length",
                       PS_LSN_ARGS(page_lsn));
    if (is_long &&
        (ps_get_le32(h + 32) != PS_WAL_SEGMENT || ps_get_le32(h + 36) != PS_WAL_PAGE))
        return ps_fail(err, PS_ERR_CORRUPT,
                       "at " PS_LSN_FORMAT ": WAL segments of %u bytes with pages of %u; only "
                       "16 MiB and 8 KiB are known",
                       PS_LSN_ARGS(page_lsn), ps_get_le32(h + 32), ps_get_le32(h + 36));
    if (reader->under_way && (info & PS_WAL_OVERWRITE) != 0) {
        reader->under_way = 0;
        return PS_OK;
    }
    /* The total is known by now: records start at multiples of 8, so the four bytes that tell it
     * never lie in two pages. */
    uint32_t left = reader->under_way ? reader->total - (uint32_t)reader->held_length : 0;
    if (((info & PS_WAL_CONTRECORD) != 0) != (left != 0) || (left != 0 && runs_on != left))
        return ps_fail(err, PS_ERR_CORRUPT,
                       "at " PS_LSN_FORMAT ": the page says that %u bytes of a record run on, "
                       "not %u",
                       PS_LSN_ARGS(page_lsn), runs_on, left);
    return PS_OK;
}

/* PS_OK when the header of the page is behind us, PS_WAL_MORE when its bytes have not come. */
static int
take_page_header(ps_wal_reader *reader, const uint8_t **cursor, const uint8_t *limit,
                 ps_error *err)
{
    uint64_t page_lsn = reader->lsn - reader->page_length;
    uint32_t want = ps_wal_header_length(page_lsn);
    size_t n = smaller(want - reader->page_length, (size_t)(limit - *cursor));
    memcpy(reader->page + reader->page_length, *cursor, n);
    *cursor += n;
    reader->lsn += n;
    reader->page_length += (uint32_t)n;
    if (reader->page_length < want)
        return PS_WAL_MORE;
    reader->page_length = 0;
    return check_page(reader, page_lsn, err);
}

static int
check_length(uint64_t lsn, uint32_t total, ps_error *err)
{
    if (total < PS_WAL_RECORD_HEADER || total > PS_WAL_RECORD_MAX)
        return ps_fail(err, PS_ERR_CORRUPT,
                       "at " PS_LSN_FORMAT ": a WAL record cannot have %u bytes",
                       PS_LSN_ARGS(lsn), total);
    return PS_OK;
}

/* Checks a whole record's header and CRC and fills *record. */
static int
check_record(const ps_wal_reader *reader, const uint8_t *data, uint32_t total, uint64_t start,
             ps_wal_record *record, ps_error *err)
{
    uint64_t prev = ps_get_le64(data + 8);
    if (reader->prev_lsn != 0 ? prev != reader->prev_lsn : prev >= start)
        return ps_fail(err, PS_ERR_CORRUPT,
                       "at " PS_LSN_FORMAT ": the record names " PS_LSN_FORMAT
                       " as the one before it, not " PS_LSN_FORMAT,
                       PS_LSN_ARGS(start), PS_LSN_ARGS(prev), PS_LSN_ARGS(reader->prev_lsn));
    /* The body first: Postgres knows xl_prev, in the header, only once it has found the record's
     * place, and adds the header then. */
    uint32_t crc =
        ps_crc32c(0, data + PS_WAL_RECORD_HEADER, total - PS_WAL_RECORD_HEADER);
    crc = ps_crc32c(crc, data, 20);
    if (crc != ps_get_le32(data + 20))
        return ps_fail(err, PS_ERR_CORRUPT,
                       "at " PS_LSN_FORMAT ": the CRC of a WAL record of %u bytes does not match",
                       PS_LSN_ARGS(start), total);
    record->data = data;
    record->length = total;
    record->xid = ps_get_le32(data + 4);
    record->lsn = start;
    record->info = data[16];
    record->rmgr = data[17];
    return PS_OK;
}

static int
is_switch(const ps_wal_record *record)
{
    return record->rmgr == RMGR_XLOG && (record->info & 0xF0) == XLOG_SWITCH;
}

static int
deliver(ps_wal_reader *reader, ps_wal_record *record)
{
    record->end_lsn = reader->lsn;
    reader->end_lsn = reader->lsn;
    reader->prev_lsn = record->lsn;
    reader->under_way = 0;
    reader->skip_to = 0;
    return PS_OK;
}

/* A whole record that lies in one piece in the chunk: PS_OK, or PS_WAL_MORE to assemble one. */
static int
take_whole(ps_wal_reader *reader, const uint8_t **cursor, const uint8_t *limit,
           ps_wal_record *record, ps_error *err)
{
    size_t n = smaller(page_room(reader->lsn), (size_t)(limit - *cursor));
    if (n < PS_WAL_RECORD_HEADER)
        return PS_WAL_MORE;
    uint32_t total = ps_get_le32(*cursor);
    int rc = check_length(reader->lsn, total, err);
    if (rc != PS_OK)
        return rc;
    /* With its padding, since the next byte wanted lies behind that. */
    if (ps_align8(total) > n)
        return PS_WAL_MORE;
    rc = check_record(reader, *cursor, total, reader->lsn, record, err);
    if (rc != PS_OK)
        return rc;
    /* The rest of a switch's segment is to be skipped, over chunks maybe: finish() can. */
    if (is_switch(record))
        return PS_WAL_MORE;
    *cursor += ps_align8(total);
    reader->lsn += ps_align8(total);
    return deliver(reader, record);
}

/* Moves bytes of the chunk that lie in this page to reader->held. 0 when the record is whole. */
static int
assemble(ps_wal_reader *reader, const uint8_t **cursor, const uint8_t *limit, ps_error *err)
{
    uint32_t want = reader->total != 0 ? reader->total : 4;
    size_t n = smaller(want - reader->held_length,
                       smaller(page_room(reader->lsn), (size_t)(limit - *cursor)));
    if (hold(reader, *cursor, n) != PS_OK)
        return ps_fail(err, PS_ERR_NOMEM, "no memory for a WAL record of %u bytes", want);
    *cursor += n;
    reader->lsn += n;
    if (reader->total == 0 && reader->held_length == 4) {
        reader->total = ps_get_le32(reader->held);
        reader->padding = (uint32_t)(ps_align8(reader->total) - reader->total);
        return check_length(reader->start_lsn, reader->total, err);
    }
    return PS_OK;
}

static int
is_assembled(const ps_wal_reader *reader)
{
    return reader->under_way && reader->total != 0 && reader->held_length == reader->total;
}

static void
skip(ps_wal_reader *reader, const uint8_t **cursor, const uint8_t *limit, uint64_t to)
{
    uint64_t left = to - reader->lsn;
    size_t available = (size_t)(limit - *cursor);
    size_t n = left < available ? (size_t)left : available;
    *cursor += n;
    reader->lsn += n;
}

/* The record under way is whole: past its padding, and a switch's segment, it is given. */
static int
finish(ps_wal_reader *reader, const uint8_t **cursor, const uint8_t *limit,
       ps_wal_record *record, ps_error *err)
{
    /* Kept from call to call. Padding stays in its page: both are multiples of 8. */
    if (reader->skip_to == 0)
        reader->skip_to = ps_align8(reader->lsn);
    skip(reader, cursor, limit, reader->skip_to);
    if (reader->lsn < reader->skip_to)
        return PS_WAL_MORE;
    int rc = check_record(reader, reader->held, reader->total, reader->start_lsn, record, err);
    if (rc != PS_OK)
        return rc;
    if (is_switch(record) && reader->lsn % PS_WAL_SEGMENT != 0) {
        reader->skip_to = reader->lsn - reader->lsn % PS_WAL_SEGMENT + PS_WAL_SEGMENT;
        skip(reader, cursor, limit, reader->skip_to);
        if (reader->lsn < reader->skip_to)
            return PS_WAL_MORE;
    }
    return deliver(reader, record);
}

static int
next(ps_wal_reader *reader, const uint8_t **cursor, const uint8_t *limit, ps_wal_record *record,
     ps_error *err)
{
    for (;;) {
        int rc;
        if (is_assembled(reader))
            return finish(reader, cursor, limit, record, err);
        if (*cursor == limit)
            return PS_WAL_MORE;
        if (reader->page_length != 0 || reader->lsn % PS_WAL_PAGE == 0) {
            rc = take_page_header(reader, cursor, limit, err);
            if (rc != PS_OK)
                return rc;
            continue;
        }
        if (!reader->under_way) {
            rc = take_whole(reader, cursor, limit, record, err);
            if (rc != PS_WAL_MORE)
                return rc;
            /* Not sooner: the record given last may lie there until this call. */
            if (reader->held_capacity > KEPT_CAPACITY)
                drop_held(reader);
            reader->under_way = 1;
            reader->start_lsn = reader->lsn;
            reader->total = 0;
            reader->held_length = 0;
        }
        rc = assemble(reader, cursor, limit, err);
        if (rc != PS_OK)
            return rc;
    }
}

int
ps_wal_reader_next(ps_wal_reader *reader, const uint8_t **cursor, const uint8_t *limit,
                   ps_wal_record *record, ps_error *err)
{
    int rc = next(reader, cursor, limit, record, err);
    if (rc < 0)
        ps_wal_reader_rewind(reader, reader->end_lsn, reader->prev_lsn);
    return rc;
}
