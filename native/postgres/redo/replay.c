/*
 * One request: a base, and a chain of records and patches for one block.
 *
 * Each record goes through Postgres's own redo routine, as in recovery. What recovery would
 * do to other blocks falls on skip pages (storage.c). A record must refer to the target, or
 * the chain was put together wrongly; only a visibility map block may get a record that does
 * not name it, since heap records clear its bits without doing so.
 */
#include "postgres.h"

#include "access/rmgr.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "catalog/pg_control.h"
#include "replay.h"
#include "setup.h"
#include "storage.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "value.h"

static XLogReaderState *reader;
static MemoryContext record_context;
static DecodedXLogRecord *decoded;
static size_t decoded_size;

void
redo_replay_init(void)
{
    reader = XLogReaderAllocate(DEFAULT_XLOG_SEG_SIZE, NULL, XL_ROUTINE(), NULL);
    record_context =
        AllocSetContextCreate(TopMemoryContext, "redo of a record", ALLOCSET_DEFAULT_SIZES);
    if (reader == NULL)
        ereport(FATAL, (errmsg("pagestore_redo: out of memory")));
}

static void
describe_record(void *arg)
{
    const XLogRecord *record = arg;
    errcontext("redo of a record of %s, info 0x%02X, that ends at %X/%X",
               RmgrIdExists(record->xl_rmid) ? RmgrTable[record->xl_rmid].rm_name : "?",
               record->xl_info, LSN_FORMAT_ARGS(reader->EndRecPtr));
}

/* Refuses the resource managers that change something besides pages. */
static void
check_kind(const XLogRecord *record)
{
    uint8 info = record->xl_info & ~XLR_INFO_MASK;
    switch (record->xl_rmid) {
    case RM_XLOG_ID:
        if (info == XLOG_FPI || info == XLOG_FPI_FOR_HINT)
            return;
        break;
    case RM_HEAP2_ID:
    case RM_HEAP_ID:
    case RM_BTREE_ID:
    case RM_HASH_ID:
    case RM_GIN_ID:
    case RM_GIST_ID:
    case RM_SEQ_ID:
    case RM_SPGIST_ID:
    case RM_BRIN_ID:
    case RM_GENERIC_ID:
        return;
    }
    elog(ERROR, "a record of resource manager %u, info 0x%02X, does not change a block",
         record->xl_rmid, record->xl_info);
}

static void
decode(const ps_redo_wire_item *item, const char *data)
{
    const XLogRecord *record = (const XLogRecord *) data;
    char *message = NULL;
    if (item->length < SizeOfXLogRecord || record->xl_tot_len != item->length)
        elog(ERROR, "a record of %u bytes was sent as %u",
             item->length < SizeOfXLogRecord ? 0 : record->xl_tot_len, item->length);
    check_kind(record);

    size_t space = DecodeXLogRecordRequiredSpace(item->length);
    if (space > decoded_size) {
        size_t grown = Max(space, 64 * 1024);
        decoded = decoded == NULL ? MemoryContextAllocHuge(TopMemoryContext, grown)
                                  : repalloc_huge(decoded, grown);
        decoded_size = grown;
    }
    if (!DecodeXLogRecord(reader, decoded, unconstify(XLogRecord *, record), reader->ReadRecPtr,
                          &message))
        elog(ERROR, "could not decode a record: %s", message);
    decoded->next_lsn = item->lsn;
    reader->record = decoded;
}

/* Whether the decoded record names the target, and so may be sent to it. */
static const DecodedBkpBlock *
reference_to_target(void)
{
    for (int id = 0; id <= decoded->max_block_id; id++) {
        const DecodedBkpBlock *block = &decoded->blocks[id];
        if (block->in_use && redo_storage_is_target(block->rlocator, block->forknum, block->blkno))
            return block;
    }
    return NULL;
}

static void
check_target(const ps_redo_wire_request *request, bool page_is_new)
{
    const DecodedBkpBlock *block = reference_to_target();
    if (request->fork == VISIBILITYMAP_FORKNUM || request->fork == FSM_FORKNUM)
        return;
    if (block == NULL)
        elog(ERROR, "the record does not refer to the block");
    if (page_is_new && !(block->flags & BKPBLOCK_WILL_INIT) && !block->apply_image)
        elog(ERROR, "the record changes the block, whose base is an empty page");
}

static void
skip_initialised_blocks(void)
{
    for (int id = 0; id <= decoded->max_block_id; id++) {
        const DecodedBkpBlock *block = &decoded->blocks[id];
        if (block->in_use && ((block->flags & BKPBLOCK_WILL_INIT) || block->apply_image) &&
            !redo_storage_is_target(block->rlocator, block->forknum, block->blkno))
            redo_storage_skip(block->rlocator, block->forknum, block->blkno);
    }
}

static void
replay_record(const ps_redo_wire_request *request, const ps_redo_wire_item *item,
              const char *data, bool page_is_new)
{
    ErrorContextCallback context = {
        .previous = error_context_stack, .callback = describe_record, .arg = (void *) data};
    error_context_stack = &context;
    reader->ReadRecPtr = item->lsn - Min(item->lsn, item->length);
    reader->EndRecPtr = item->lsn;
    decode(item, data);
    check_target(request, page_is_new);
    setup_before_redo(reader);
    RmgrTable[decoded->header.xl_rmid].rm_redo(reader);
    skip_initialised_blocks();
    error_context_stack = context.previous;
    MemoryContextReset(record_context);
}

static void
replay_patch(const ps_redo_wire_item *item, const char *data)
{
    Buffer buffer = redo_storage_pin_target();
    LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
    int rc = ps_patch_apply((uint8 *) BufferGetPage(buffer), (const uint8 *) data, item->length);
    MarkBufferDirty(buffer);
    UnlockReleaseBuffer(buffer);
    if (rc != PS_OK)
        elog(ERROR, "a patch leaves the page");
}

static bool
target_is_new(void)
{
    Buffer buffer = redo_storage_pin_target();
    bool is_new = PageIsNew(BufferGetPage(buffer));
    ReleaseBuffer(buffer);
    return is_new;
}

void
redo_replay(const ps_redo_wire_request *request, char *page)
{
    const char *at = (const char *) (request + 1);
    const char *end = (const char *) request + request->length;
    RedoTarget target = {.rlocator = {request->spc, request->db, request->rel},
                         .fork = request->fork,
                         .block = request->block};
    const char *base = NULL;
    if (request->has_base) {
        if (end - at < BLCKSZ)
            elog(ERROR, "a request ends within its base");
        base = at;
        at += BLCKSZ;
    }
    if (request->fork > MAX_FORKNUM || request->block > MaxBlockNumber - 1)
        elog(ERROR, "there is no fork %u, block %u", request->fork, request->block);

    MemoryContext caller = MemoryContextSwitchTo(record_context);
    wal_log_hints = (request->flags & PS_REDO_LOG_HINTS) != 0;
    redo_storage_begin(&target, base);
    bool unknown = true;
    bool is_new = false;
    for (uint32 i = 0; i < request->items; i++) {
        const ps_redo_wire_item *item = (const ps_redo_wire_item *) at;
        if (end - at < (ptrdiff_t) sizeof *item || item->length > end - at - sizeof *item)
            elog(ERROR, "a request ends within its item %u", i);
        at += sizeof *item;
        if (item->kind == PS_VALUE_PATCH) {
            replay_patch(item, at);
        } else if (item->kind == PS_VALUE_RECORD) {
            if (unknown)
                is_new = target_is_new();
            replay_record(request, item, at, is_new);
            unknown = is_new = false;
        } else {
            elog(ERROR, "an item of kind %u is neither a record nor a patch", item->kind);
        }
        at += Min(MAXALIGN(item->length), end - at);
    }
    redo_storage_end(page);
    MemoryContextSwitchTo(caller);
}
