/*
 * Interposing on the storage manager of a stock server.
 *
 * Postgres calls storage through smgrsw, a constant table of function pointers with one row,
 * md.c's. It is not exported, but the functions in it (bar one NULL) are, and a constant
 * table of pointers lies in the segment that the loader relocates and then makes read-only
 * (RELRO). So: search that segment of the main program for exactly this run of pointers, make
 * it writable, change the slots, make it read-only again. Children inherit it by fork.
 *
 * Two things could go wrong, and both must stop the server rather than leave it half-hooked:
 *
 *   - the run is not there, or is there twice: another layout of the table;
 *   - the compiler, seeing a constant table of one row, called md's function directly at some
 *     place. Debian's did that for init, and by the version for others (docs/postgres.md), which
 *     we therefore leave alone. For the slots that we take, the machine code between the first
 *     and the last function of smgr.c is searched for direct calls and jumps to the functions
 *     that we replace.
 *
 * Both modules use it: the shim to fetch pages that are not there yet, the redo helper to do
 * without files. Not here: what their hooks do, and what the table holds (version.h).
 */
#include "postgres.h"

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include "smgr_table.h"
#include "storage/md.h"
#include "storage/smgr.h"
#include "utils/guc.h"
#include "version.h"

#ifndef __x86_64__
#error "the search for direct calls knows x86-64 only"
#endif

#define LONGEST_SMGR_CODE 65536 /* bytes; Debian's smgr.c has some 2,700 */
#define LAST_FUNCTION_CODE 1024

static const void *const expected_table[] = {PAGESTORE_SMGR_TABLE};

typedef struct ProgramSegment
{
    char *start;
    size_t length;
} ProgramSegment;

/* The first object is the program itself: takes its RELRO segment, and ends the walk. */
static int
find_relro(struct dl_phdr_info *info, size_t size, void *arg)
{
    ProgramSegment *segment = arg;

    for (int i = 0; i < info->dlpi_phnum; i++)
    {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];

        if (header->p_type == PT_GNU_RELRO)
        {
            segment->start = (char *) (info->dlpi_addr + header->p_vaddr);
            segment->length = header->p_memsz;
        }
    }
    return 1;
}

/* This build of the server is not one that we know. */
#define REFUSE(...)                                                                              \
    ereport(FATAL, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg(__VA_ARGS__),                 \
                    errdetail("It is PostgreSQL %s.",                                            \
                              GetConfigOption("server_version", false, false)),                  \
                    errhint("Run the computes on the distribution's own PostgreSQL %s packages.", \
                            PG_MAJORVERSION)))

static const void **
find_table(void)
{
    ProgramSegment segment = {NULL, 0};
    const void **found = NULL;
    int hits = 0;

    dl_iterate_phdr(find_relro, &segment);
    for (size_t at = 0; at + sizeof expected_table <= segment.length; at += sizeof(void *))
        if (memcmp(segment.start + at, expected_table, sizeof expected_table) == 0)
        {
            found = (const void **) (segment.start + at);
            hits++;
        }
    if (hits != 1)
        REFUSE("pagestore: found the storage manager's table %d times in this server, not once",
               hits);
    return found;
}

static int
slot_of(const void *stock)
{
    for (int slot = 0; slot < lengthof(expected_table); slot++)
        if (expected_table[slot] == stock)
            return slot;
    elog(FATAL, "pagestore: a function to be replaced is not in the storage manager's table");
}

/* The target of a direct call (e8) or jump (e9) at `code`, or NULL for any other byte. */
static const void *
direct_target(const uint8 *code)
{
    int32 displacement;

    if (code[0] != 0xe8 && code[0] != 0xe9)
        return NULL;
    memcpy(&displacement, code + 1, sizeof displacement);
    return code + 5 + displacement;
}

static void
refuse_direct_calls(const SmgrHook *hooks, int nhooks)
{
    const uint8 *functions[] = {
        (const uint8 *) smgrinit,       (const uint8 *) smgrclose,    (const uint8 *) smgrcreate,
        (const uint8 *) smgrdounlinkall, (const uint8 *) smgrprefetch, (const uint8 *) smgrreadv,
        (const uint8 *) smgrwritev,     (const uint8 *) smgrtruncate, (const uint8 *) smgrimmedsync,
        (const uint8 *) smgrexists,     (const uint8 *) smgrextend,   (const uint8 *) smgrwriteback,
        (const uint8 *) smgrnblocks,
    };
    const uint8 *first = functions[0];
    const uint8 *last = functions[0];

    for (int i = 1; i < lengthof(functions); i++)
    {
        first = Min(first, functions[i]);
        last = Max(last, functions[i]);
    }
    last += LAST_FUNCTION_CODE;
    if (last - first > LONGEST_SMGR_CODE)
        REFUSE("pagestore: this server's storage manager is not in one place");
    for (const uint8 *code = first; code < last; code++)
        for (int i = 0; i < nhooks; i++)
            if (direct_target(code) == hooks[i].stock)
                REFUSE("pagestore: this server's compiler bypasses slot %d of the storage"
                       " manager's table", slot_of(hooks[i].stock));
}

void
smgr_table_install(const SmgrHook *hooks, int nhooks)
{
    const void **table = find_table();
    uintptr_t page_size = (uintptr_t) sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t) table & ~(page_size - 1);
    size_t length = (uintptr_t) (table + lengthof(expected_table)) - start;

    refuse_direct_calls(hooks, nhooks);
    if (mprotect((void *) start, length, PROT_READ | PROT_WRITE) != 0)
        ereport(FATAL, (errmsg("pagestore: could not unlock the storage manager's table: %m")));
    for (int i = 0; i < nhooks; i++)
        table[slot_of(hooks[i].stock)] = hooks[i].ours;
    if (mprotect((void *) start, length, PROT_READ) != 0)
        ereport(FATAL, (errmsg("pagestore: could not lock the storage manager's table: %m")));
}
