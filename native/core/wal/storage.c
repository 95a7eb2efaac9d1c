/* The Storage, Database and RelMap resource managers: what exists, and how large it is. */
#include "wal/route.h"

#define LONGEST_RELMAP 1024

#define TRUNCATE_HEAP 1u
#define TRUNCATE_VM 2u
#define TRUNCATE_FSM 4u

#define PAGE_HEADER 24u
#define VM_BLOCKS_PER_BYTE 4u
#define VM_BLOCKS_PER_PAGE ((PS_PAGE_SIZE - PAGE_HEADER) * VM_BLOCKS_PER_BYTE)
#define FSM_LEAVES_AT (PAGE_HEADER + 4u + PS_PAGE_SIZE / 2 - 1)
#define FSM_SLOTS (PS_PAGE_SIZE - FSM_LEAVES_AT)

typedef struct relation {
    uint32_t spc;
    uint32_t db;
    uint32_t rel;
} relation;

static relation
get_relation(const uint8_t *p)
{
    return (relation){ps_get_le32(p), ps_get_le32(p + 4), ps_get_le32(p + 8)};
}

static ps_key
size_key(relation r, uint8_t fork)
{
    return ps_key_make(PS_KIND_REL_SIZE, r.spc, r.db, r.rel, fork, 0);
}

/* Cuts a fork that is longer; `tail` says that the patch built so far is for its last block. */
static int
cut(ps_ingest *in, relation r, uint8_t fork, uint32_t blocks, int tail)
{
    ps_key key = size_key(r, fork);
    uint32_t size;
    int rc = ps_get_size(in, &key, &size);
    if (rc == PS_OK && tail && size != PS_SIZE_ABSENT && size >= blocks) {
        ps_key page = ps_key_make(PS_KIND_REL_BLOCK, r.spc, r.db, r.rel, fork, blocks - 1);
        rc = ps_patch_put(in, &page);
    }
    /* A fork that ends before has no use for the patch. */
    in->op_count = 0;
    if (rc == PS_OK && size != PS_SIZE_ABSENT && size > blocks)
        rc = ps_set_size(in, &key, blocks);
    return rc;
}

/* The map's bits for heap blocks from `heap_blocks` on. */
static int
cut_vm(ps_ingest *in, relation r, uint32_t heap_blocks)
{
    uint32_t page = heap_blocks / VM_BLOCKS_PER_PAGE;
    uint32_t in_page = heap_blocks % VM_BLOCKS_PER_PAGE;
    if (in_page == 0)
        return cut(in, r, PS_FORK_VM, page, 0);
    uint32_t at = PAGE_HEADER + in_page / VM_BLOCKS_PER_BYTE;
    unsigned kept = (1u << in_page % VM_BLOCKS_PER_BYTE * 2) - 1;
    int rc = ps_patch_fill(in, at, 1, (uint8_t)~kept, 0);
    if (rc == PS_OK && at + 1 < PS_PAGE_SIZE)
        rc = ps_patch_fill(in, at + 1, PS_PAGE_SIZE - at - 1, 0xFF, 0);
    return rc != PS_OK ? rc : cut(in, r, PS_FORK_VM, page + 1, 1);
}

/*
 * Free space of heap blocks from `heap_blocks` on: the leaves only. What upper nodes promise too
 * much is found out by who searches there, as after a crash.
 */
static int
cut_fsm(ps_ingest *in, relation r, uint32_t heap_blocks)
{
    uint32_t leaf = heap_blocks / FSM_SLOTS, slot = heap_blocks % FSM_SLOTS;
    /* Before a leaf: the root, earlier leaves, an upper page for each FSM_SLOTS of them. */
    uint32_t page = leaf + leaf / FSM_SLOTS + leaf / FSM_SLOTS / FSM_SLOTS + 2;
    if (slot == 0)
        return cut(in, r, PS_FORK_FSM, page, 0);
    uint32_t at = FSM_LEAVES_AT + slot;
    int rc = ps_patch_fill(in, at, PS_PAGE_SIZE - at, 0xFF, 0);
    return rc != PS_OK ? rc : cut(in, r, PS_FORK_FSM, page + 1, 1);
}

static int
truncate_relation(ps_ingest *in)
{
    int rc = ps_need_main(in, 20);
    if (rc != PS_OK)
        return rc;
    uint32_t blocks = ps_get_le32(in->decoded->main);
    relation r = get_relation(in->decoded->main + 4);
    uint32_t flags = ps_get_le32(in->decoded->main + 16);
    /* Redo makes the fork where it is not; so does this. */
    ps_key main_key = size_key(r, PS_FORK_MAIN);
    uint32_t size;
    rc = ps_get_size(in, &main_key, &size);
    if (rc == PS_OK && size == PS_SIZE_ABSENT)
        rc = ps_set_size(in, &main_key, 0);
    if (rc == PS_OK && (flags & TRUNCATE_HEAP) != 0)
        rc = cut(in, r, PS_FORK_MAIN, blocks, 0);
    if (rc == PS_OK && (flags & TRUNCATE_FSM) != 0)
        rc = cut_fsm(in, r, blocks);
    if (rc == PS_OK && (flags & TRUNCATE_VM) != 0)
        rc = cut_vm(in, r, blocks);
    return rc;
}

int
ps_route_smgr(ps_ingest *in)
{
    if ((in->decoded->record.info & 0xF0) == 0x20)
        return truncate_relation(in);
    int rc = ps_need_main(in, 16);
    if (rc != PS_OK)
        return rc;
    uint32_t fork = ps_get_le32(in->decoded->main + 12);
    if (fork > PS_FORK_INIT)
        return ps_refuse(in, PS_ERR_CORRUPT, "it names a fork that Postgres does not have");
    ps_key key = size_key(get_relation(in->decoded->main), (uint8_t)fork);
    return ps_set_size(in, &key, 0);
}

static int
put_database(ps_ingest *in, uint32_t spc, uint32_t db, uint32_t flags)
{
    ps_key key = ps_key_make(PS_KIND_DATABASE, spc, db, 0, 0, 0);
    return ps_put(in, &key, PS_VALUE_IMAGE, &flags, sizeof flags);
}

static int
drop_sizes_of(ps_ingest *in, uint32_t spc, uint32_t db)
{
    ps_key low = ps_key_make(PS_KIND_REL_SIZE, spc, db, 0, 0, 0);
    ps_key high = ps_key_make(PS_KIND_REL_SIZE, spc, db, UINT32_MAX, UINT8_MAX, UINT32_MAX);
    ps_key *keys;
    size_t count;
    int rc = ps_list_sizes(in, &low, &high, &keys, &count);
    if (rc != PS_OK)
        return rc;
    for (size_t i = 0; rc == PS_OK && i < count; i++)
        rc = ps_drop_size(in, &keys[i]);
    free(keys);
    return rc;
}

static int
drop_database(ps_ingest *in, uint32_t spc, uint32_t db)
{
    ps_key database = ps_key_make(PS_KIND_DATABASE, spc, db, 0, 0, 0);
    ps_key relmap = ps_key_make(PS_KIND_RELMAP, spc, db, 0, 0, 0);
    int rc = drop_sizes_of(in, spc, db);
    if (rc == PS_OK)
        rc = ps_put_tombstone(in, &relmap);
    return rc != PS_OK ? rc : ps_put_tombstone(in, &database);
}

static int
copy_relmap(ps_ingest *in, const ps_clone *clone)
{
    uint8_t map[LONGEST_RELMAP];
    size_t length = 0;
    ps_key from = ps_key_make(PS_KIND_RELMAP, clone->src_spc, clone->src_db, 0, 0, 0);
    ps_key to = ps_key_make(PS_KIND_RELMAP, clone->dst_spc, clone->dst_db, 0, 0, 0);
    int rc = ps_latest(in, &from, map, sizeof map, &length);
    if (rc == PS_ERR_NOT_FOUND)
        return PS_OK;
    return rc != PS_OK ? rc : ps_put(in, &to, PS_VALUE_IMAGE, map, length);
}

/* A PG_VERSION lies in the database's own tablespace alone: for each of its tablespaces there is
 * a record. That of a database made by initdb's bootstrap is in no WAL, but it is in pg_default. */
static int
copy_database(ps_ingest *in, const ps_clone *clone)
{
    uint32_t flags = 0;
    size_t length = 0;
    ps_key from = ps_key_make(PS_KIND_DATABASE, clone->src_spc, clone->src_db, 0, 0, 0);
    int rc = ps_latest(in, &from, (uint8_t *) &flags, sizeof flags, &length);
    if (rc == PS_ERR_NOT_FOUND && clone->src_spc != PS_DEFAULT_TABLESPACE)
        return PS_OK;
    if (rc == PS_ERR_NOT_FOUND)
        flags = PS_DATABASE_HAS_VERSION;
    else if (rc != PS_OK)
        return rc;
    return put_database(in, clone->dst_spc, clone->dst_db, flags);
}

/* The relations are the caller's to copy: only he can read their pages. */
static int
clone_database(ps_ingest *in)
{
    int rc = ps_need_main(in, 16);
    if (rc != PS_OK)
        return rc;
    const uint8_t *p = in->decoded->main;
    ps_clone *clone = &in->step->clone;
    *clone = (ps_clone){.dst_db = ps_get_le32(p),
                        .dst_spc = ps_get_le32(p + 4),
                        .src_db = ps_get_le32(p + 8),
                        .src_spc = ps_get_le32(p + 12)};
    in->step->has_clone = 1;
    /* Redo empties the target first, in case an earlier try left something there. */
    rc = drop_sizes_of(in, clone->dst_spc, clone->dst_db);
    if (rc == PS_OK)
        rc = copy_database(in, clone);
    return rc != PS_OK ? rc : copy_relmap(in, clone);
}

int
ps_route_dbase(ps_ingest *in)
{
    uint8_t op = in->decoded->record.info & 0xF0;
    if (op == 0x00) /* CREATE_FILE_COPY */
        return clone_database(in);
    int rc = ps_need_main(in, 8);
    if (rc != PS_OK)
        return rc;
    const uint8_t *p = in->decoded->main;
    uint32_t db = ps_get_le32(p);
    if (op == 0x10) /* CREATE_WAL_LOG */
        return put_database(in, ps_get_le32(p + 4), db, PS_DATABASE_HAS_VERSION);
    uint32_t count = ps_get_le32(p + 4);
    if (count > (in->decoded->main_length - 8) / 4)
        return ps_refuse(in, PS_ERR_CORRUPT, "it is too short for its tablespaces");
    for (uint32_t i = 0; rc == PS_OK && i < count; i++)
        rc = drop_database(in, ps_get_le32(p + 8 + (size_t)i * 4), db);
    return rc;
}

/* Every tablespace lies in the data directory, wherever it did: its key is that of database 0. */
int
ps_route_tblspc(ps_ingest *in)
{
    int rc = ps_need_main(in, 4);
    if (rc != PS_OK)
        return rc;
    uint32_t spc = ps_get_le32(in->decoded->main);
    ps_key key = ps_key_make(PS_KIND_DATABASE, spc, 0, 0, 0, 0);
    if ((in->decoded->record.info & 0xF0) == 0x10) /* DROP */
        return ps_put_tombstone(in, &key);
    return put_database(in, spc, 0, 0);
}

int
ps_route_relmap(ps_ingest *in)
{
    uint32_t length = in->format->relmap_length;
    int rc = ps_need_main(in, 12 + length);
    if (rc != PS_OK)
        return rc;
    const uint8_t *p = in->decoded->main;
    if (ps_get_le32(p + 8) != length)
        return ps_refuse(in, PS_ERR_CORRUPT, "its relation map is not as long as its major's are");
    ps_key key = ps_key_make(PS_KIND_RELMAP, ps_get_le32(p + 4), ps_get_le32(p), 0, 0, 0);
    return ps_put(in, &key, PS_VALUE_IMAGE, p + 12, length);
}
