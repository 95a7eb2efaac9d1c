/*
 * The size functions of SQL, which ask the file system and not the storage manager.
 *
 * They find the files of a compute only once these are made (materialize.c). So their entries in
 * the server's table of built-in functions, which like the storage manager's lies in the segment
 * that the loader makes read-only, are replaced by functions that make them first and then call
 * the stock one.
 */
#include "postgres.h"

#include <sys/mman.h>
#include <unistd.h>

#include "access/relation.h"
#include "fmgr.h"
#include "materialize.h"
#include "shim.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrtab.h"
#include "utils/rel.h"
#include "utils/relcache.h"

extern Datum pg_database_size_name(PG_FUNCTION_ARGS);
extern Datum pg_database_size_oid(PG_FUNCTION_ARGS);
extern Datum pg_tablespace_size_name(PG_FUNCTION_ARGS);
extern Datum pg_tablespace_size_oid(PG_FUNCTION_ARGS);
extern Datum pg_relation_size(PG_FUNCTION_ARGS);
extern Datum pg_table_size(PG_FUNCTION_ARGS);
extern Datum pg_indexes_size(PG_FUNCTION_ARGS);
extern Datum pg_total_relation_size(PG_FUNCTION_ARGS);

static void
materialize_open_relation(Oid relid, bool with_all_that_belongs_to_it)
{
    Relation relation = try_relation_open(relid, AccessShareLock);
    ListCell *cell;

    if (relation == NULL)
        return; /* dropped meanwhile: what is to be said of that, the stock function says */
    if (RELKIND_HAS_STORAGE(relation->rd_rel->relkind))
        materialize_relation(relation->rd_locator);
    if (with_all_that_belongs_to_it)
    {
        if (OidIsValid(relation->rd_rel->reltoastrelid))
            materialize_open_relation(relation->rd_rel->reltoastrelid, true);
        if (relation->rd_rel->relhasindex)
            foreach(cell, RelationGetIndexList(relation))
                materialize_open_relation(lfirst_oid(cell), false);
    }
    relation_close(relation, AccessShareLock);
}

#define FILES_FIRST(function, what)                                                              \
    static Datum shim_##function(PG_FUNCTION_ARGS)                                               \
    {                                                                                            \
        what;                                                                                    \
        return function(fcinfo);                                                                 \
    }

FILES_FIRST(pg_database_size_name, materialize_all())
FILES_FIRST(pg_database_size_oid, materialize_all())
FILES_FIRST(pg_tablespace_size_name, materialize_all())
FILES_FIRST(pg_tablespace_size_oid, materialize_all())
FILES_FIRST(pg_relation_size, materialize_open_relation(PG_GETARG_OID(0), false))
FILES_FIRST(pg_table_size, materialize_open_relation(PG_GETARG_OID(0), true))
FILES_FIRST(pg_indexes_size, materialize_open_relation(PG_GETARG_OID(0), true))
FILES_FIRST(pg_total_relation_size, materialize_open_relation(PG_GETARG_OID(0), true))

static const struct
{
    Oid oid;
    PGFunction stock;
    PGFunction ours;
} replaced[] = {
    {F_PG_DATABASE_SIZE_NAME, pg_database_size_name, shim_pg_database_size_name},
    {F_PG_DATABASE_SIZE_OID, pg_database_size_oid, shim_pg_database_size_oid},
    {F_PG_TABLESPACE_SIZE_NAME, pg_tablespace_size_name, shim_pg_tablespace_size_name},
    {F_PG_TABLESPACE_SIZE_OID, pg_tablespace_size_oid, shim_pg_tablespace_size_oid},
    {F_PG_RELATION_SIZE_REGCLASS_TEXT, pg_relation_size, shim_pg_relation_size},
    {F_PG_TABLE_SIZE, pg_table_size, shim_pg_table_size},
    {F_PG_INDEXES_SIZE, pg_indexes_size, shim_pg_indexes_size},
    {F_PG_TOTAL_RELATION_SIZE, pg_total_relation_size, shim_pg_total_relation_size},
};

static void
protect(const void *at, size_t length, int protection)
{
    uintptr_t page_size = (uintptr_t) sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t) at & ~(page_size - 1);

    if (mprotect((void *) start, (uintptr_t) at + length - start, protection) != 0)
        ereport(FATAL, (errmsg("pagestore: could not change the table of functions: %m")));
}

void
sizes_install(void)
{
    for (int i = 0; i < lengthof(replaced); i++)
    {
        uint16 index = fmgr_builtin_oid_index[replaced[i].oid];
        FmgrBuiltin *entry = unconstify(FmgrBuiltin *, &fmgr_builtins[index]);

        if (index >= fmgr_nbuiltins || entry->foid != replaced[i].oid ||
            entry->func != replaced[i].stock)
            elog(FATAL, "pagestore: function %u is not where it is expected", replaced[i].oid);
        protect(&entry->func, sizeof entry->func, PROT_READ | PROT_WRITE);
        entry->func = replaced[i].ours;
        protect(&entry->func, sizeof entry->func, PROT_READ);
    }
}
