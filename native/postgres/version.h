/*
 * Everything that differs between major versions of Postgres, for both modules. A module is
 * built for one major and refuses to load into another; every minor of it will do.
 */
#ifndef PAGESTORE_VERSION_H
#define PAGESTORE_VERSION_H

#if PG_VERSION_NUM / 10000 != 15
#error "pagestore is written for PostgreSQL 15: point PG_CONFIG at its pg_config"
#endif

/* The number of slots of the storage manager's table (f_smgr of smgr.c). */
#define PAGESTORE_SMGR_SLOTS 15

/* Where in it the slots lie that the modules take. */
#define PAGESTORE_SLOT_CLOSE 3
#define PAGESTORE_SLOT_CREATE 4
#define PAGESTORE_SLOT_EXISTS 5
#define PAGESTORE_SLOT_UNLINK 6
#define PAGESTORE_SLOT_EXTEND 7
#define PAGESTORE_SLOT_PREFETCH 8
#define PAGESTORE_SLOT_READ 9
#define PAGESTORE_SLOT_WRITE 10
#define PAGESTORE_SLOT_WRITEBACK 11
#define PAGESTORE_SLOT_NBLOCKS 12
#define PAGESTORE_SLOT_TRUNCATE 13

/* Minors from 15.11 on tell smgr_truncate the old length too, and export this function. */
#define PAGESTORE_TRUNCATE_TELLS_OLD_LENGTH "smgrtruncate2"

#endif
