/*
 * From a stream of WAL bytes to whole, checked records.
 *
 * WAL comes in chunks that end anywhere: inside a record, inside a page header. The reader
 * takes bytes as they come and gives each record as one contiguous run of bytes: a pointer
 * into the chunk where the record lies whole in one page and one chunk, else a copy that the
 * reader holds until the next call.
 *
 * Words. A record STARTS at a multiple of 8, after a page header where one stands, and ENDS
 * after its last byte, rounded up to 8, and before a page header (XLogReader's EndRecPtr).
 * The end of one is where the reader wants its next byte. An XLOG_SWITCH ends where its
 * segment does, and is given only when the bytes up to there have come: what lies between is
 * skipped unread. A page that says FIRST_IS_OVERWRITE_CONTRECORD discards the record that was
 * under way, as a recovery that never found its rest has done.
 *
 * Checked: page headers (magic, address, length, segment size, what runs on), record lengths,
 * the chain of xl_prev, CRCs. Nothing inside the record is looked at. Not known here: what
 * records mean, and whether they are committed.
 */
#ifndef PS_WAL_READER_H
#define PS_WAL_READER_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"
#include "wal/format.h"

#define PS_WAL_PAGE 8192u
#define PS_WAL_SEGMENT (16u << 20)
#define PS_WAL_SHORT_HEADER 24u
#define PS_WAL_LONG_HEADER 40u
#define PS_WAL_RECORD_HEADER 24u
#define PS_WAL_RECORD_MAX (1u << 30)

#define PS_WAL_CONTRECORD 0x1u
#define PS_WAL_LONG 0x2u
#define PS_WAL_OVERWRITE 0x8u
#define PS_WAL_ALL_FLAGS 0xFu

#define PS_WAL_MORE 1 /* not an error: the bytes given hold no further whole record */

/* Prints an LSN as Postgres does. */
#define PS_LSN_FORMAT "%X/%X"
#define PS_LSN_ARGS(lsn) (unsigned)((lsn) >> 32), (unsigned)(lsn)

typedef struct ps_wal_record {
    const uint8_t *data; /* from the XLogRecord header on, page headers left out */
    uint32_t length;
    uint32_t xid;
    uint64_t lsn; /* its start */
    uint64_t end_lsn;
    uint8_t rmgr;
    uint8_t info;
} ps_wal_record;

typedef struct ps_wal_reader {
    const ps_wal_format *format; /* NULL: any that is known, and from the first page on that one */
    uint64_t lsn;       /* of the next byte wanted */
    uint64_t end_lsn;   /* the end of the last whole record */
    uint64_t prev_lsn;  /* its start; 0 when unknown: then the next link is not checked */
    uint64_t start_lsn; /* of the record under way */
    uint64_t skip_to;   /* behind a switch: where its segment ends */
    int under_way;
    uint32_t total; /* length of the record under way, once its first four bytes are here */
    uint32_t padding;
    uint32_t page_length; /* bytes of a page header that have come */
    uint8_t page[PS_WAL_LONG_HEADER];
    uint8_t *held;
    size_t held_length;
    size_t held_capacity;
} ps_wal_reader;

static inline uint16_t
ps_get_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t
ps_get_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t
ps_get_le64(const uint8_t *p)
{
    return (uint64_t)ps_get_le32(p) | (uint64_t)ps_get_le32(p + 4) << 32;
}

static inline uint64_t
ps_align8(uint64_t value)
{
    return (value + 7) & ~(uint64_t)7;
}

static inline uint32_t
ps_wal_header_length(uint64_t page_lsn)
{
    return page_lsn % PS_WAL_SEGMENT == 0 ? PS_WAL_LONG_HEADER : PS_WAL_SHORT_HEADER;
}

/* `lsn` is the end of a record, `prev_lsn` its start or 0. PS_ERR_INVALID if it cannot be one. */
int ps_wal_reader_init(ps_wal_reader *reader, uint64_t lsn, uint64_t prev_lsn, ps_error *err);
void ps_wal_reader_free(ps_wal_reader *reader);

/* Back to the end of a record: drops what is under way. The next byte wanted is there. */
void ps_wal_reader_rewind(ps_wal_reader *reader, uint64_t end_lsn, uint64_t prev_lsn);

/*
 * Takes bytes from *cursor (which stand at reader->lsn) and moves it. PS_OK and a record
 * (valid until the next call, and while the chunk is), PS_WAL_MORE when the chunk is used up,
 * PS_ERR_CORRUPT, PS_ERR_NOMEM. After an error the reader is as after a rewind to the last
 * whole record, whatever the cursor says.
 */
int ps_wal_reader_next(ps_wal_reader *reader, const uint8_t **cursor, const uint8_t *limit,
                       ps_wal_record *record, ps_error *err);

#endif
