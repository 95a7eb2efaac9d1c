/*
 * The values of several delta layers as one stream: by key, then newest first; one pass, forwards.
 *
 * Files are opened when the stream comes to their first key and let go behind their last, so files
 * that share a range of LSNs by ranges of keys hold one descriptor and one block between them, and
 * memory goes by how many overlap. Blocks are not taken into the cache: nobody reads them again.
 */
#ifndef PS_STORE_INPUTS_H
#define PS_STORE_INPUTS_H

#include "layer/file.h"

typedef struct ps_input {
    ps_layer *layer;
    uint64_t upto; /* values beyond it are of another history: who takes them looks */
    ps_layer_cursor cursor;
    ps_layer_value_header header; /* of the value at which the cursor stands */
    ps_ordered_key key;
    const uint8_t *data;
} ps_input;

typedef struct ps_inputs {
    ps_input *all; /* by least key; each retained */
    size_t count;
    size_t begun;    /* so many were opened */
    ps_input **heap; /* those that stand at a value, the foremost first */
    size_t open;
} ps_inputs;

/* Stands at the first value at or after `low`. `uppers`: how far each layer counts; NULL: all. */
int ps_inputs_open(ps_inputs *inputs, ps_layer *const *layers, const uint64_t *uppers,
                   size_t count, const ps_key *low, ps_error *err);
void ps_inputs_close(ps_inputs *inputs);
/* The value at which the stream stands, until it moves; NULL at the end. */
const ps_input *ps_inputs_at(const ps_inputs *inputs);
int ps_inputs_next(ps_inputs *inputs, ps_error *err);
/* To the first value of the next key. */
int ps_inputs_skip_key(ps_inputs *inputs, ps_error *err);

#endif
