/*
 * The values of one key that a read at an LSN needs: newest first, down to the first that
 * needs nothing older. Sources add to it in that order until it is complete.
 */
#ifndef PS_LAYER_CHAIN_H
#define PS_LAYER_CHAIN_H

#include "layer/arena.h"
#include "value.h"

typedef struct ps_chain_item {
    uint64_t lsn;
    const uint8_t *data;
    uint32_t length;
    uint8_t kind;
    uint8_t flags;
} ps_chain_item;

typedef struct ps_chain {
    ps_arena *arena;       /* where payloads and items are copied to */
    uint8_t *page;         /* where an image of a page is copied to instead, or NULL */
    ps_chain_item *items;
    uint32_t count;
    uint32_t capacity;
    int complete;
    int newest_only;       /* metadata: the first value found is the answer */
} ps_chain;

/* Copies one value in. PS_ERR_NOMEM, or PS_ERR_CORRUPT when it cannot be what it says. */
int ps_chain_add(ps_chain *chain, uint64_t lsn, uint8_t kind, uint8_t flags, const uint8_t *data,
                 uint32_t length, ps_error *err);

#endif
