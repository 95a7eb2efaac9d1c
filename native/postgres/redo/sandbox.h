#ifndef PAGESTORE_REDO_SANDBOX_H
#define PAGESTORE_REDO_SANDBOX_H

/* From here on the process can compute, read fd 0, write, grow its heap and exit: no more. */
extern void redo_sandbox_enter(void);

#endif
