/*
 * What a session is made of, and what of it cannot be carried to another backend.
 *
 * Not seen, since no backend can tell: what an extension keeps for itself in a session (PL/Perl's
 * %_SHARED, dblink's connections). docs/sessions.md names it.
 */
#include "postgres.h"

#include <float.h>

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/prepare.h"
#include "executor/spi.h"
#include "libpq/pqformat.h"
#include "replication/walsender.h"
#include "session.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/plancache.h"
#include "version.h"

/* --- what hinders */

static const struct
{
    const char *found; /* one row if so */
    const char *words;
} HINDRANCES[] = {
    {"SELECT FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=)"
     " pg_catalog.pg_my_temp_schema() LIMIT 1",
     "temporary tables"},
    {"SELECT FROM pg_catalog.pg_cursors WHERE is_holdable LIMIT 1", "cursors WITH HOLD"},
    {"SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'"
     " AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() LIMIT 1",
     "advisory locks"},
};

static bool
finds(const char *query)
{
    if (SPI_execute(query, true, 1) != SPI_OK_SELECT)
        elog(ERROR, "the state of a session could not be read");
    return SPI_processed > 0;
}

/* Whether lastval() has an answer: nothing else says that a sequence was read here. */
static bool
has_read_a_sequence(void)
{
    MemoryContext context = CurrentMemoryContext;
    ResourceOwner owner = CurrentResourceOwner;
    volatile bool found = true;

    BeginInternalSubTransaction(NULL);
    PG_TRY();
    {
        DirectFunctionCall1(lastval, (Datum) 0);
        ReleaseCurrentSubTransaction();
    }
    PG_CATCH();
    {
        MemoryContextSwitchTo(context);
        found = geterrcode() != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        FlushErrorState();
        RollbackAndReleaseCurrentSubTransaction();
    }
    PG_END_TRY();
    MemoryContextSwitchTo(context);
    CurrentResourceOwner = owner;
    return found;
}

const char *
session_hindrance(void)
{
    const char *words = NULL;

    if (IsTransactionBlock())
        return "a transaction";
    if (am_walsender)
        return "a replication connection";
    SPI_connect();
    for (int i = 0; i < lengthof(HINDRANCES) && words == NULL; i++)
    {
        if (finds(HINDRANCES[i].found))
            words = HINDRANCES[i].words;
    }
    SPI_finish();
    if (words == NULL && has_read_a_sequence())
        words = "a sequence that was read";
    return words;
}

/* --- settings */

/* These belong to a transaction, or follow from others. */
static const char *const NOT_CARRIED[] = {SESSION_SETTING, "transaction_isolation",
                                          "transaction_read_only", "transaction_deferrable",
                                          "is_superuser", "seed"};

static bool
is_carried(const struct config_generic *setting)
{
    if (setting->source != PGC_S_SESSION)
        return false;
    for (int i = 0; i < lengthof(NOT_CARRIED); i++)
    {
        if (strcmp(setting->name, NOT_CARRIED[i]) == 0)
            return false;
    }
    return true;
}

static const char *
value_of(const struct config_generic *setting)
{
    if (setting->vartype == PGC_REAL) /* GetConfigOption rounds it */
        return psprintf("%.*g", DBL_DECIMAL_DIG, *((const struct config_real *) setting)->variable);
    return GetConfigOption(setting->name, false, false);
}

static void
gather_settings(StringInfo state)
{
    int count;
    struct config_generic **settings = get_guc_variables(&count);

    for (int i = 0; i < count; i++)
    {
        if (!is_carried(settings[i]))
            continue;
        const char *value = value_of(settings[i]);

        pq_sendbyte(state, SESSION_ENTRY_SETTING);
        session_put_text(state, settings[i]->name);
        session_put_text(state, value != NULL ? value : "");
    }
}

/* --- prepared statements */

/* The text of one statement: PREPARE may have come with others in one query. */
static char *
text_of(const CachedPlanSource *source)
{
    const RawStmt *raw = source->raw_parse_tree;

    if (raw == NULL || raw->stmt_location < 0 || raw->stmt_len <= 0)
        return pstrdup(raw != NULL && raw->stmt_location > 0
                           ? source->query_string + raw->stmt_location
                           : source->query_string);
    return pnstrdup(source->query_string + raw->stmt_location, raw->stmt_len);
}

static void
gather_statement(StringInfo state, const PreparedStatement *statement)
{
    const CachedPlanSource *source = statement->plansource;

    pq_sendbyte(state, SESSION_ENTRY_STATEMENT);
    session_put_text(state, statement->stmt_name);
    pq_sendbyte(state, statement->from_sql);
    session_put_text(state, text_of(source));
    pq_sendint16(state, source->num_params);
    for (int i = 0; i < source->num_params; i++)
        pq_sendint32(state, source->param_types[i]);
}

/* The rows of a query of one column of text. */
static List *
texts(const char *query)
{
    List *found = NIL;

    if (SPI_execute(query, true, 0) != SPI_OK_SELECT)
        elog(ERROR, "the state of a session could not be read");
    for (uint64 i = 0; i < SPI_processed; i++)
        found = lappend(found, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
    return found;
}

bool
session_gather(StringInfo state)
{
    MemoryContext context = CurrentMemoryContext;
    ListCell *cell;

    gather_settings(state);
    SPI_connect();
    List *statements = texts("SELECT name FROM pg_catalog.pg_prepared_statements"
                             " ORDER BY prepare_time");
    List *channels = texts("SELECT pg_catalog.pg_listening_channels()");
    MemoryContext inside = MemoryContextSwitchTo(context); /* where `state` grows */

    foreach(cell, statements)
    {
        const char *name = lfirst(cell);

        if (strcmp(name, SESSION_STATEMENT) != 0)
            gather_statement(state, FetchPreparedStatement(name, true));
    }
    foreach(cell, channels)
    {
        pq_sendbyte(state, SESSION_ENTRY_CHANNEL);
        session_put_text(state, (const char *) lfirst(cell));
    }
    bool listens = channels != NIL; /* the list goes with SPI's memory */

    MemoryContextSwitchTo(inside);
    SPI_finish();
    return listens;
}
