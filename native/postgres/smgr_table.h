/* The storage manager's function table of the running server: found, checked, changed. */
#ifndef PAGESTORE_SMGR_TABLE_H
#define PAGESTORE_SMGR_TABLE_H

#include "postgres.h"

/* One slot to take over: the server's own function, which says which it is, and ours. */
typedef struct SmgrHook
{
    const void *stock;
    const void *ours;
} SmgrHook;

/* Takes the slots over. FATAL, with nothing changed, where the table is not as expected. */
extern void smgr_table_install(const SmgrHook *hooks, int nhooks);

#endif
