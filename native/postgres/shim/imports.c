/*
 * Interposing on what a stock server imports.
 *
 * A program calls a function of the C library through a pointer that the loader has filled in,
 * one for all calls of the program, which a relocation names. In a program that is bound at
 * its start the pointers lie in the segment that is then made read-only, as the storage
 * manager's table does (smgr_table.c). So: find the relocation by the function's name, make the
 * pointer's page writable, change it, make it read-only again. Children inherit it by fork.
 *
 * A relocation that is not there, or twice, or whose pointer is not the function's, is another
 * kind of program than we know: the server does not start rather than run half-hooked.
 */
#include "postgres.h"

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include "imports.h"

typedef struct Program
{
    uintptr_t base;
    const ElfW(Dyn) *dynamic;
} Program;

typedef struct Search
{
    const char *name;
    uintptr_t base;
    const ElfW(Sym) *symbols;
    const char *names;
    void **found;
    int hits;
} Search;

/* The first object is the program itself. */
static int
find_program(struct dl_phdr_info *info, size_t size, void *arg)
{
    Program *program = arg;

    program->base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            program->dynamic = (const ElfW(Dyn) *) (info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    return 1;
}

static uintptr_t
entry_of(const Program *program, ElfW(Sxword) tag)
{
    const ElfW(Dyn) *entry = program->dynamic;

    while (entry != NULL && entry->d_tag != DT_NULL && entry->d_tag != tag)
        entry++;
    return entry != NULL && entry->d_tag == tag ? entry->d_un.d_val : 0;
}

/* The loader has added the base to addresses already, where it may write to the section. */
static uintptr_t
address_of(const Program *program, ElfW(Sxword) tag)
{
    uintptr_t value = entry_of(program, tag);

    return value != 0 && value < program->base ? value + program->base : value;
}

static void
search_table(Search *search, uintptr_t table, size_t length)
{
    const ElfW(Rela) *relocations = (const ElfW(Rela) *) table;

    for (size_t i = 0; i < length / sizeof *relocations; i++)
    {
        size_t type = ELF64_R_TYPE(relocations[i].r_info);
        const ElfW(Sym) *symbol = &search->symbols[ELF64_R_SYM(relocations[i].r_info)];

        if ((type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT) ||
            strcmp(search->names + symbol->st_name, search->name) != 0)
            continue;
        search->found = (void **) (search->base + relocations[i].r_offset);
        search->hits++;
    }
}

static void **
find_import(const char *name)
{
    Program program = {0};
    Search search = {.name = name};

    dl_iterate_phdr(find_program, &program);
    search.base = program.base;
    search.symbols = (const ElfW(Sym) *) address_of(&program, DT_SYMTAB);
    search.names = (const char *) address_of(&program, DT_STRTAB);
    if (search.symbols != NULL && search.names != NULL)
    {
        search_table(&search, address_of(&program, DT_JMPREL), entry_of(&program, DT_PLTRELSZ));
        search_table(&search, address_of(&program, DT_RELA), entry_of(&program, DT_RELASZ));
    }
    if (search.hits != 1)
        ereport(FATAL,
                (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                 errmsg("pagestore: found the import of %s() %d times in this server, not once",
                        name, search.hits),
                 errhint("Run the computes on the distribution's own PostgreSQL %s packages.",
                         PG_MAJORVERSION)));
    return search.found;
}

void
import_take_over(const char *name, void *stock, void *ours)
{
    void **slot = find_import(name);
    uintptr_t page_size = (uintptr_t) sysconf(_SC_PAGESIZE);
    void *page = (void *) ((uintptr_t) slot & ~(page_size - 1));

    if (*slot != stock)
        elog(FATAL, "pagestore: the server's %s() is another function than expected", name);
    if (mprotect(page, page_size, PROT_READ | PROT_WRITE) != 0)
        ereport(FATAL, (errmsg("pagestore: could not unlock the server's imports: %m")));
    *slot = ours;
    if (mprotect(page, page_size, PROT_READ) != 0)
        ereport(FATAL, (errmsg("pagestore: could not lock the server's imports: %m")));
}
