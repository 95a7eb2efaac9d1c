/* CRC-32C: known answers (RFC 3720 B.4), chaining, and both implementations alike. */
#undef NDEBUG
#include <assert.h>
#include <string.h>

#include "crc32c.h"

static void
known_answers(uint32_t (*crc)(uint32_t, const void *, size_t))
{
    uint8_t bytes[32];
    memset(bytes, 0, sizeof bytes);
    assert(crc(0, bytes, sizeof bytes) == 0x8A9136AAu);
    memset(bytes, 0xFF, sizeof bytes);
    assert(crc(0, bytes, sizeof bytes) == 0x62A8AB43u);
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    assert(crc(0, bytes, sizeof bytes) == 0x46DD794Eu);
    assert(crc(0, "123456789", 9) == 0xE3069283u);
    assert(crc(0, "", 0) == 0);
}

static void
chunks_chain(void)
{
    uint8_t bytes[301];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 37 + 11);
    uint32_t whole = ps_crc32c(0, bytes, sizeof bytes);
    for (size_t cut = 0; cut <= sizeof bytes; cut++) {
        uint32_t head = ps_crc32c(0, bytes, cut);
        assert(ps_crc32c(head, bytes + cut, sizeof bytes - cut) == whole);
        assert(ps_crc32c_portable(0, bytes, cut) == head);
    }
}

int
main(void)
{
    known_answers(ps_crc32c);
    known_answers(ps_crc32c_portable);
    chunks_chain();
    return 0;
}
