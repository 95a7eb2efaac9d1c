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

#endif
