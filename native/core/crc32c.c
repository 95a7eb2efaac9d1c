#include "crc32c.h"

#include <pthread.h>
#include <string.h>

#define REFLECTED_POLYNOMIAL 0x82F63B78u

static uint32_t table[8][256];
static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static uint32_t (*best)(uint32_t, const void *, size_t);

/* Slicing by eight: table[k][b] advances byte b over k further zero bytes. */
static uint32_t
by_table(uint32_t seed_crc, const void *data, size_t length)
{
    const uint8_t *p = data;
    uint32_t crc = ~seed_crc;
    for (; length >= 8; length -= 8, p += 8) {
        uint32_t low = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                              (uint32_t)p[3] << 24);
        crc = table[7][low & 0xFF] ^ table[6][low >> 8 & 0xFF] ^ table[5][low >> 16 & 0xFF] ^
              table[4][low >> 24] ^ table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^
              table[0][p[7]];
    }
    for (; length > 0; length--, p++)
        crc = table[0][(crc ^ *p) & 0xFF] ^ crc >> 8;
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t
by_instruction(uint32_t seed_crc, const void *data, size_t length)
{
    const uint8_t *p = data;
    uint64_t crc = ~seed_crc;
    for (; length >= 8; length -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        crc = __builtin_ia32_crc32di(crc, word);
    }
    uint32_t narrow = (uint32_t)crc;
    for (; length > 0; length--, p++)
        narrow = __builtin_ia32_crc32qi(narrow, *p);
    return ~narrow;
}
#endif

static void
prepare(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ REFLECTED_POLYNOMIAL : crc >> 1;
        table[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t byte = 0; byte < 256; byte++)
            table[k][byte] = table[0][table[k - 1][byte] & 0xFF] ^ table[k - 1][byte] >> 8;
    best = by_table;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        best = by_instruction;
#endif
}

uint32_t
ps_crc32c(uint32_t seed_crc, const void *data, size_t length)
{
    pthread_once(&prepared, prepare);
    return best(seed_crc, data, length);
}

uint32_t
ps_crc32c_portable(uint32_t seed_crc, const void *data, size_t length)
{
    pthread_once(&prepared, prepare);
    return by_table(seed_crc, data, length);
}
