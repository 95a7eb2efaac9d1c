/*
 * Writes one layer file: sorted values in, blocks, index, filter and footer out, then fsync.
 * Until finish has returned PS_OK the file is nobody's: free removes what is not finished.
 */
#ifndef PS_LAYER_WRITER_H
#define PS_LAYER_WRITER_H

#include "layer/format.h"
#include "value.h"

typedef struct ps_layer_writer ps_layer_writer;

/* Creates `path`, which must not exist. For `level` see codec.h. Sets *writer to NULL on
 * failure. */
int ps_layer_writer_make(ps_layer_writer **writer, const char *path, const ps_layer_id *id,
                         uint8_t kind, int level, ps_error *err);
/* PS_ERR_INVALID when the value does not come after the one before (see format.h). */
int ps_layer_writer_add(ps_layer_writer *writer, const ps_key *key, uint64_t lsn, uint8_t kind,
                        uint8_t flags, const uint8_t *data, uint32_t length, ps_error *err);
/* Whether a value may come next. */
int ps_layer_writer_fits(const ps_layer_writer *writer, const ps_key *key, uint64_t lsn);
/* Says that it stands for more than it holds, before it is finished: wider bounds of keys and LSNs.
 * What is outside of them is left as it is. */
void ps_layer_writer_cover(ps_layer_writer *writer, const ps_key *least, const ps_key *greatest,
                           uint64_t first_lsn, uint64_t last_lsn);
uint64_t ps_layer_writer_bytes(const ps_layer_writer *writer); /* so far, in the file */
int ps_layer_writer_finish(ps_layer_writer *writer, ps_layer_summary *summary, ps_error *err);
void ps_layer_writer_free(ps_layer_writer *writer);

#endif
