/* Batches and patches. */
#undef NDEBUG
#include <assert.h>

#include "value.h"

static void
a_patch_fills_under_its_mask(void)
{
    uint8_t page[PS_PAGE_SIZE];
    memset(page, 0xF0, sizeof page);
    ps_patch_op op = {.offset = 8190, .length = 2, .mask = 0x3C, .value = 0x14};
    assert(ps_patch_apply(page, (uint8_t *)&op, sizeof op) == PS_OK);
    assert(page[8189] == 0xF0 && page[8190] == 0xD4 && page[8191] == 0xD4);
}

static void
a_patch_that_leaves_the_page_is_refused(void)
{
    uint8_t page[PS_PAGE_SIZE] = {0};
    ps_patch_op op = {.offset = 8191, .length = 2, .mask = 0xFF, .value = 1};
    assert(ps_patch_apply(page, (uint8_t *)&op, sizeof op) == PS_ERR_CORRUPT);
    assert(ps_patch_apply(page, (uint8_t *)&op, sizeof op - 1) == PS_ERR_CORRUPT);
}

static void
a_batch_keeps_what_was_put(void)
{
    ps_batch batch;
    ps_batch_init(&batch);
    for (uint32_t i = 0; i < 3000; i++) {
        uint64_t offset;
        ps_key key = ps_key_make(PS_KIND_REL_BLOCK, 1663, 5, 7, 0, i);
        assert(ps_batch_payload(&batch, &i, sizeof i, &offset) == PS_OK);
        assert(ps_batch_entry(&batch, &key, PS_VALUE_IMAGE, 0, i, offset, sizeof i) == PS_OK);
    }
    assert(batch.count == 3000 && ps_key_block(&batch.entries[2999].key) == 2999);
    assert(memcmp(batch.data + batch.entries[2999].offset, &(uint32_t){2999}, 4) == 0);
    ps_batch_clear(&batch);
    assert(batch.count == 0 && batch.data_length == 0);
    ps_batch_free(&batch);
}

int
main(void)
{
    a_patch_fills_under_its_mask();
    a_patch_that_leaves_the_page_is_refused();
    a_batch_keeps_what_was_put();
    return 0;
}
