/*
 * Return codes of the core. Zero is success; every failure is negative and has one meaning.
 * Functions that can say more fill a ps_error, whose text names the place and the fault.
 */
#ifndef PS_STATUS_H
#define PS_STATUS_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

enum ps_status {
    PS_OK = 0,
    PS_ERR_NOMEM = -1,
    PS_ERR_IO = -2,          /* a system call failed; the text has errno's words */
    PS_ERR_CORRUPT = -3,     /* a checksum or a bound does not hold: not ours, or damaged */
    PS_ERR_INVALID = -4,     /* the caller's argument is wrong */
    PS_ERR_NOT_FOUND = -5,
    PS_ERR_UNSUPPORTED = -6, /* well-formed, but nothing here knows how to treat it */
    PS_ERR_REDO = -7,        /* the redo helper died or refused */
    PS_ERR_NO_SPACE = -8,
    PS_ERR_CLOSED = -9,
    PS_ERR_TIMEOUT = -10,
    PS_ERR_WOULD_WAIT = -11, /* of a thread that must not: layer/patience.h */
    PS_ERR_REMOTE = -12,     /* an object store did not give what it has: layer/remote.h */
    PS_ERR_NO_POSTGRES = -13 /* redo is needed, by a Postgres that is not installed here */
};

typedef struct ps_error {
    int code;
    char text[480];
} ps_error;

/* Sets *err (which may be NULL) and returns `code`, so that `return ps_fail(...)` reads well. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static inline int
ps_fail(ps_error *err, int code, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        err->code = code;
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return code;
}

#endif
