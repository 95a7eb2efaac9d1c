/*
 * What differs in WAL between major versions of Postgres: a row a major.
 *
 * Everything else that ingest knows of records is the same in each. Whether a heap record names the
 * blocks of the visibility map whose bits it clears is no matter of the major: minor releases began
 * to, under the same magic, so it is seen at each record (heap.c). The counterparts are
 * native/postgres/version.h and pagestore/pgformat/versions.py; docs/postgres.md says how a major
 * is added.
 */
#ifndef PS_WAL_FORMAT_H
#define PS_WAL_FORMAT_H

#include <stddef.h>
#include <stdint.h>

enum ps_rmgr {
    PS_RMGR_XLOG = 0,
    PS_RMGR_XACT = 1,
    PS_RMGR_SMGR = 2,
    PS_RMGR_CLOG = 3,
    PS_RMGR_DBASE = 4,
    PS_RMGR_TBLSPC = 5,
    PS_RMGR_MULTIXACT = 6,
    PS_RMGR_RELMAP = 7,
    PS_RMGR_STANDBY = 8,
    PS_RMGR_HEAP2 = 9,
    PS_RMGR_HEAP = 10,
    PS_RMGR_BTREE = 11,
    PS_RMGR_HASH = 12,
    PS_RMGR_GIN = 13,
    PS_RMGR_GIST = 14,
    PS_RMGR_SEQ = 15,
    PS_RMGR_SPGIST = 16,
    PS_RMGR_BRIN = 17,
    PS_RMGR_COMMIT_TS = 18,
    PS_RMGR_REPLORIGIN = 19,
    PS_RMGR_GENERIC = 20,
    PS_RMGR_LOGICALMSG = 21,
    PS_RMGR_COUNT = 22,
    PS_RMGR_FIRST_CUSTOM = 128
};

typedef struct ps_wal_format {
    unsigned major;
    uint32_t catalog_version;           /* in control files: by it a timeline is known */
    uint16_t magic;                     /* of each page */
    uint16_t operations[PS_RMGR_COUNT]; /* bit n: info & 0xF0 == n << 4 is known */
    uint32_t relmap_length;             /* of pg_filenode.map, bytes */
    uint32_t dropped_stats_length;      /* of one item in a commit, bytes */
    uint32_t slru_page_length;          /* of a page number in records of SLRUs, bytes */
} ps_wal_format;

/* NULL where no major is known by that. Catalog version 0 stands for the oldest major. */
const ps_wal_format *ps_wal_format_by_magic(uint16_t magic);
const ps_wal_format *ps_wal_format_by_catalog(uint32_t catalog_version);

#endif
