/* Makes relation files that are still only in the map. */
#ifndef PAGESTORE_MATERIALIZE_H
#define PAGESTORE_MATERIALIZE_H

#include "postgres.h"

#include "remote_map.h"

/* Nothing where they are made already. ERROR when the file system refuses. */
extern void materialize_fork(const RemoteFork *fork);
extern void materialize_relation(RelFileLocator node);
extern void materialize_database(Oid db);
extern void materialize_all(void);

/* The files of a database have been removed past the storage manager: none is to be made. */
extern void materialize_forget_database(Oid db);

#endif
