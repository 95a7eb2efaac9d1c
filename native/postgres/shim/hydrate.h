/* Bringing remote blocks; what the storage manager is hooked with is in hooks.h. */
#ifndef PAGESTORE_HYDRATE_H
#define PAGESTORE_HYDRATE_H

#include "postgres.h"

#include "remote_map.h"
#include "storage/lwlock.h"

/* Shared memory: the locks. */
extern void hydrate_request_shmem(void);
extern void hydrate_init_shmem(void);

/* Stores a page that came from the page server, if its block is still remote. Alters it. */
extern void hydrate_store(const RemoteFork *fork, BlockNumber block, char *page);

/* Brings every remote block of a database. */
extern void hydrate_database(Oid db);

/* What serializes the storing of a block, or with block 0 the making of the file. */
extern LWLock *hydrate_lock(const RemoteFork *fork, BlockNumber block);

#endif
