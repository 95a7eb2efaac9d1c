#include "wal/align.h"

#include "wal/reader.h"

/*
 * The first end of a record at or after the page start `lsn`, told by what runs on into the
 * pages. Pages of zeros (behind a switch, or never written) tell nothing and are passed over.
 */
static int
first_record(const uint8_t *data, size_t length, uint64_t lsn, uint64_t *start)
{
    for (size_t at = 0; at + PS_WAL_LONG_HEADER <= length; at += PS_WAL_PAGE) {
        const uint8_t *h = data + at;
        uint32_t header = ps_wal_header_length(lsn + at);
        if (ps_get_le16(h) == 0 && ps_get_le64(h + 8) == 0)
            continue;
        if (ps_wal_format_by_magic(ps_get_le16(h)) == NULL || ps_get_le64(h + 8) != lsn + at)
            return PS_ERR_NOT_FOUND;
        uint64_t runs_on = 0;
        if ((ps_get_le16(h + 2) & PS_WAL_CONTRECORD) != 0)
            runs_on = ps_align8(ps_get_le32(h + 16));
        if (runs_on > PS_WAL_PAGE - header)
            continue;
        *start = runs_on == 0 ? lsn + at : lsn + at + header + runs_on;
        return PS_OK;
    }
    return PS_ERR_NOT_FOUND;
}

int
ps_wal_align(const uint8_t *data, size_t length, uint64_t lsn, uint64_t limit,
             uint64_t known_start, uint64_t known_prev, uint64_t *end, uint64_t *prev,
             ps_error *err)
{
    uint64_t start = known_start;
    if (limit < lsn || limit < known_start)
        return ps_fail(err, PS_ERR_INVALID, "the limit " PS_LSN_FORMAT " lies before the WAL given",
                       PS_LSN_ARGS(limit));
    if (limit - lsn < length)
        length = (size_t)(limit - lsn);
    if (known_start != 0 && (known_start < lsn || known_start - lsn > length))
        return ps_fail(err, PS_ERR_INVALID,
                       "the known record end " PS_LSN_FORMAT " lies outside the WAL given",
                       PS_LSN_ARGS(known_start));
    if (known_start == 0 && lsn % PS_WAL_PAGE != 0)
        return ps_fail(err, PS_ERR_INVALID, PS_LSN_FORMAT " is not the start of a WAL page",
                       PS_LSN_ARGS(lsn));
    if (known_start == 0 &&
        (first_record(data, length, lsn, &start) != PS_OK || start - lsn > length))
        return PS_ERR_NOT_FOUND;
    ps_wal_reader reader;
    int rc = ps_wal_reader_init(&reader, start, known_start != 0 ? known_prev : 0, err);
    if (rc != PS_OK)
        return rc;
    const uint8_t *cursor = data + (start - lsn);
    ps_wal_record record;
    int found = known_start != 0;
    /* What stops the reader is the answer, not a fault: behind the last record lies anything. */
    while ((rc = ps_wal_reader_next(&reader, &cursor, data + length, &record, NULL)) == PS_OK)
        found = 1;
    *end = reader.end_lsn;
    *prev = reader.prev_lsn;
    ps_wal_reader_free(&reader);
    if (rc == PS_ERR_NOMEM)
        return ps_fail(err, rc, "no memory for a WAL record");
    return found ? PS_OK : PS_ERR_NOT_FOUND;
}
