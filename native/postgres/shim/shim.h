/* The settings that _PG_init has read and checked, and what each file of the shim offers it. */
#ifndef PAGESTORE_SHIM_H
#define PAGESTORE_SHIM_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "nodes/parsenodes.h"
#include "storage/block.h"
#include "version.h"

typedef struct ShimSettings
{
    char *page_server; /* as given, for messages */
    char *token_file;  /* what is shown to it; "" for nothing */
    char *authority_file; /* whose certificates are believed; "" for no TLS */
    char host[256];    /* or the path of a Unix socket, and no port */
    char port[16];
    uint8 tenant_id[16];
    uint8 timeline_id[16];
    XLogRecPtr lsn;  /* the LSN of every remote block */
    int timeout_ms;  /* how long one read waits for the page server */
    int readahead;   /* blocks */
    int start_fd;    /* see start.c; -1: none */
    int slot_wal_keep_mb; /* how much WAL users' replication slots may hold back */
    char *fixed;     /* see settings.c */
} ShimSettings;

extern ShimSettings shim_settings;

/* bypass.c: refuses, or prepares for, what reads files past the storage manager. */
extern void bypass_install(void);

/* settings.c: refuses settings that are pagestore's, and loads libraries that are the user's. */
extern void settings_check(const VariableSetStmt *statement);
extern void settings_check_superusers(void);
extern void settings_load_libraries(void);

/* sizes.c: SQL functions that look at relation files. */
extern void sizes_install(void);

/* commit_wait.c: answers a commit only when the WAL service has it. */
extern void commit_wait_install(void);
/* Until they are safe, or that long (-1: for ever); whether they are, or nobody waits. */
extern bool commit_wait_for_own_records(int timeout_ms);

/* start.c: waits for what whoever starts the server is still making. */
extern void start_take_settings(void);
extern void start_wait_for_files(void);
extern void start_tell_when_attached(void);

/* slots.c: logs the states of replication slots, and bounds the WAL that they hold back. */
extern void slots_install(void);
extern void slots_save(void);
extern void slots_check_bound(void);

/* fsm_log.c: logs the free space maps that changed, when the server stops. */
extern Size fsm_log_shmem_size(void);
extern void fsm_log_shmem_init(void);
extern void fsm_log_register_worker(void);
extern void fsm_log_note_write(RelFileLocator node, BlockNumber block);
extern PGDLLEXPORT void pagestore_fsm_main(Datum arg);

#endif
