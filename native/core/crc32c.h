/*
 * CRC-32C (Castagnoli), as Postgres puts it on WAL records and we put it on our own files.
 * Checksums of chunks chain: ps_crc32c(ps_crc32c(0, a), b) is the checksum of a followed by b.
 */
#ifndef PS_CRC32C_H
#define PS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t ps_crc32c(uint32_t seed_crc, const void *data, size_t length);

/* The same without special instructions: for processors that have none, and for tests. */
uint32_t ps_crc32c_portable(uint32_t seed_crc, const void *data, size_t length);

#endif
