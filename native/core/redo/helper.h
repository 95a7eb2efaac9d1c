/* One helper process: its start, its end, its pipes. Not thread-safe: the pool leases it. */
#ifndef PS_REDO_HELPER_H
#define PS_REDO_HELPER_H

#include <stdint.h>
#include <sys/types.h>

#include "status.h"

#define PS_REDO_WORDS 300

typedef struct ps_redo_helper {
    char **argv; /* with its directory in place; NULL-terminated */
    char *dir;
    pid_t pid;   /* 0: none runs */
    int to;      /* requests; non-blocking, as the other two */
    int from;    /* answers */
    int words;   /* its standard error */
    int leased;
    uint64_t used_ms; /* when it was last given back */
} ps_redo_helper;

uint64_t ps_redo_now_ms(void);

int ps_redo_helper_init(ps_redo_helper *helper, const char *const *argv, const char *dir);
void ps_redo_helper_free(ps_redo_helper *helper);

/* Starts the process and waits for its hello. PS_ERR_REDO with its last words when none comes. */
int ps_redo_helper_start(ps_redo_helper *helper, uint32_t deadline_ms, ps_error *err);

/*
 * Kills and reaps the process and closes the pipes. `words` (may be NULL, else PS_REDO_WORDS
 * bytes) gets how it ended and the end of what it wrote to its standard error.
 */
void ps_redo_helper_stop(ps_redo_helper *helper, char *words);

#endif
