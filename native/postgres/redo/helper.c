/*
 * The redo helper: a stock Postgres binary that does nothing but redo.
 *
 * The page server must turn a base image and WAL records into a page, exactly as Postgres
 * does, for every access method. The only code that surely does is Postgres's own. So the
 * server binary is started in single-user mode on a tiny directory (PG_VERSION, an empty
 * postgresql.conf, global/pg_control) with this library preloaded; _PG_init takes over before
 * any shared memory exists, sets up by hand the few subsystems that redo routines use (what
 * differs by major is in setup_N.c), replaces the storage manager (storage.c), shuts itself into
 * a sandbox (sandbox.c) and then serves requests from fd 0 to fd 1 until end of file
 * (docs/formats/redo-protocol.md). It never returns to the server.
 *
 * Order of the set-up matters: everything that needs a system call comes before the sandbox.
 *
 * There is no error recovery here. Whatever goes wrong ends the process, with its last words
 * on fd 2; the pool (native/core/redo) starts another and decides about the request. A redo
 * routine that failed half-way leaves locks, pins and pages in an unknown state, and a new
 * process costs about 20 ms.
 *
 * It is not a Postgres server: no transactions, no catalog, no files, no other processes, and
 * no state between two requests.
 */
#include "postgres.h"

#include <sys/mman.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogutils.h"
#include "catalog/pg_control.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replay.h"
#include "sandbox.h"
#include "setup.h"
#include "storage.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/pg_sema.h"
#include "storage/pg_shmem.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/elog.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

#define REQUEST_BUFFER (256 * 1024)
#define LARGE_BUFFER (8 * 1024 * 1024) /* larger ones are given back after use */
/* The smgr cache is emptied after so many requests: one may name some thousand relations. */
#define FORGET_RELATIONS_EVERY 4096

typedef struct Answer {
    ps_redo_wire_answer header;
    char page[BLCKSZ];
} Answer;

static Answer answers[PS_REDO_ANSWERS_AT_ONCE];
static uint32 answer_count;

/* What CreateSharedMemoryAndSemaphores does, cut down to what redo routines touch. */
static void
set_up_memory(void)
{
    int semaphores;
    Size size = setup_size(&semaphores);
    PGShmemHeader *header =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (header == MAP_FAILED)
        ereport(FATAL, (errmsg("pagestore_redo: could not map %zu bytes: %m", size)));
    header->magic = PGShmemMagic;
    header->creatorPID = getpid();
    header->totalsize = size;
    header->freeoffset = MAXALIGN(sizeof(PGShmemHeader));
    InitShmemAccess(header);
    PGReserveSemaphores(semaphores);
    InitShmemAllocation();
    CreateLWLocks();
    InitShmemIndex();
    setup_shared_memory();
}

static void
set_up_process(void)
{
    static PGPROC dummy;
    bool found;
    setup_process(&dummy);
    InRecovery = true;
    CurrentResourceOwner = ResourceOwnerCreate(NULL, "redo");
    RmgrStartup();

    ControlFileData *control =
        ShmemInitStruct("Control File", sizeof(ControlFileData), &found);
    control->data_checksum_version = 0;
}

static void
write_all(const void *data, size_t length)
{
    const char *at = data;
    while (length > 0) {
        ssize_t n = write(STDOUT_FILENO, at, length);
        if (n <= 0)
            _exit(0); /* nobody listens any more */
        at += n;
        length -= (size_t) n;
    }
}

static void
flush_answers(void)
{
    if (answer_count > 0)
        write_all(answers, answer_count * sizeof answers[0]);
    answer_count = 0;
}

static void
serve(const ps_redo_wire_request *request)
{
    static uint32 served;
    Answer *answer = &answers[answer_count];
    redo_replay(request, answer->page);
    answer->header =
        (ps_redo_wire_answer) {.magic = PS_REDO_MAGIC, .sequence = request->sequence};
    if (++answer_count == PS_REDO_ANSWERS_AT_ONCE)
        flush_answers();
    if (++served % FORGET_RELATIONS_EVERY == 0)
        redo_storage_forget_relations();
}

/* The length of the request at `at` if it lies there whole, else 0. */
static size_t
whole_request(const char *at, size_t available)
{
    const ps_redo_wire_request *request = (const ps_redo_wire_request *) at;
    if (available < sizeof *request)
        return 0;
    if (request->magic != PS_REDO_MAGIC || request->length < sizeof *request ||
        request->length > PS_REDO_MAX_REQUEST || request->length % 8 != 0)
        elog(ERROR, "the bytes on standard input are not a request");
    return available < request->length ? 0 : request->length;
}

static void
serve_for_ever(void)
{
    size_t capacity = REQUEST_BUFFER;
    char *buffer = MemoryContextAlloc(TopMemoryContext, capacity);
    size_t begin = 0;
    size_t end = 0;
    for (;;) {
        size_t length;
        while ((length = whole_request(buffer + begin, end - begin)) > 0) {
            serve((const ps_redo_wire_request *) (buffer + begin));
            begin += length;
        }
        flush_answers();
        memmove(buffer, buffer + begin, end - begin);
        end -= begin;
        begin = 0;
        size_t need = REQUEST_BUFFER;
        if (end >= sizeof(ps_redo_wire_request))
            need = Max(need, ((const ps_redo_wire_request *) buffer)->length);
        if (need > capacity || (end <= need && capacity > LARGE_BUFFER)) {
            buffer = repalloc_huge(buffer, need);
            capacity = need;
        }
        ssize_t n = read(STDIN_FILENO, buffer + end, capacity - end);
        if (n <= 0)
            _exit(0);
        end += (size_t) n;
    }
}

void
_PG_init(void)
{
    sigjmp_buf on_error;
    if (!process_shared_preload_libraries_in_progress || IsPostmasterEnvironment ||
        IsUnderPostmaster)
        ereport(FATAL, (errmsg("pagestore_redo turns \"postgres --single\" into a redo helper"),
                        errhint("Remove it from shared_preload_libraries of this server.")));
    if (sigsetjmp(on_error, 0) != 0) {
        EmitErrorReport();
        _exit(1);
    }
    PG_exception_stack = &on_error;

    set_up_memory();
    set_up_process();
    redo_storage_init(setup_pages());
    setup_storage();
    redo_replay_init();
    redo_sandbox_enter();

    ps_redo_wire_answer hello = {.magic = PS_REDO_MAGIC, .sequence = PG_VERSION_NUM};
    write_all(&hello, sizeof hello);
    serve_for_ever();
}
