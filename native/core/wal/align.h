/* Where the log may be cut: the last end of a whole record at or below an LSN. */
#ifndef PS_WAL_ALIGN_H
#define PS_WAL_ALIGN_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

/*
 * `data` is the WAL of [lsn, lsn + length). With `known_start` != 0 (the end of a record, in
 * that range) reading begins there and `known_prev` is the start of the record that ends
 * there; else `lsn` is the start of a page, and reading begins at the first record that
 * starts in or after it.
 *
 * PS_OK: *end <= limit is the end of the last whole and right record, *prev its start. A bad
 * CRC, a wrong link or length ends the log. With a known start, that is the least answer.
 * PS_ERR_NOT_FOUND: no whole record; ask again with WAL from further back.
 */
int ps_wal_align(const uint8_t *data, size_t length, uint64_t lsn, uint64_t limit,
                 uint64_t known_start, uint64_t known_prev, uint64_t *end, uint64_t *prev,
                 ps_error *err);

#endif
