/*
 * How a block's bytes are stored: as they are, as one zstd frame, or as one LZ4 block.
 *
 * Fresh layers are written with LZ4, which takes a third of zstd's time to write and a quarter
 * to read; layers that stay are written with zstd, which takes half the bytes or less.
 */
#ifndef PS_LAYER_CODEC_H
#define PS_LAYER_CODEC_H

#include <stddef.h>
#include <stdint.h>

enum ps_codec { PS_CODEC_NONE = 0, PS_CODEC_ZSTD = 1, PS_CODEC_LZ4 = 2, PS_CODECS };

#define PS_LEVEL_LZ4 0 /* any other level is zstd's */

typedef struct ps_compressor ps_compressor;

/* NULL when memory is out. */
ps_compressor *ps_compressor_make(int level);
void ps_compressor_free(ps_compressor *compressor);
/* How much room `ps_compress` needs for so many bytes. */
size_t ps_compress_bound(const ps_compressor *compressor, size_t raw);
/* Stores `raw` bytes and says how: with PS_CODEC_NONE when they would not shrink. */
size_t ps_compress(ps_compressor *compressor, uint8_t *to, const uint8_t *from, size_t raw,
                   enum ps_codec *codec);

typedef struct ps_decompressor ps_decompressor;

ps_decompressor *ps_decompressor_make(void);
void ps_decompressor_free(ps_decompressor *decompressor);
/* 1 when exactly `raw` bytes came out. */
int ps_decompress(ps_decompressor *decompressor, enum ps_codec codec, uint8_t *to, size_t raw,
                  const uint8_t *from, size_t stored);

#endif
