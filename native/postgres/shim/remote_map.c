/*
 * The remote map's file: checked once, then only looked up and cleared.
 *
 * The mapping is shared and backed by the file, not by shared memory: after a backend crash
 * Postgres makes its shared memory anew, while the blocks hydrated so far stay on disk. The
 * index never changes, so each process may remember what it found in it.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hashfn.h"
#include "port/pg_crc32c.h"
#include "remote_map.h"

#define MAP_MAGIC "PSMAP002"
#define MAP_VERSION 2
#define BITS_ALIGNMENT 4096
#define FOUND_SLOTS 256

typedef struct MapHeader
{
    char magic[8];
    uint32 version;
    uint32 nrels;
    uint64 bits_offset;
    uint64 bits_length;
    uint64 file_length;
    uint32 crc;
    uint32 nhot;
    uint64 hot_offset;
    uint64 missing_offset;
} MapHeader;

/* A block whose content came with the map; the pages lie in the order of these. */
typedef struct HotBlock
{
    uint32 entry;
    uint32 block;
} HotBlock;

StaticAssertDecl(sizeof(MapHeader) == 64, "docs/formats/remote-map.md says 64");
StaticAssertDecl(sizeof(RemoteFork) == 32, "docs/formats/remote-map.md says 32");

/* What an earlier lookup of this process found, by a hash of the relation number. */
typedef struct FoundFork
{
    RelFileLocator node;
    int32 fork_plus_one; /* 0: an empty slot */
    const RemoteFork *entry;
} FoundFork;

uint8 *remote_map_bits;
uint8 *remote_map_missing;
const RemoteFork *remote_map_index;
static uint32 nentries;
static const HotBlock *hot;
static uint32 nhot;
static const char *hot_pages;
static FoundFork found[FOUND_SLOTS];
static const char *base;
int remote_map_file = -1;

static void
refuse(const char *path, const char *fault)
{
    ereport(FATAL,
            (errcode(ERRCODE_DATA_CORRUPTED),
             errmsg("pagestore: the remote map \"%s\" is not usable: %s", path, fault),
             errhint("Throw the data directory away: the compute starts again from a new one.")));
}

static int
compare_forks(const RemoteFork *a, uint32 spc, uint32 db, uint32 rel, uint32 fork)
{
    if (a->spc != spc)
        return a->spc < spc ? -1 : 1;
    if (a->db != db)
        return a->db < db ? -1 : 1;
    if (a->rel != rel)
        return a->rel < rel ? -1 : 1;
    if (a->fork != fork)
        return a->fork < fork ? -1 : 1;
    return 0;
}

static void
check_header(const char *path, const MapHeader *header, uint64 length)
{
    pg_crc32c crc;
    uint32 no_crc = 0;
    uint64 head_length;
    uint64 missing_length = (header->nrels + (uint64) 7) / 8;

    if (memcmp(header->magic, MAP_MAGIC, sizeof header->magic) != 0)
        refuse(path, "it does not begin with \"" MAP_MAGIC "\"");
    if (header->version != MAP_VERSION)
        refuse(path, "another version of the format");
    head_length = sizeof(MapHeader) + (uint64) header->nrels * sizeof(RemoteFork) +
                  (uint64) header->nhot * sizeof(HotBlock);
    if (header->file_length != length)
        refuse(path, "its length is not the one that it states");
    if (header->bits_offset % BITS_ALIGNMENT != 0 || header->bits_offset < head_length ||
        header->bits_offset > length || header->bits_length > length - header->bits_offset ||
        header->missing_offset < head_length || header->missing_offset > length ||
        missing_length > length - header->missing_offset || header->hot_offset < head_length ||
        header->hot_offset > length ||
        (uint64) header->nhot * BLCKSZ > length - header->hot_offset)
        refuse(path, "its areas do not fit into it");
    INIT_CRC32C(crc);
    COMP_CRC32C(crc, header, offsetof(MapHeader, crc));
    COMP_CRC32C(crc, &no_crc, sizeof no_crc);
    COMP_CRC32C(crc, &header->nhot, head_length - offsetof(MapHeader, nhot));
    FIN_CRC32C(crc);
    if (!EQ_CRC32C(crc, header->crc))
        refuse(path, "the checksum does not match");
}

static void
check_index(const char *path, uint64 nbits)
{
    uint64 end = 0;

    for (uint32 i = 0; i < nentries; i++)
    {
        const RemoteFork *fork = &remote_map_index[i];

        if (fork->fork > INIT_FORKNUM || fork->zero != 0)
            refuse(path, "an entry of its index is malformed");
        if (i > 0 && compare_forks(fork - 1, fork->spc, fork->db, fork->rel, fork->fork) >= 0)
            refuse(path, "its index is not in order");
        if (fork->first_bit < end || fork->first_bit > nbits ||
            fork->nblocks > nbits - fork->first_bit)
            refuse(path, "the bits of two relations overlap, or leave the map");
        end = fork->first_bit + fork->nblocks;
        /* Crash recovery copies init forks file by file, past every hook. */
        if (fork->fork == INIT_FORKNUM)
            for (BlockNumber block = 0; block < fork->nblocks; block++)
                if (remote_map_is_remote(fork, block))
                    refuse(path, "a block of an init fork is remote");
        if (fork->fork == INIT_FORKNUM && !remote_map_has_file(fork))
            refuse(path, "the file of an init fork is not made");
    }
}

static int
compare_hot(const HotBlock *a, const HotBlock *b)
{
    if (a->entry != b->entry)
        return a->entry < b->entry ? -1 : 1;
    return a->block == b->block ? 0 : a->block < b->block ? -1 : 1;
}

static void
check_hot(const char *path)
{
    for (uint32 i = 0; i < nhot; i++)
    {
        if (hot[i].entry >= nentries || hot[i].block >= remote_map_index[hot[i].entry].nblocks)
            refuse(path, "a hot block belongs to no relation");
        if (i > 0 && compare_hot(&hot[i - 1], &hot[i]) >= 0)
            refuse(path, "its hot blocks are not in order");
    }
}

void
remote_map_open(const char *path)
{
    struct stat status;
    MapHeader *header;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        ereport(FATAL,
                (errcode_for_file_access(),
                 errmsg("pagestore: could not open the remote map \"%s\": %m", path),
                 errhint("pagestore.remote_map names a file in the data directory.")));
    if (fstat(fd, &status) != 0)
        ereport(FATAL, (errcode_for_file_access(), errmsg("could not stat \"%s\": %m", path)));
    if (status.st_size < (off_t) sizeof(MapHeader))
        refuse(path, "it is shorter than its header");
    header = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED)
        ereport(FATAL, (errcode_for_file_access(), errmsg("could not map \"%s\": %m", path)));
    remote_map_file = fd;
    check_header(path, header, status.st_size);
    base = (const char *) header;
    remote_map_index = (const RemoteFork *) (header + 1);
    nentries = header->nrels;
    hot = (const HotBlock *) (remote_map_index + nentries);
    nhot = header->nhot;
    hot_pages = (const char *) header + header->hot_offset;
    remote_map_missing = (uint8 *) header + header->missing_offset;
    remote_map_bits = (uint8 *) header + header->bits_offset;
    check_index(path, header->bits_length * 8);
    check_hot(path);
}

static const RemoteFork *
search(RelFileLocator node, ForkNumber fork)
{
    uint32 low = 0;
    uint32 high = nentries;

    while (low < high)
    {
        uint32 middle = low + (high - low) / 2;
        const RemoteFork *entry = &remote_map_index[middle];
        int order = compare_forks(entry, node.spcOid, node.dbOid, node.relNumber, (uint32) fork);

        if (order == 0)
            return entry;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const RemoteFork *
remote_map_find(RelFileLocator node, ForkNumber fork)
{
    FoundFork *slot = &found[murmurhash32(node.relNumber ^ ((uint32) fork << 28)) % FOUND_SLOTS];

    if (slot->fork_plus_one == fork + 1 && RelFileLocatorEquals(slot->node, node))
        return slot->entry;
    slot->node = node;
    slot->fork_plus_one = fork + 1;
    slot->entry = search(node, fork);
    return slot->entry;
}

const char *
remote_map_hot_page(const RemoteFork *fork, BlockNumber block)
{
    const HotBlock wanted = {fork - remote_map_index, block};
    uint32 low = 0;
    uint32 high = nhot;

    while (low < high)
    {
        uint32 middle = low + (high - low) / 2;
        int order = compare_hot(&hot[middle], &wanted);

        if (order == 0)
            return hot_pages + (size_t) middle * BLCKSZ;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

off_t
remote_map_offset(const char *page)
{
    return page - base;
}

void
remote_map_each(void (*visit)(const RemoteFork *fork))
{
    for (uint32 i = 0; i < nentries; i++)
        visit(&remote_map_index[i]);
}

void
remote_map_each_of_database(Oid db, void (*visit)(const RemoteFork *fork))
{
    for (uint32 i = 0; i < nentries; i++)
        if (remote_map_index[i].db == db)
            visit(&remote_map_index[i]);
}

void
remote_map_clear_from(const RemoteFork *fork, BlockNumber first)
{
    for (BlockNumber block = first; block < fork->nblocks; block++)
        if (remote_map_is_remote(fork, block))
            remote_map_clear(fork, block);
}
