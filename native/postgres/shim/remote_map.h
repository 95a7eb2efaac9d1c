/*
 * The remote map: one bit a block, set while its content is only on the page server, and one bit
 * a fork, set while even its file is not made. docs/formats/remote-map.md has the layout.
 */
#ifndef PAGESTORE_REMOTE_MAP_H
#define PAGESTORE_REMOTE_MAP_H

#include "postgres.h"

#include "common/relpath.h"
#include "storage/block.h"
#include "version.h"

/* One relation fork, as it lies in the file's index. */
typedef struct RemoteFork
{
    uint32 spc;
    uint32 db;
    uint32 rel;
    uint32 fork;
    uint32 nblocks;
    uint32 zero;
    uint64 first_bit;
} RemoteFork;

/* Maps the file into memory, for this process and all that it forks. FATAL when it is bad. */
extern void remote_map_open(const char *path);

/* The fork's entry, or NULL when nothing of it was ever remote. */
extern const RemoteFork *remote_map_find(RelFileLocator node, ForkNumber fork);

/* Every entry, or those of a database, in the order of (spc, db, rel, fork). */
extern void remote_map_each(void (*visit)(const RemoteFork *fork));
extern void remote_map_each_of_database(Oid db, void (*visit)(const RemoteFork *fork));

/* The content of a block that is still remote, where it came with the map; else NULL. */
extern const char *remote_map_hot_page(const RemoteFork *fork, BlockNumber block);

/* The map's file, and where in it a hot page lies. */
extern int remote_map_file;
extern off_t remote_map_offset(const char *page);

extern uint8 *remote_map_bits;
extern uint8 *remote_map_missing;
extern const RemoteFork *remote_map_index;

static inline bool
remote_map_has_file(const RemoteFork *fork)
{
    size_t bit = fork - remote_map_index;

    return !((__atomic_load_n(&remote_map_missing[bit / 8], __ATOMIC_ACQUIRE) >> (bit % 8)) & 1);
}

static inline void
remote_map_set_file(const RemoteFork *fork)
{
    size_t bit = fork - remote_map_index;

    __atomic_fetch_and(&remote_map_missing[bit / 8], (uint8) ~(1 << (bit % 8)), __ATOMIC_RELEASE);
}

static inline RelFileLocator
remote_fork_node(const RemoteFork *fork)
{
    RelFileLocator node = {fork->spc, fork->db, fork->rel};

    return node;
}

static inline bool
remote_map_is_remote(const RemoteFork *fork, BlockNumber block)
{
    uint64 bit;

    if (block >= fork->nblocks)
        return false;
    bit = fork->first_bit + block;
    return (__atomic_load_n(&remote_map_bits[bit / 8], __ATOMIC_ACQUIRE) >> (bit % 8)) & 1;
}

static inline void
remote_map_clear(const RemoteFork *fork, BlockNumber block)
{
    uint64 bit = fork->first_bit + block;

    __atomic_fetch_and(&remote_map_bits[bit / 8], (uint8) ~(1 << (bit % 8)), __ATOMIC_RELEASE);
}

/* Clears the bits of blocks [first, end of the fork). */
extern void remote_map_clear_from(const RemoteFork *fork, BlockNumber first);

#endif
