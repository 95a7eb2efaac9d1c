#include "layer/codec.h"

#include <limits.h>
#include <lz4.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

enum { LEAST_HASTE = 1, MOST_HASTE = 16 }; /* LZ4's "acceleration" */

struct ps_compressor {
    int level;
    int haste;
    ZSTD_CCtx *zstd;
    void *lz4;
};

struct ps_decompressor {
    ZSTD_DCtx *zstd;
};

ps_compressor *
ps_compressor_make(int level)
{
    ps_compressor *made = calloc(1, sizeof *made);
    if (made == NULL)
        return NULL;
    made->level = level;
    made->haste = LEAST_HASTE;
    if (level == PS_LEVEL_LZ4)
        made->lz4 = malloc((size_t)LZ4_sizeofState());
    else
        made->zstd = ZSTD_createCCtx();
    if (made->lz4 == NULL && made->zstd == NULL) {
        free(made);
        return NULL;
    }
    return made;
}

void
ps_compressor_free(ps_compressor *compressor)
{
    if (compressor == NULL)
        return;
    ZSTD_freeCCtx(compressor->zstd);
    free(compressor->lz4);
    free(compressor);
}

size_t
ps_compress_bound(const ps_compressor *compressor, size_t raw)
{
    if (compressor->zstd != NULL)
        return ZSTD_compressBound(raw);
    return raw > LZ4_MAX_INPUT_SIZE ? raw : (size_t)LZ4_compressBound((int)raw);
}

/* Bytes that hardly shrink are not searched as thoroughly the next time. */
static void
choose_haste(ps_compressor *compressor, size_t raw, size_t size)
{
    bool worthwhile = size > 0 && size <= raw / 2;
    if (worthwhile && compressor->haste > LEAST_HASTE)
        compressor->haste /= 2;
    else if (!worthwhile && compressor->haste < MOST_HASTE)
        compressor->haste *= 2;
}

/* 0 when it cannot be done. */
static size_t
shrink(ps_compressor *compressor, uint8_t *to, size_t room, const uint8_t *from, size_t raw)
{
    if (compressor->zstd != NULL) {
        size_t size = ZSTD_compressCCtx(compressor->zstd, to, room, from, raw, compressor->level);
        return ZSTD_isError(size) ? 0 : size;
    }
    if (raw > LZ4_MAX_INPUT_SIZE)
        return 0;
    size_t size = (size_t)LZ4_compress_fast_extState(
        compressor->lz4, (const char *)from, (char *)to, (int)raw, (int)room, compressor->haste);
    choose_haste(compressor, raw, size);
    return size;
}

size_t
ps_compress(ps_compressor *compressor, uint8_t *to, const uint8_t *from, size_t raw,
            enum ps_codec *codec)
{
    size_t size = shrink(compressor, to, ps_compress_bound(compressor, raw), from, raw);
    if (size > 0 && size < raw) {
        *codec = compressor->zstd != NULL ? PS_CODEC_ZSTD : PS_CODEC_LZ4;
        return size;
    }
    *codec = PS_CODEC_NONE;
    memcpy(to, from, raw);
    return raw;
}

ps_decompressor *
ps_decompressor_make(void)
{
    ps_decompressor *made = calloc(1, sizeof *made);
    if (made != NULL && (made->zstd = ZSTD_createDCtx()) == NULL) {
        free(made);
        return NULL;
    }
    return made;
}

void
ps_decompressor_free(ps_decompressor *decompressor)
{
    if (decompressor == NULL)
        return;
    ZSTD_freeDCtx(decompressor->zstd);
    free(decompressor);
}

int
ps_decompress(ps_decompressor *decompressor, enum ps_codec codec, uint8_t *to, size_t raw,
              const uint8_t *from, size_t stored)
{
    switch (codec) {
    case PS_CODEC_NONE:
        if (stored == raw)
            memcpy(to, from, raw);
        return stored == raw;
    case PS_CODEC_ZSTD:
        return ZSTD_decompressDCtx(decompressor->zstd, to, raw, from, stored) == raw;
    case PS_CODEC_LZ4:
        return stored <= INT_MAX && raw <= INT_MAX &&
               LZ4_decompress_safe((const char *)from, (char *)to, (int)stored, (int)raw) ==
                   (int)raw;
    default:
        return 0;
    }
}
