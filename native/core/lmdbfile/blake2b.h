/*
 * BLAKE2b (RFC 7693) without a key, with digests of 16 bytes: what the sum over a store's entries
 * is made of (docs/formats/catalog.md). Python's hashlib is what tests hold it against.
 */
#ifndef PS_BLAKE2B_H
#define PS_BLAKE2B_H

#include <stddef.h>
#include <stdint.h>

#define PS_BLAKE2B_BYTES 16
#define PS_BLAKE2B_BLOCK 128

typedef struct ps_blake2b {
    uint64_t state[8];
    uint64_t taken; /* bytes, those in `block` included */
    size_t held;
    uint8_t block[PS_BLAKE2B_BLOCK];
} ps_blake2b;

void ps_blake2b_begin(ps_blake2b *hash);
void ps_blake2b_take(ps_blake2b *hash, const void *data, size_t length);
void ps_blake2b_end(ps_blake2b *hash, uint8_t digest[PS_BLAKE2B_BYTES]);

#endif
