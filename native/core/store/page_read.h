/*
 * A vectored read in steps: first what files and memory hold, then redo. For who must not wait for
 * the second in the same thread; all others call ps_snapshot_read_pages.
 */
#ifndef PS_STORE_PAGE_READ_H
#define PS_STORE_PAGE_READ_H

#include "store/snapshot.h"

typedef struct ps_page_read {
    ps_redo_pool *redo; /* may be NULL while no chain holds a WAL record */
    ps_arena arena;     /* of all the rest */
    uint32_t *order;
    ps_chain *chains;
    ps_redo_request *requests; /* for the pages that need redo */
    size_t request_count;
    ps_redo_batch *batch; /* of them, when it is under way */
} ps_page_read;

void ps_page_read_init(ps_page_read *read, ps_redo_pool *redo);
/* Not while a batch is under way. */
void ps_page_read_free(ps_page_read *read);

/* Makes the pages that need no redo. PS_ERR_WOULD_WAIT, for files, as the thread's patience is. */
int ps_page_read_collect(ps_page_read *read, const ps_snapshot *snapshot, const ps_key *keys,
                         size_t count, uint64_t lsn, uint8_t *const *outs, ps_error *err);
/* Makes the others if that takes no more than `wait_ns`. PS_ERR_WOULD_WAIT: ps_page_read_redo
 * must go on; if read->batch is set then, soon, since it holds helpers. */
int ps_page_read_begin_redo(ps_page_read *read, uint64_t wait_ns, ps_error *err);
/* Makes the others, however long it takes. */
int ps_page_read_redo(ps_page_read *read, ps_error *err);

/* The flags of requests for redo of this history at an LSN, from its settings. */
int ps_page_redo_flags(const ps_snapshot *snapshot, uint64_t lsn, uint8_t *flags, ps_error *err);

#endif
