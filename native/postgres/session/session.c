/*
 * pagestore_session: sessions outlive computes.
 *
 * It is a library of its own beside the shim, and asks nothing of a compute but a key. It writes
 * the state of an idle session down, and takes it up again.
 *
 * A session that is idle outside a transaction is not a process; it is its settings, its role,
 * its prepared statements and the channels that it listens to. The proxy asks a backend for these
 *
 *     SHOW pagestore_session.state          + and the state in hexadecimal, or - and why not;
 *                                           * instead of + if the session listens
 *
 * lets the compute stop, and gives the state to a backend of another one when its client speaks
 * again, as the first thing that this backend hears:
 *
 *     SET pagestore_session.state = '...'
 *
 * What a client has not set, it must not be able to set this way either: a state holds settings
 * that only a superuser may change. So it is sealed with a key that the compute has from pagestore
 * and only superusers can read, and a state with another seal is refused.
 *
 *     state = version (1 byte), login role (text), entries
 *     sealed = HMAC-SHA-256 (32 bytes), state
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "session.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#define STATE_VERSION 1
#define SEAL_BYTES PG_SHA256_DIGEST_LENGTH

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static char *shown;
static char *key;
static ProcessUtility_hook_type next_utility;

static void
make_seal(const char *data, size_t length, uint8 *seal)
{
    pg_hmac_ctx *context = pg_hmac_create(PG_SHA256);
    bool failed;

    if (context == NULL)
        ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
    failed = pg_hmac_init(context, (const uint8 *) key, strlen(key)) < 0 ||
             pg_hmac_update(context, (const uint8 *) data, length) < 0 ||
             pg_hmac_final(context, seal, SEAL_BYTES) < 0;
    pg_hmac_free(context);
    if (failed)
        elog(ERROR, "the state of a session could not be sealed");
}

static const char *
login_role(void)
{
    return GetUserNameFromId(GetAuthenticatedUserId(), false);
}

static char *
state_text(void)
{
    const char *hindrance = session_hindrance();
    StringInfoData state;
    uint8 seal[SEAL_BYTES];
    bool listens;
    char *text;

    if (hindrance != NULL)
        return psprintf("-%s", hindrance);
    initStringInfo(&state);
    pq_sendbyte(&state, STATE_VERSION);
    session_put_text(&state, login_role());
    listens = session_gather(&state);
    make_seal(state.data, state.len, seal);
    text = palloc(2 + 2 * (SEAL_BYTES + (size_t) state.len));
    text[0] = listens ? '*' : '+';
    hex_encode((char *) seal, SEAL_BYTES, text + 1);
    hex_encode(state.data, state.len, text + 1 + 2 * SEAL_BYTES);
    text[1 + 2 * (SEAL_BYTES + (size_t) state.len)] = '\0';
    return text;
}

static void
show_state(DestReceiver *receiver)
{
    TupleDesc description = CreateTemplateTupleDesc(1);
    TupOutputState *output;

    TupleDescInitEntry(description, 1, SESSION_SETTING, TEXTOID, -1, 0);
    output = begin_tup_output_tupdesc(receiver, description, &TTSOpsVirtual);
    do_text_output_oneline(output, state_text());
    end_tup_output(output);
}

static void
refuse_state(const char *why)
{
    ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                    errmsg("this session cannot be set: %s", why),
                    errdetail("Only the proxy sets %s, to what a backend of the same role has"
                              " shown.",
                              SESSION_SETTING)));
}

/* Compares all of it, whatever is wrong where. */
static bool
is_same(const uint8 *left, const uint8 *right, size_t length)
{
    uint8 difference = 0;

    for (size_t i = 0; i < length; i++)
        difference |= left[i] ^ right[i];
    return difference == 0;
}

static void
set_state(const char *text)
{
    size_t digits = strlen(text);
    StringInfoData state;
    uint8 seal[SEAL_BYTES];

    if (key[0] == '\0')
        refuse_state("this compute has no key");
    if (digits % 2 != 0 || digits <= 2 * SEAL_BYTES)
        refuse_state("it is not what was shown");
    initStringInfo(&state);
    enlargeStringInfo(&state, digits / 2);
    state.len = hex_decode(text, digits, state.data);
    make_seal(state.data + SEAL_BYTES, state.len - SEAL_BYTES, seal);
    if (!is_same(seal, (uint8 *) state.data, SEAL_BYTES))
        refuse_state("its seal is not ours");
    state.cursor = SEAL_BYTES;
    if (pq_getmsgbyte(&state) != STATE_VERSION)
        refuse_state("it is of another version");
    if (strcmp(pq_getmsgrawstring(&state), login_role()) != 0)
        refuse_state("it is another role's");
    session_restore(&state);
}

static const char *
text_of_set(VariableSetStmt *statement)
{
    A_Const *constant;

    if (statement->kind != VAR_SET_VALUE || statement->is_local ||
        list_length(statement->args) != 1)
        refuse_state("it is one text");
    constant = linitial_node(A_Const, statement->args);
    if (nodeTag(&constant->val) != T_String)
        refuse_state("it is one text");
    return strVal(&constant->val);
}

static void
session_utility(PlannedStmt *statement, const char *query, bool read_only_tree,
                ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
                DestReceiver *receiver, QueryCompletion *completion)
{
    Node *node = statement->utilityStmt;

    if (IsA(node, VariableShowStmt) &&
        pg_strcasecmp(((VariableShowStmt *) node)->name, SESSION_SETTING) == 0)
        show_state(receiver);
    else if (IsA(node, VariableSetStmt) && ((VariableSetStmt *) node)->name != NULL &&
             pg_strcasecmp(((VariableSetStmt *) node)->name, SESSION_SETTING) == 0)
        set_state(text_of_set((VariableSetStmt *) node));
    else
        (next_utility ? next_utility : standard_ProcessUtility)(
            statement, query, read_only_tree, context, params, environment, receiver, completion);
}

void
_PG_init(void)
{
    DefineCustomStringVariable(SESSION_SETTING, "The state of this session, for the proxy.", NULL,
                               &shown, "", PGC_INTERNAL, GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE, NULL,
                               NULL, NULL);
    DefineCustomStringVariable("pagestore_session.key", "What seals the state of sessions.", NULL,
                               &key, "", PGC_POSTMASTER, GUC_NO_SHOW_ALL | GUC_SUPERUSER_ONLY, NULL,
                               NULL, NULL);
    MarkGUCPrefixReserved("pagestore_session");
    next_utility = ProcessUtility_hook;
    ProcessUtility_hook = session_utility;
}
