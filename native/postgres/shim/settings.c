/*
 * Settings that are not the user's, and libraries that are.
 *
 * A compute cannot do without some settings, and a server that does not start cannot be asked to
 * take one back. Which they are, and why, pagestore says at each start
 * (pagestore/postgres/user_settings.py), as the value of pagestore.fixed_settings: a line
 * "name TAB rule TAB why" for each, where a rule is
 *
 *   (empty)    no value may be set
 *   >=N        none lower than N
 *   !VALUE     any but this one
 *   libraries  only what is on this machine
 *
 * ALTER SYSTEM is asked by these, and ALTER DATABASE and ALTER ROLE ... SET, which can keep
 * sessions from starting. To reset what is not fixed altogether is always right.
 *
 * Postgres was executed with this library alone for shared_preload_libraries, before any file was
 * read; the list that pagestore hands over has the user's own behind it, and they are loaded here.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "shim.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#ifndef DLSUFFIX
#define DLSUFFIX ".so"
#endif

typedef struct FixedSetting
{
    char *rule;
    char *why;
} FixedSetting;

static bool
find_fixed(const char *name, FixedSetting *found)
{
    char *list = pstrdup(shim_settings.fixed);

    for (char *line = list, *next; line != NULL; line = next)
    {
        char *rule = strchr(line, '\t');
        char *why = rule == NULL ? NULL : strchr(rule + 1, '\t');

        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        if (why == NULL)
            continue;
        *rule++ = *why++ = '\0';
        if (pg_strcasecmp(line, name) != 0)
            continue;
        *found = (FixedSetting) {.rule = rule, .why = why};
        return true;
    }
    return false;
}

static bool
file_exists(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* Where the loader looks, but for a dynamic_library_path of the user's own: that is his to know. */
static bool
library_exists(const char *name)
{
    char path[MAXPGPATH];

    if (strncmp(name, "$libdir/", 8) == 0)
        name += 8;
    else if (strchr(name, '/') == NULL && strcmp(Dynamic_library_path, "$libdir") != 0)
        return true;
    if (is_absolute_path(name))
        strlcpy(path, name, sizeof path);
    else
        snprintf(path, sizeof path, "%s/%s", pkglib_path, name);
    return file_exists(path) || file_exists(psprintf("%s" DLSUFFIX, path));
}

static void
check_libraries(const char *name, char *value)
{
    List *libraries;
    ListCell *cell;

    if (!SplitDirectoriesString(value, ',', &libraries))
        return; /* Postgres says what is wrong with it */
    foreach(cell, libraries)
        if (!library_exists(lfirst(cell)))
            ereport(ERROR,
                    (errcode(ERRCODE_UNDEFINED_FILE),
                     errmsg("%s names a library that is not on this machine: \"%s\"", name,
                            (char *) lfirst(cell)),
                     errhint("Each library stands in quotes of its own, and its package must be"
                             " installed.")));
}

static void
refuse(const char *name, const char *what, const char *why)
{
    ereport(ERROR, (errcode(ERRCODE_CANT_CHANGE_RUNTIME_PARAM),
                    errmsg("%s cannot be changed%s here", name, what), errdetail("%s", why)));
}

static bool
is_lower(const char *value, const char *least)
{
    int given;

    return parse_int(value, &given, 0, NULL) && given < atoi(least);
}

void
settings_check(const VariableSetStmt *statement)
{
    FixedSetting fixed;
    char *value;

    if (statement->name == NULL || !find_fixed(statement->name, &fixed))
        return;
    if (fixed.rule[0] == '\0')
        refuse(statement->name, "", fixed.why);
    value = ExtractSetVariableArgs(unconstify(VariableSetStmt *, statement));
    if (value == NULL)
        return;
    if (strcmp(fixed.rule, "libraries") == 0)
        check_libraries(statement->name, pstrdup(value));
    else if (fixed.rule[0] == '!' && pg_strcasecmp(value, fixed.rule + 1) == 0)
        refuse(statement->name, psprintf(" to %s", value), fixed.why);
    else if (strncmp(fixed.rule, ">=", 2) == 0 && is_lower(value, fixed.rule + 2))
        refuse(statement->name, psprintf(" to less than %s", fixed.rule + 2), fixed.why);
}

/* Ours is the first of the list, and being loaded. */
void
settings_load_libraries(void)
{
    char *list = pstrdup(shared_preload_libraries_string);
    List *libraries;

    if (!SplitDirectoriesString(list, ',', &libraries))
        ereport(FATAL, (errcode(ERRCODE_SYNTAX_ERROR),
                        errmsg("invalid list syntax in parameter \"%s\"",
                               "shared_preload_libraries")));
    for (int at = 1; at < list_length(libraries); at++)
        load_file(list_nth(libraries, at), false);
    list_free_deep(libraries);
    pfree(list);
}

/* pagestore enters a cluster as a superuser, and starts none that it cannot enter. */
void
settings_check_superusers(void)
{
    Relation roles = table_open(AuthIdRelationId, AccessShareLock);
    TableScanDesc scan;
    HeapTuple role;
    bool found = false;

    CommandCounterIncrement();
    scan = table_beginscan_catalog(roles, 0, NULL);
    while (!found && (role = heap_getnext(scan, ForwardScanDirection)) != NULL)
    {
        Form_pg_authid row = (Form_pg_authid) GETSTRUCT(role);

        found = row->rolsuper && row->rolcanlogin;
    }
    table_endscan(scan);
    table_close(roles, AccessShareLock);
    if (!found)
        ereport(ERROR,
                (errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
                 errmsg("the last superuser that can log in must stay one"),
                 errdetail("pagestore starts no cluster that it cannot enter."),
                 errhint("Make another superuser with LOGIN first.")));
}
