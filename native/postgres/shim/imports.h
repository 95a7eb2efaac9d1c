/* Taking over a function that the server imports from the C library. */
#ifndef PAGESTORE_IMPORTS_H
#define PAGESTORE_IMPORTS_H

/*
 * From now on the program calls `ours` where it called `name`; `stock` is what it called. FATAL
 * where this server does not import the function exactly once. Libraries go on as they were.
 */
extern void import_take_over(const char *name, void *stock, void *ours);

#endif
