/*
 * Threads that read pages where an event loop must not wait, and tell it by one descriptor.
 *
 * A job waits in one of three queues, each with threads of its own, so that none waits for what
 * another waits for: for files; for a redo helper to be free; and for helpers that are at work
 * for it. The threads of the last need nothing that a job in a queue holds, and are as many as
 * there are helpers, so each batch that was begun has its thread at once: no helper is held by a
 * batch that nobody drives. A job that has read its files goes on to the second queue.
 *
 * One thread submits, cancels and takes; jobs are its own before and afterwards.
 */
#ifndef PS_STORE_READERS_H
#define PS_STORE_READERS_H

#include "store/serve.h"

typedef struct ps_readers ps_readers;

/* At most so many threads for files, and for redo twice as many as there may be helpers; each is
 * started when it is first needed. NULL with *err set. */
ps_readers *ps_readers_open(unsigned files, unsigned helpers, ps_error *err);
/* Waits for what is under way; nothing of what is not is begun. All is to be taken then. */
void ps_readers_close(ps_readers *readers);
void ps_readers_free(ps_readers *readers); /* closed, and all taken */

/* Readable when something is to be taken. */
int ps_readers_fd(const ps_readers *readers);
/* A job that ps_pages_begin has left undone. */
void ps_readers_submit(ps_readers *readers, ps_pages_job *job);
/* Nobody waits for it any more: it is abandoned unless a thread is at it. It is to be taken in
 * either case. One that has been taken already is let be. */
void ps_readers_cancel(ps_readers *readers, const ps_pages_job *job);
/* All that are done, in a list; NULL when none is. */
ps_pages_job *ps_readers_take(ps_readers *readers);

#endif
