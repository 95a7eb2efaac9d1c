/*
 * The heap's effect beside its pages: clearing bits of the visibility map.
 *
 * A heap record that takes a page out of all-visible says so in a flag. Of old it has no reference
 * to the map's block, and the bits are cleared here, by a patch, whether or not the heap block
 * carries an image. Newer minor releases name the map's blocks whose bits really change, and the
 * map page's LSN moves: then the record goes into that block's chain like any other (ingest.c),
 * and a patch besides would be wrong, since redo would find nothing left to clear. A record with
 * the flag that names none is of an older minor, or its bits were clear already.
 */
#include "wal/route.h"

#define MAP_HEADER 24u
#define HEAP_BLOCKS_PER_BYTE 4u
#define HEAP_BLOCKS_PER_MAP_PAGE ((PS_PAGE_SIZE - MAP_HEADER) * HEAP_BLOCKS_PER_BYTE)

#define ALL_VISIBLE 1u
#define ALL_FROZEN 2u

static int
clear_bits(ps_ingest *in, const ps_wal_block *heap, unsigned bits)
{
    uint32_t page = heap->block / HEAP_BLOCKS_PER_MAP_PAGE;
    uint32_t in_page = heap->block % HEAP_BLOCKS_PER_MAP_PAGE;
    ps_key size_key =
        ps_key_make(PS_KIND_REL_SIZE, heap->spc, heap->db, heap->rel, PS_FORK_VM, 0);
    uint32_t size;
    int rc = ps_get_size(in, &size_key, &size);
    /* A map page that is not there has no bit to clear, and must not come to be by this. */
    if (rc != PS_OK || size == PS_SIZE_ABSENT || page >= size)
        return rc;
    rc = ps_patch_fill(in, MAP_HEADER + in_page / HEAP_BLOCKS_PER_BYTE, 1,
                       (uint8_t)(bits << in_page % HEAP_BLOCKS_PER_BYTE * 2), 0);
    ps_key key =
        ps_key_make(PS_KIND_REL_BLOCK, heap->spc, heap->db, heap->rel, PS_FORK_VM, page);
    return rc != PS_OK ? rc : ps_patch_put(in, &key);
}

static int
names_map(const ps_wal_decoded *decoded)
{
    for (unsigned i = 0; i < decoded->block_count; i++)
        if (decoded->blocks[i].fork == PS_FORK_VM)
            return 1;
    return 0;
}

/* If the flags byte at `at` has `flag`: clears for block `id`, which must be there. */
static int
clear_if(ps_ingest *in, uint32_t at, unsigned flag, uint8_t id, unsigned bits)
{
    int rc = ps_need_main(in, at + 1);
    if (rc != PS_OK || (in->decoded->main[at] & flag) == 0 || names_map(in->decoded))
        return rc;
    const ps_wal_block *heap = ps_wal_find_block(in->decoded, id);
    if (heap == NULL)
        return ps_refuse(in, PS_ERR_CORRUPT, "it does not name its heap block");
    return clear_bits(in, heap, bits);
}

/* Block 0 is the new version's page; block 1 the old one's, when it is another. */
static int
route_update(ps_ingest *in)
{
    uint8_t old = ps_wal_find_block(in->decoded, 1) != NULL ? 1 : 0;
    int rc = clear_if(in, 7, 1, old, ALL_VISIBLE | ALL_FROZEN);
    return rc != PS_OK ? rc : clear_if(in, 7, 2, 0, ALL_VISIBLE | ALL_FROZEN);
}

int
ps_route_heap(ps_ingest *in)
{
    /* 0x80, INIT_PAGE, may be set with any of them, and says nothing of the map. */
    switch (in->decoded->record.info & 0x70) {
    case 0x00: /* INSERT */
        return clear_if(in, 2, 1, 0, ALL_VISIBLE | ALL_FROZEN);
    case 0x10: /* DELETE */
        return clear_if(in, 7, 1, 0, ALL_VISIBLE | ALL_FROZEN);
    case 0x20: /* UPDATE */
    case 0x40: /* HOT_UPDATE */
        return route_update(in);
    case 0x60: /* LOCK */
        return clear_if(in, 7, 1, 0, ALL_FROZEN);
    default: /* TRUNCATE, CONFIRM, INPLACE */
        return PS_OK;
    }
}

int
ps_route_heap2(ps_ingest *in)
{
    switch (in->decoded->record.info & 0x70) {
    case 0x50: /* MULTI_INSERT */
        return clear_if(in, 0, 1, 0, ALL_VISIBLE | ALL_FROZEN);
    case 0x60: /* LOCK_UPDATED */
        return clear_if(in, 7, 1, 0, ALL_FROZEN);
    case 0x00: /* REWRITE */
        return ps_put_rewrite(in);
    default: /* PRUNE, VACUUM, FREEZE_PAGE, VISIBLE name their blocks; NEW_CID */
        return PS_OK;
    }
}
