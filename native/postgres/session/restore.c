/*
 * Makes a fresh session what another was.
 *
 * Role and session authorization come last: before, the settings are set with the rights that
 * whoever set them had, which a sealed state vouches for.
 *
 * A statement may not fit its tables any more: they were dropped meanwhile, or the database was put
 * back to before they were made. Stock Postgres says so when such a statement is executed, not
 * before; so it is kept unanalysed, and Postgres finds out by itself. Should its tables be back by
 * then, it runs; but EXECUTE in SQL, which must know the columns beforehand, asks for a new one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "libpq/pqformat.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "session.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"

typedef struct Statement
{
    const char *name;
    bool from_sql;
    const char *text;
    Oid *types;
    int type_count;
} Statement;

static void
set_one(const char *name, const char *value)
{
    (void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SET, true, 0,
                             false);
}

/* The statement itself, out of PREPARE where it was made by SQL. NULL: it is empty. */
static RawStmt *
parse(const Statement *statement)
{
    List *parsed = pg_parse_query(statement->text);
    RawStmt *raw;

    if (parsed == NIL)
        return NULL;
    raw = linitial_node(RawStmt, parsed);
    if (statement->from_sql && IsA(raw->stmt, PrepareStmt))
    {
        RawStmt *inner = makeNode(RawStmt);

        inner->stmt = ((PrepareStmt *) raw->stmt)->query;
        inner->stmt_location = raw->stmt_location;
        inner->stmt_len = raw->stmt_len;
        return inner;
    }
    return raw;
}

static List *
analyze(RawStmt *raw, const Statement *statement)
{
    Oid *types = statement->types;
    int count = statement->type_count;
    List *queries;

    if (analyze_requires_snapshot(raw))
        PushActiveSnapshot(GetTransactionSnapshot());
    queries = pg_analyze_and_rewrite_varparams(raw, statement->text, &types, &count, NULL);
    if (ActiveSnapshotSet() && analyze_requires_snapshot(raw))
        PopActiveSnapshot();
    return queries;
}

/* False: it does not fit, and is as if it had never been tried. */
static bool
try_analyze(RawStmt *raw, const Statement *statement, List **queries)
{
    MemoryContext context = CurrentMemoryContext;
    ResourceOwner owner = CurrentResourceOwner;
    volatile bool fits = false;

    BeginInternalSubTransaction(NULL);
    MemoryContextSwitchTo(context);
    PG_TRY();
    {
        *queries = analyze(copyObject(raw), statement);
        ReleaseCurrentSubTransaction();
        fits = true;
    }
    PG_CATCH();
    {
        MemoryContextSwitchTo(context);
        FlushErrorState();
        RollbackAndReleaseCurrentSubTransaction();
    }
    PG_END_TRY();
    MemoryContextSwitchTo(context);
    CurrentResourceOwner = owner;
    return fits;
}

static void
prepare(const Statement *statement)
{
    RawStmt *raw = parse(statement);
    CommandTag tag = raw != NULL ? CreateCommandTag(raw->stmt) : CMDTAG_UNKNOWN;
    CachedPlanSource *source = CreateCachedPlan(raw, statement->text, tag);
    List *queries = NIL;
    bool fits = raw == NULL || try_analyze(raw, statement, &queries);

    CompleteCachedPlan(source, queries, NULL, statement->types, statement->type_count, NULL, NULL,
                       CURSOR_OPT_PARALLEL_OK, fits || statement->from_sql);
    if (!fits)
        source->is_valid = false;
    StorePreparedStatement(statement->name, source, statement->from_sql);
}

static void
read_statement(StringInfo state)
{
    Statement statement = {0};

    statement.name = pq_getmsgrawstring(state);
    statement.from_sql = pq_getmsgbyte(state);
    statement.text = pq_getmsgrawstring(state);
    statement.type_count = pq_getmsgint(state, 2);
    statement.types = palloc(sizeof(Oid) * (statement.type_count + 1));
    for (int i = 0; i < statement.type_count; i++)
        statement.types[i] = pq_getmsgint(state, 4);
    prepare(&statement);
}

void
session_restore(StringInfo state)
{
    const char *role = NULL;
    const char *authorization = NULL;

    while (state->cursor < state->len)
    {
        int kind = pq_getmsgbyte(state);

        if (kind == SESSION_ENTRY_STATEMENT)
            read_statement(state);
        else if (kind == SESSION_ENTRY_CHANNEL)
            Async_Listen(pq_getmsgrawstring(state));
        else
        {
            const char *name = pq_getmsgrawstring(state);
            const char *value = pq_getmsgrawstring(state);

            if (strcmp(name, "role") == 0)
                role = value;
            else if (strcmp(name, "session_authorization") == 0)
                authorization = value;
            else
                set_one(name, value);
        }
    }
    if (authorization != NULL)
        set_one("session_authorization", authorization);
    if (role != NULL)
        set_one("role", role);
}
