#include "store/inputs.h"

#include <stdlib.h>

static int
is_ahead(const ps_input *a, const ps_input *b)
{
    return ps_position_compare(&a->key, a->header.lsn, &b->key, b->header.lsn) < 0;
}

static void
sift_down(ps_inputs *inputs, size_t at)
{
    ps_input **heap = inputs->heap, *moved = heap[at];
    for (size_t child; (child = 2 * at + 1) < inputs->open; at = child) {
        if (child + 1 < inputs->open && is_ahead(heap[child + 1], heap[child]))
            child++;
        if (!is_ahead(heap[child], moved))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void
push(ps_inputs *inputs, ps_input *input)
{
    ps_input **heap = inputs->heap;
    size_t at = inputs->open++;
    for (; at > 0 && is_ahead(input, heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = input;
}

static void
look(ps_input *input)
{
    ps_layer_cursor_value(&input->cursor, &input->header, &input->data);
    input->key = ps_key_order(&input->header.key);
}

static int
begin(ps_inputs *inputs, ps_input *input, const ps_key *low, ps_error *err)
{
    inputs->begun++;
    int rc = ps_layer_cursor_open(&input->cursor, input->layer, err);
    input->cursor.uncached = 1;
    if (rc == PS_OK)
        rc = ps_layer_cursor_seek(&input->cursor, low, UINT64_MAX, 0, err);
    if (rc == PS_OK && input->cursor.valid) {
        look(input);
        push(inputs, input);
    } else {
        ps_layer_cursor_close(&input->cursor);
    }
    return rc;
}

/* Opens the files whose first key is not behind the foremost. */
static int
begin_due(ps_inputs *inputs, ps_error *err)
{
    int rc = PS_OK;
    while (rc == PS_OK && inputs->begun < inputs->count) {
        ps_input *next = &inputs->all[inputs->begun];
        const ps_key *least = &ps_layer_known(next->layer)->min_key;
        ps_ordered_key ordered = ps_key_order(least);
        if (inputs->open > 0 && ps_ordered_compare(&inputs->heap[0]->key, &ordered) < 0)
            break;
        rc = begin(inputs, next, least, err);
    }
    return rc;
}

static int
by_least_key(const void *a, const void *b)
{
    return ps_key_compare(&ps_layer_known(((const ps_input *)a)->layer)->min_key,
                          &ps_layer_known(((const ps_input *)b)->layer)->min_key);
}

int
ps_inputs_open(ps_inputs *inputs, ps_layer *const *layers, const uint64_t *uppers, size_t count,
               const ps_key *low, ps_error *err)
{
    *inputs = (ps_inputs){.all = calloc(count + 1, sizeof *inputs->all),
                          .heap = calloc(count + 1, sizeof *inputs->heap)};
    if (inputs->all == NULL || inputs->heap == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for %zu layers", count);
    for (size_t i = 0; i < count; i++)
        if (ps_key_compare(&ps_layer_known(layers[i])->max_key, low) >= 0)
            inputs->all[inputs->count++] =
                (ps_input){.layer = ps_layer_retain(layers[i]),
                           .upto = uppers == NULL ? UINT64_MAX : uppers[i]};
    qsort(inputs->all, inputs->count, sizeof *inputs->all, by_least_key);
    int rc = PS_OK;
    while (rc == PS_OK && inputs->begun < inputs->count &&
           ps_key_compare(&ps_layer_known(inputs->all[inputs->begun].layer)->min_key, low) < 0)
        rc = begin(inputs, &inputs->all[inputs->begun], low, err);
    return rc == PS_OK ? begin_due(inputs, err) : rc;
}

void
ps_inputs_close(ps_inputs *inputs)
{
    for (size_t i = 0; i < inputs->count; i++) {
        ps_layer_cursor_close(&inputs->all[i].cursor);
        ps_layer_release(inputs->all[i].layer);
    }
    free(inputs->all);
    free(inputs->heap);
    *inputs = (ps_inputs){0};
}

const ps_input *
ps_inputs_at(const ps_inputs *inputs)
{
    return inputs->open > 0 ? inputs->heap[0] : NULL;
}

/* The foremost has moved: to its place, or out. */
static int
settle(ps_inputs *inputs, ps_error *err)
{
    ps_input *moved = inputs->heap[0];
    if (moved->cursor.valid) {
        look(moved);
    } else {
        ps_layer_cursor_close(&moved->cursor);
        inputs->heap[0] = inputs->heap[--inputs->open];
    }
    if (inputs->open > 1)
        sift_down(inputs, 0);
    return begin_due(inputs, err);
}

int
ps_inputs_next(ps_inputs *inputs, ps_error *err)
{
    int rc = ps_layer_cursor_next(&inputs->heap[0]->cursor, err);
    return rc == PS_OK ? settle(inputs, err) : rc;
}

int
ps_inputs_skip_key(ps_inputs *inputs, ps_error *err)
{
    ps_ordered_key key = inputs->heap[0]->key;
    int rc = PS_OK;
    while (rc == PS_OK && inputs->open > 0 &&
           ps_ordered_compare(&inputs->heap[0]->key, &key) == 0) {
        ps_input *at = inputs->heap[0];
        const ps_key raw = at->header.key;
        rc = ps_layer_cursor_next(&at->cursor, err);
        if (rc == PS_OK && at->cursor.valid) {
            look(at);
            if (ps_ordered_compare(&at->key, &key) == 0) /* chains are long or short */
                rc = ps_layer_cursor_seek(&at->cursor, &raw, 0, 0, err);
        }
        if (rc == PS_OK)
            rc = settle(inputs, err);
    }
    return rc;
}
