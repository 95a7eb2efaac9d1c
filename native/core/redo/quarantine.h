/*
 * Requests that made helpers hang, again and again: refused for a while without asking anyone.
 *
 * Each attempt at such a page takes a helper out of service until its deadline, twice. Whoever
 * asks for it in a loop would so take all of them from everybody. Not thread-safe: the pool's
 * mutex guards it.
 */
#ifndef PS_REDO_QUARANTINE_H
#define PS_REDO_QUARANTINE_H

#include "redo/redo.h"

#define PS_REDO_QUARANTINE_MS 60000u
#define PS_REDO_QUARANTINE_PLACES 64u

typedef struct ps_redo_quarantine {
    struct {
        uint64_t identity; /* of a request; 0: free */
        uint64_t until_ms;
    } places[PS_REDO_QUARANTINE_PLACES];
    unsigned next;
    uint64_t empty_at_ms;
} ps_redo_quarantine;

/* The same for the same page and records. */
uint64_t ps_redo_identity(const ps_redo_request *request);
void ps_redo_quarantine_add(ps_redo_quarantine *in, uint64_t identity, uint64_t now_ms);
/* The milliseconds that are left of it; 0 when the request may be tried. */
uint64_t ps_redo_quarantine_left(const ps_redo_quarantine *in, uint64_t identity, uint64_t now_ms);

#endif
