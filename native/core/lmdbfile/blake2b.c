#include "lmdbfile/blake2b.h"

#include <string.h>

static const uint64_t initial[8] = {
    0x6A09E667F3BCC908u, 0xBB67AE8584CAA73Bu, 0x3C6EF372FE94F82Bu, 0xA54FF53A5F1D36F1u,
    0x510E527FADE682D1u, 0x9B05688C2B3E6C1Fu, 0x1F83D9ABFB41BD6Bu, 0x5BE0CD19137E2179u};

/* Which word of the block each step of a round takes. Rounds 10 and 11 are 0 and 1 again. */
static const uint8_t order[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static inline uint64_t
turned(uint64_t word, int bits)
{
    return word >> bits | word << (64 - bits);
}

#define MIX(a, b, c, d, x, y)                                                                      \
    do {                                                                                           \
        a += b + (x);                                                                              \
        d = turned(d ^ a, 32);                                                                     \
        c += d;                                                                                    \
        b = turned(b ^ c, 24);                                                                     \
        a += b + (y);                                                                              \
        d = turned(d ^ a, 16);                                                                     \
        c += d;                                                                                    \
        b = turned(b ^ c, 63);                                                                     \
    } while (0)

static void
compress(ps_blake2b *hash, const uint8_t *block, uint64_t last)
{
    uint64_t m[16], v[16];
    memcpy(m, block, sizeof m);
    memcpy(v, hash->state, sizeof hash->state);
    memcpy(v + 8, initial, sizeof initial);
    v[12] ^= hash->taken;
    v[14] ^= last;
    for (int round = 0; round < 12; round++) {
        const uint8_t *s = order[round % 10];
        MIX(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
        MIX(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
        MIX(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
        MIX(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
        MIX(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
        MIX(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
        MIX(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
        MIX(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; i++)
        hash->state[i] ^= v[i] ^ v[i + 8];
}

void
ps_blake2b_begin(ps_blake2b *hash)
{
    memcpy(hash->state, initial, sizeof initial);
    hash->state[0] ^= 0x01010000u ^ PS_BLAKE2B_BYTES; /* one leaf of a tree of one, no key */
    hash->taken = 0;
    hash->held = 0;
}

void
ps_blake2b_take(ps_blake2b *hash, const void *data, size_t length)
{
    const uint8_t *from = data;
    while (length > 0) {
        /* A full block waits until more comes: the last one is compressed differently. */
        if (hash->held == PS_BLAKE2B_BLOCK) {
            compress(hash, hash->block, 0);
            hash->held = 0;
        }
        size_t part = PS_BLAKE2B_BLOCK - hash->held;
        part = part < length ? part : length;
        memcpy(hash->block + hash->held, from, part);
        hash->held += part;
        hash->taken += part;
        from += part;
        length -= part;
    }
}

void
ps_blake2b_end(ps_blake2b *hash, uint8_t digest[PS_BLAKE2B_BYTES])
{
    memset(hash->block + hash->held, 0, PS_BLAKE2B_BLOCK - hash->held);
    compress(hash, hash->block, UINT64_MAX);
    memcpy(digest, hash->state, PS_BLAKE2B_BYTES);
}
