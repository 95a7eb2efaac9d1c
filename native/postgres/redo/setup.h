/* What the set-up of a helper is in each major: setup_N.c. */
#ifndef PAGESTORE_REDO_SETUP_H
#define PAGESTORE_REDO_SETUP_H

#include "storage/proc.h"

/* Where the pages lie that reading gives (storage.h). */
extern char *setup_pages(void);
/* How much shared memory the server would have, and how many semaphores. */
extern Size setup_size(int *semaphores);
/* In shared memory that has its index already: the subsystems that redo routines use. */
extern void setup_shared_memory(void);
/* What a process of its own needs besides MyProc. */
extern void setup_process(PGPROC *self);
/* Replaces the server's table of storage manager functions; FATAL when it is not as expected. */
extern void setup_storage(void);
/* A record is decoded and about to be redone. */
extern void setup_before_redo(XLogReaderState *record);

#endif
