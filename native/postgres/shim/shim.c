/*
 * pagestore_shim: makes a stock Postgres a compute of pagestore.
 *
 * Loaded by shared_preload_libraries into the postmaster of a data directory that pagestore
 * has laid: hardly any relation files, and a remote map that says which there are, and which
 * blocks are still only on the page server. The parts, bottom-up:
 *
 *   smgr_table.c   finds the storage manager's function table and takes slots over
 *   remote_map.c   the map: a file in memory, a bit a block
 *   grpc_stream.c  a gRPC call on a non-blocking socket; knows nothing of Postgres
 *   page_client.c  a process's requests and answers; waiting, cancelling, retrying
 *   materialize.c  makes a relation's files when they are first needed
 *   readahead.c    asking for blocks before they are read
 *   hydrate.c      the hooks in the storage manager's table
 *   hooks_N.c      what major N calls them by
 *   sizes.c        the SQL functions that ask the file system how long relations are
 *   bypass.c       statements that go past the storage manager
 *   imports.c      takes over a function that the server imports
 *   slots.c        logs the states of replication slots
 *   settings.c     settings that are pagestore's, and libraries that are the user's
 *   fsm_log.c      the worker that logs free space maps at a clean stop
 *   start.c        a start that waits for its directory
 *
 * Not here: WAL. It leaves through the stock walsender to the WAL service.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "hooks.h"
#include "hydrate.h"
#include "miscadmin.h"
#include "page_client.h"
#include "shim.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/pg_lsn.h"
#include "version.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

ShimSettings shim_settings;

static char *tenant_text;
static char *timeline_text;
static char *lsn_text;
static char *map_path;
static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;

static void
request_shmem(void)
{
    if (next_shmem_request)
        next_shmem_request();
    hydrate_request_shmem();
    RequestAddinShmemSpace(fsm_log_shmem_size());
}

/* Not again when shared memory is made anew after a crash: the files are what they were. */
static void
open_directory(void)
{
    if (IsUnderPostmaster || remote_map_bits != NULL)
        return;
    start_wait_for_files();
    remote_map_open(map_path);
}

static void
start_shmem(void)
{
    if (next_shmem_startup)
        next_shmem_startup();
    LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
    hydrate_init_shmem();
    fsm_log_shmem_init();
    LWLockRelease(AddinShmemInitLock);
    open_directory();
}

static void
define_string(const char *name, const char *description, char **value, const char *boot)
{
    DefineCustomStringVariable(name, description, NULL, value, boot, PGC_POSTMASTER, 0, NULL, NULL,
                               NULL);
}

static void
define_settings(void)
{
    define_string("pagestore.page_server",
                  "Address of the page server, as host:port or unix:/path.",
                  &shim_settings.page_server, "");
    define_string("pagestore.token_file", "The file of the token that the page server is shown.",
                  &shim_settings.token_file, "");
    define_string("pagestore.authority_file",
                  "Whose certificates the page server's is one of; empty for no TLS.",
                  &shim_settings.authority_file, "");
    define_string("pagestore.tenant_id", "The tenant, as 32 hexadecimal digits.", &tenant_text,
                  "");
    define_string("pagestore.timeline_id", "The timeline, as 32 hexadecimal digits.",
                  &timeline_text, "");
    define_string("pagestore.lsn", "The LSN at which remote blocks are read.", &lsn_text, "0/0");
    define_string("pagestore.remote_map", "The remote map, relative to the data directory.",
                  &map_path, "pagestore.map");
    DefineCustomIntVariable("pagestore.timeout",
                            "How long a read waits for a page server that is away.", NULL,
                            &shim_settings.timeout_ms, 60000, 100, INT_MAX / 2, PGC_SUSET,
                            GUC_UNIT_MS, NULL, NULL, NULL);
    DefineCustomIntVariable("pagestore.readahead",
                            "How far sequential reads ask ahead; 0 turns it off.", NULL,
                            &shim_settings.readahead, 64, 0, PAGE_BATCH_MAX, PGC_USERSET,
                            GUC_UNIT_BLOCKS, NULL, NULL, NULL);
    DefineCustomIntVariable("pagestore.start_fd",
                            "The line to whoever starts this server; -1 is none.", NULL,
                            &shim_settings.start_fd, -1, -1, INT_MAX, PGC_POSTMASTER, 0, NULL,
                            NULL, NULL);
    DefineCustomIntVariable("pagestore.slot_wal_keep_size",
                            "How much WAL replication slots may hold back before they are lost.",
                            NULL, &shim_settings.slot_wal_keep_mb, 1024, 32, MAX_KILOBYTES,
                            PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
    DefineCustomStringVariable("pagestore.fixed_settings", "Settings that cannot be changed here.",
                               NULL, &shim_settings.fixed, "", PGC_POSTMASTER, GUC_NO_SHOW_ALL,
                               NULL, NULL, NULL);
    MarkGUCPrefixReserved("pagestore");
}

static void
refuse_setting(const char *name, const char *value, const char *wanted)
{
    ereport(FATAL,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
             errmsg("pagestore: %s is \"%s\", not %s", name, value, wanted),
             errhint("Computes are started by pagestore, which sets it. A directory made by"
                     " \"pagestore export\" needs no pagestore_shim.")));
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static void
parse_id(const char *name, const char *text, uint8 *id)
{
    bool valid = strlen(text) == 32;

    for (int i = 0; i < 16 && valid; i++)
    {
        int high = hex_digit(text[2 * i]);
        int low = hex_digit(text[2 * i + 1]);

        valid = high >= 0 && low >= 0;
        id[i] = (uint8) (high << 4 | low);
    }
    if (!valid)
        refuse_setting(name, text, "32 hexadecimal digits");
}

/* host:port, where a host with colons in it stands in brackets; or unix:/path. */
static void
parse_address(const char *text)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t length = colon == NULL ? 0 : colon - text;

    if (strncmp(text, "unix:/", 6) == 0 && strlen(text + 5) < sizeof shim_settings.host)
    {
        strlcpy(shim_settings.host, text + 5, sizeof shim_settings.host);
        return;
    }
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']')
    {
        host++;
        length -= 2;
    }
    if (colon == NULL || length == 0 || length >= sizeof shim_settings.host || colon[1] == '\0' ||
        strlen(colon + 1) >= sizeof shim_settings.port)
        refuse_setting("pagestore.page_server", text, "host:port or unix:/path");
    memcpy(shim_settings.host, host, length);
    shim_settings.host[length] = '\0';
    strlcpy(shim_settings.port, colon + 1, sizeof shim_settings.port);
}

static void
parse_settings(void)
{
    bool failed = false;

    parse_address(shim_settings.page_server);
    parse_id("pagestore.tenant_id", tenant_text, shim_settings.tenant_id);
    parse_id("pagestore.timeline_id", timeline_text, shim_settings.timeline_id);
    shim_settings.lsn = pg_lsn_in_internal(lsn_text, &failed);
    if (failed || shim_settings.lsn == InvalidXLogRecPtr)
        refuse_setting("pagestore.lsn", lsn_text, "an LSN above 0/0");
}

/*
 * Batches need reads announced well ahead; a value in the configuration still wins. Where reads
 * are started ahead instead, each would wait for the page server by itself: only io_method=sync
 * names blocks before it wants them.
 */
static void
widen_prefetching(void)
{
    if (GetConfigOption("io_method", true, false) != NULL)
        SetConfigOption("io_method", "sync", PGC_POSTMASTER, PGC_S_DYNAMIC_DEFAULT);
    SetConfigOption("effective_io_concurrency", "64", PGC_POSTMASTER, PGC_S_DYNAMIC_DEFAULT);
    SetConfigOption("maintenance_io_concurrency", "64", PGC_POSTMASTER, PGC_S_DYNAMIC_DEFAULT);
}

void
_PG_init(void)
{
    if (!process_shared_preload_libraries_in_progress)
        ereport(FATAL,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                 errmsg("pagestore_shim must be loaded by shared_preload_libraries")));
    if (atoi(GetConfigOption("server_version_num", false, false)) / 10000 !=
        PG_VERSION_NUM / 10000)
        elog(FATAL, "pagestore_shim was built for PostgreSQL %s", PG_MAJORVERSION);
    define_settings();
    hooks_install();
    start_take_settings();
    parse_settings();
    widen_prefetching();
    sizes_install();
    bypass_install();
    commit_wait_install();
    slots_install();
    fsm_log_register_worker();
    next_shmem_request = shmem_request_hook;
    shmem_request_hook = request_shmem;
    next_shmem_startup = shmem_startup_hook;
    shmem_startup_hook = start_shmem;
    settings_load_libraries();
}
