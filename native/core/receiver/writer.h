/*
 * The log of one timeline, open for writing: segments of 16 MiB, named as Postgres names them
 * (timeline id 1), in one directory.
 *
 * The log is a sequence of whole records, and the writer follows them (wal/reader.h), checksums
 * and all: a walsender sends bytes, cut wherever the compute's flush position happened to be,
 * but nobody must ever hold the first half of a record whose second half is never written (the
 * compute died) and whose place another compute fills with something else. `flush_lsn` is the
 * end of the last record whose bytes, and all before, an fdatasync has made durable; it is what
 * may be confirmed and read. Bytes of a record that is still arriving are in the file behind it
 * and belong to nobody. Opening cuts the log at the given record end, durably: what lies behind is
 * made zeros, later segments go.
 *
 * A segment file has 16 MiB from the start, as a hole. So that a small commit need not wait for
 * the allocation of blocks, the writer keeps some zeros written ahead; close gives them back.
 *
 * After a failed write or sync, or bytes that do not continue the log, nothing of this writer
 * can be trusted beyond `flush_lsn`: every later call fails with the first error. Close it, and
 * open a new one at `flush_lsn`.
 *
 * Safe for threads: one lock for writing, another, held for moments, for the position.
 */
#ifndef PS_RECEIVER_WRITER_H
#define PS_RECEIVER_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

/* Where there is such a file, the writer writes into its second sector, after each sync and without
 * one more, how far the log is durable (pagestore/walservice/witness.py). */
#define PS_WAL_WITNESS "witness"

typedef struct ps_wal_writer ps_wal_writer;

typedef struct ps_wal_position {
    uint64_t flush_lsn;
    uint64_t prev_record_lsn; /* start of the record that ends at flush_lsn; 0 if unknown */
    uint64_t write_lsn;       /* end of the bytes in the file, whole records or not */
} ps_wal_position;

/*
 * Opens the log in `directory` at `flush_lsn`, a record end at or above `start_lsn`, the log's
 * first position. Nothing is created before the first byte is written. The witness is told `epoch`.
 * PS_ERR_CORRUPT: the segment that holds the bytes before flush_lsn is missing or short.
 */
int ps_wal_writer_open(ps_wal_writer **writer, const char *directory, uint64_t start_lsn,
                       uint64_t flush_lsn, uint64_t prev_record_lsn, uint64_t epoch, ps_error *err);

/* Also frees; nobody may be using the writer. */
void ps_wal_writer_close(ps_wal_writer *writer);

/*
 * Takes the bytes that follow all that were taken; small ones stay here until a flush, or until
 * there are many. Durable only after ps_wal_writer_flush.
 * PS_ERR_INVALID: `lsn` is another. PS_ERR_CORRUPT: the bytes do not continue the log; they are
 * not written. PS_ERR_NO_SPACE, PS_ERR_IO.
 */
int ps_wal_writer_write(ps_wal_writer *writer, uint64_t lsn, const uint8_t *data, size_t length,
                        ps_error *err);

/* Makes whole records durable and advances flush_lsn to the last one's end. */
int ps_wal_writer_flush(ps_wal_writer *writer, ps_error *err);

/* Writes whole records at flush_lsn and flushes. PS_ERR_CORRUPT: they end inside a record. */
int ps_wal_writer_append(ps_wal_writer *writer, uint64_t lsn, const uint8_t *data, size_t length,
                         ps_error *err);

ps_wal_position ps_wal_writer_position(ps_wal_writer *writer);

#endif
