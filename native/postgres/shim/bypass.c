/*
 * Statements that a compute cannot leave to Postgres: what reads or makes relation files past the
 * storage manager, and so would meet the holes; and settings that are not the user's (settings.c).
 *
 * CREATE DATABASE ... STRATEGY file_copy and ALTER DATABASE ... SET TABLESPACE copy the files of a
 * database: its blocks are brought first. Both, and CREATE DATABASE ... TABLESPACE, look by its
 * files whether a database has relations in the tablespace already: these are made first. A
 * tablespace may lie in the data directory (allow_in_place_tablespaces), but nowhere else, since
 * only that directory is laid again (docs/decisions/2026-11-26-tablespaces-in-place.md). A base
 * backup reads the files too; the walsender has no hook, but it fails on a file that it may not
 * read, so one is made whose name says why.
 * Not covered: a superuser's pg_read_binary_file(), and pg_checksums on the stopped directory.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "hydrate.h"
#include "materialize.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "shim.h"
#include "tcop/utility.h"

#define GUARD_FILE "no-base-backup-of-a-compute--use-pagestore-export"

static ProcessUtility_hook_type next_utility;

/* Postgres itself says what is wrong with a place that there is not. */
static void
check_location(const CreateTableSpaceStmt *statement)
{
    struct stat place;

    if (!is_absolute_path(statement->location) || stat(statement->location, &place) != 0)
        return;
    ereport(ERROR,
            (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
             errmsg("CREATE TABLESPACE with a LOCATION is not possible here"),
             errdetail("The data directory of a pagestore compute is thrown away when it stops;"
                       " its storage is the page server."),
             errhint("Leave it in the default tablespace, or make a tablespace with LOCATION ''"
                     " after SET allow_in_place_tablespaces.")));
}

static DefElem *
find_option(List *options, const char *name)
{
    ListCell *cell;

    foreach(cell, options)
    {
        DefElem *option = lfirst_node(DefElem, cell);

        if (strcmp(option->defname, name) == 0)
            return option;
    }
    return NULL;
}

static void
prepare_create_database(CreatedbStmt *statement)
{
    DefElem *strategy = find_option(statement->options, "strategy");
    DefElem *template = find_option(statement->options, "template");
    DefElem *tablespace = find_option(statement->options, "tablespace");
    const char *source = "template1";
    Oid db;

    if (template != NULL && template->arg != NULL)
        source = defGetString(template);
    db = get_database_oid(source, true);
    if (!OidIsValid(db))
        return;
    if (strategy != NULL && strategy->arg != NULL &&
        pg_strcasecmp(defGetString(strategy), "file_copy") == 0)
        hydrate_database(db);
    else if (tablespace != NULL)
        materialize_database(db);
}

/* Whether it moves the database. For what Postgres refuses at once, nothing is brought. */
static bool
prepare_alter_database(AlterDatabaseStmt *statement)
{
    DefElem *tablespace = find_option(statement->options, "tablespace");
    Oid db = get_database_oid(statement->dbname, true);

    if (tablespace == NULL || tablespace->arg == NULL || !OidIsValid(db) || db == MyDatabaseId ||
        !OidIsValid(get_tablespace_oid(defGetString(tablespace), true)))
        return false;
    hydrate_database(db);
    return true;
}

static bool
ends_prepared(TransactionStmt *statement)
{
    return statement->kind == TRANS_STMT_COMMIT_PREPARED ||
           statement->kind == TRANS_STMT_ROLLBACK_PREPARED;
}

static void
shim_utility(PlannedStmt *statement, const char *query, bool read_only_tree,
             ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
             DestReceiver *receiver, QueryCompletion *completion)
{
    Node *node = statement->utilityStmt;
    Oid dropped = InvalidOid;
    bool moved = false;

    if (IsA(node, CreatedbStmt))
        prepare_create_database((CreatedbStmt *) node);
    else if (IsA(node, DropdbStmt))
        dropped = get_database_oid(((DropdbStmt *) node)->dbname, true);
    else if (IsA(node, AlterSystemStmt))
        settings_check(((AlterSystemStmt *) node)->setstmt);
    else if (IsA(node, AlterDatabaseSetStmt))
        settings_check(((AlterDatabaseSetStmt *) node)->setstmt);
    else if (IsA(node, AlterRoleSetStmt))
        settings_check(((AlterRoleSetStmt *) node)->setstmt);
    else if (IsA(node, DropTableSpaceStmt))
        materialize_all(); /* whether it is empty, Postgres sees by its files */
    else if (IsA(node, CreateTableSpaceStmt))
        check_location((CreateTableSpaceStmt *) node);
    else if (IsA(node, AlterDatabaseStmt))
        moved = prepare_alter_database((AlterDatabaseStmt *) node);
    (next_utility ? next_utility : standard_ProcessUtility)(
        statement, query, read_only_tree, context, params, environment, receiver, completion);
    if (OidIsValid(dropped))
        materialize_forget_database(dropped);
    if (IsA(node, AlterRoleStmt) || IsA(node, DropRoleStmt))
        settings_check_superusers();
    /* That a database left its old place is logged behind the commit that moved it: lost, its old
     * place would be taken for ever. */
    if (moved || (IsA(node, TransactionStmt) && ends_prepared((TransactionStmt *) node)))
        (void) commit_wait_for_own_records(-1);
}

static void
make_backup_guard(void)
{
    int fd = open(GUARD_FILE, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0);

    if (fd >= 0)
        close(fd);
    else if (errno != EEXIST)
        ereport(FATAL,
                (errcode_for_file_access(), errmsg("could not create \"%s\": %m", GUARD_FILE)));
}

void
bypass_install(void)
{
    make_backup_guard();
    next_utility = ProcessUtility_hook;
    ProcessUtility_hook = shim_utility;
}
