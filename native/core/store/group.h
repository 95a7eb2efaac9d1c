/*
 * A group: up to 512 layer files, and a table that says which of them may have a key.
 *
 * Reads make the table, the first that meet four files or more, so groups of who is not read have
 * none.
 *
 * The table is the files' own filters, turned on their side. A filter is lines of 256 bits, of
 * which a key sets eight (layer/format.h); the table has a row for each of those bits, and in a
 * row one bit a file, its column. So the eight rows of a key, and-ed, are the files that may have
 * it: eight cache lines for 512 files, instead of a look at each. A filter with more or fewer
 * lines than the table is laid over it, which is exact when one is a multiple of the other.
 *
 * A group is only ever added to, at its end, and who holds it knows how many of its files he
 * sees; so all versions of a history share it, and to add a file copies nothing. Of two that
 * would add at the same place one is refused, and copies. A column is filled by whichever reader
 * comes first that may wait for the file (ps_group_learn); until then the file may have any key.
 * None of it needs a lock.
 */
#ifndef PS_STORE_GROUP_H
#define PS_STORE_GROUP_H

#include "layer/file.h"
#include "layer/open.h"

#define PS_GROUP_MOST 512u
#define PS_GROUP_WORDS (PS_GROUP_MOST / 64)
/* All tables of the process together; where that is passed, the files' own filters do. */
#define PS_GROUP_TABLE_BYTES ((size_t)64 << 20)

/* Values by key and LSN, and which of them are of this history: LSNs from `lower` to `upper`. An
 * open layer's bounds move with what it takes in; its `lower` here means nothing. */
typedef struct ps_source {
    ps_open_layer *open; /* one of the two */
    ps_layer *file;
    uint64_t lower;
    uint64_t upper;
} ps_source;

typedef struct ps_table {
    uint32_t lines;
    uint64_t known[PS_GROUP_WORDS]; /* the columns that are filled */
    uint8_t rows[] __attribute__((aligned(64))); /* lines * 256, of the group's stride */
} ps_table;

typedef struct ps_group {
    unsigned refs;
    uint32_t room;
    uint32_t used;
    uint32_t stride; /* bytes of a row */
    ps_table *table; /* once it was made; it stays */
    ps_source files[];
} ps_group;

/* Room for at least so many files. NULL: no memory. */
ps_group *ps_group_make(uint32_t room);
void ps_group_retain(ps_group *group);
void ps_group_release(ps_group *group);

/* Adds a file, which it retains, behind the first `count`. 0 if it is full, or if somebody else
 * has added one there. */
int ps_group_add(ps_group *group, uint32_t count, const ps_source *source);
/* The table, for who looks for keys among the first `count` files: it is made now if that pays.
 * NULL: there is none, and each file is to be asked. */
ps_table *ps_group_table(ps_group *group, uint32_t count);
/* Gives column `to` of the first `count` what column `at` of another group says. */
void ps_group_copy_column(ps_group *group, uint32_t count, uint32_t to, const ps_group *from,
                          uint32_t at);
int ps_group_knows(const ps_group *group, uint32_t at);
/* How many of the first `count` columns are empty; 0 without a table. */
uint32_t ps_group_unknown(const ps_group *group, uint32_t count);
/* Fills a column from its file's filter; without effect if that cannot be had now. */
void ps_group_learn(ps_group *group, uint32_t at);

/* Where a key's bits are in any filter. */
typedef struct ps_probe {
    uint64_t hash;
    uint8_t bits[8];
} ps_probe;

ps_probe ps_probe_of(const ps_key *key);
/* Begins to load what ps_group_find will look at. */
void ps_group_prefetch(const ps_group *group, const ps_probe *probe);
/* Of the first `count` files, those that may have the key. The group has a table. */
void ps_group_find(const ps_group *group, uint32_t count, const ps_probe *probe,
                   uint64_t found[PS_GROUP_WORDS]);

#endif
