/* Makes relation files that are still only in the map. */
#ifndef PAGESTORE_LAY_H
#define PAGESTORE_LAY_H

#include "postgres.h"

#include "remote_map.h"

/* Nothing where they are made already. ERROR when the file system refuses. */
extern void lay_fork(const RemoteFork *fork);
extern void lay_relation(RelFileNode node);
extern void lay_all(void);

/* The files of a database have been removed past the storage manager: none is to be made. */
extern void lay_forget_database(Oid db);

#endif
