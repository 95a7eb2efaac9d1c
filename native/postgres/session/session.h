/* What the files of pagestore_session share; session.c says what they are for. */
#ifndef PAGESTORE_SESSION_H
#define PAGESTORE_SESSION_H

#include "postgres.h"

#include "lib/stringinfo.h"

/* The setting that is shown and set; the statement of the proxy's that is never carried. */
#define SESSION_SETTING "pagestore_session.state"
#define SESSION_STATEMENT "_pagestore"

/* gather.c: why a session cannot be carried, as words for a user; NULL if it can. */
extern const char *session_hindrance(void);
/* Appends what there is to carry; whether the session listens to any channel. */
extern bool session_gather(StringInfo state);

/* restore.c: makes a fresh session what it was. `state` is what was gathered. */
extern void session_restore(StringInfo state);

/* Text as it is, which pq_sendstring would turn into the client's encoding. */
static inline void
session_put_text(StringInfo state, const char *text)
{
    appendBinaryStringInfo(state, text, strlen(text) + 1);
}

/* The kinds of entries that a state is made of; each begins with its kind. */
enum
{
    SESSION_ENTRY_SETTING = 'S',   /* name, value */
    SESSION_ENTRY_STATEMENT = 'P', /* name, from SQL, text, number of types, types */
    SESSION_ENTRY_CHANNEL = 'L'    /* name */
};

#endif
