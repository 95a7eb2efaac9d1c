/*
 * A backend's way to the page server.
 *
 * Problem: a read of a remote block stands deep inside the buffer manager, where nobody
 * expects the network. It must be quick (one round trip, many blocks), must outlive a restart
 * of the page server, must give way to a query cancel, and must leave nothing broken when an
 * ERROR jumps out of it.
 *
 * Words. A *request* asks for blocks of one fork; it is *in flight* until its answer is taken.
 * A request is *stale* once the transaction that sent it has ended: only a transaction's locks
 * promise that the files are still there, so a stale answer is taken and dropped.
 *
 * Invariants.
 *   - The connection belongs to the process that opened it, never to its parent: the postmaster
 *     reads no page.
 *   - ERRORs are raised only outside nghttp2 and with `requests` consistent, so the connection
 *     survives a cancelled query: the late answer is matched by its id, found stale, dropped.
 *   - A block asked for has not changed since the compute started (its bit is set), so it can be
 *     asked for again any number of times, and read at shim_settings.lsn without waiting for
 *     the page server to take in anything newer.
 *
 * Interrupts. Where they are not held, CHECK_FOR_INTERRUPTS does as everywhere. A caller that
 * holds a buffer lock holds interrupts too, perhaps for as long as the page server is away; an
 * ERROR is always allowed where a block is read (a disk may fail), so a pending cancel is
 * turned into one here. Only in a critical section is it left pending.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xact.h"
#include "grpc_stream.h"
#include "hydrate.h"
#include "miscadmin.h"
#include "page.pb-c.h"
#include "page_client.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "readahead.h"
#include "shim.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
#include "version.h"

#define GET_PAGES "/pagestore.v1.PageService/GetPages"
#define TOKEN_MAX 1000
#define REQUESTS 17        /* the last is kept for a block that somebody waits for */
#define SERVER_WAIT_MS 10000
#define ATTEMPT_MS 15000   /* without an answer for so long: try a new connection */
#define FIRST_PAUSE_MS 10
#define LONGEST_PAUSE_MS 1000

/* google.rpc.Code */
enum
{
    RPC_INVALID_ARGUMENT = 3,
    RPC_DEADLINE_EXCEEDED = 4,
    RPC_NOT_FOUND = 5,
    RPC_PERMISSION_DENIED = 7,
    RPC_RESOURCE_EXHAUSTED = 8,
    RPC_ABORTED = 10,
    RPC_UNIMPLEMENTED = 12,
    RPC_UNAVAILABLE = 14,
    RPC_DATA_LOSS = 15,
    RPC_UNAUTHENTICATED = 16
};

typedef struct PageRequest
{
    uint64 id; /* 0: a free slot */
    bool stale;
    const RemoteFork *fork;
    BlockNumber lowest;
    BlockNumber highest;
    int nblocks;
    BlockNumber blocks[PAGE_BATCH_MAX];
} PageRequest;

/* How a request ended. */
typedef enum Outcome
{
    IN_FLIGHT,
    STORED,
    REFUSED, /* the page server answered with an error */
    LOST     /* the connection failed, or was too slow */
} Outcome;

typedef struct Refusal
{
    uint32 code;
    int nblocks; /* of the request */
    char reason[64];
    char message[512];
} Refusal;

static GrpcStream stream = {.transport = {.fd = -1}, .ended = true};
static WaitEventSet *wait_set;
static bool has_descriptor;
static PageRequest requests[REQUESTS];
static uint64 last_id;
static MemoryContext answer_context;
static Refusal refusal;       /* of the last REFUSED request */
static char last_fault[256];  /* of the last LOST one */
static int last_status;       /* the gRPC status that ended its call, or -1 */
static bool latch_was_reset;

static int64
now_ms(void)
{
    instr_time now;

    INSTR_TIME_SET_CURRENT(now);
    return (int64) INSTR_TIME_GET_MILLISEC(now);
}

/* The connection */

static void
disconnect(void)
{
    if (wait_set != NULL)
        FreeWaitEventSet(wait_set);
    wait_set = NULL;
    grpc_stream_close(&stream);
    if (has_descriptor)
        ReleaseExternalFD();
    has_descriptor = false;
    memset(requests, 0, sizeof requests);
}

static void
disconnect_at_exit(int code, Datum arg)
{
    disconnect();
}

static void
end_of_transaction(XactEvent event, void *arg)
{
    if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PARALLEL_PRE_COMMIT ||
        event == XACT_EVENT_PRE_PREPARE)
        return;
    for (int i = 0; i < REQUESTS; i++)
        requests[i].stale = true;
    readahead_forget();
}

static void
prepare_process(void)
{
    if (answer_context != NULL)
        return;
    answer_context = AllocSetContextCreate(TopMemoryContext, "pagestore answer",
                                           ALLOCSET_DEFAULT_SIZES);
    RegisterXactCallback(end_of_transaction, NULL);
    on_proc_exit(disconnect_at_exit, 0);
}

static void
remember_loss(const char *fault)
{
    strlcpy(last_fault, fault, sizeof last_fault);
    last_status = stream.grpc_status;
}

/* The token of now: the file is replaced as the token is renewed. A file that cannot be read is as
 * none: the page server says what is missing. */
static void
read_token(char *token, size_t size)
{
    int fd = shim_settings.token_file[0] == '\0' ? -1
                                                 : open(shim_settings.token_file,
                                                        O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t length = fd < 0 ? 0 : read(fd, token, size - 1);

    if (fd >= 0)
        close(fd);
    token[length < 0 ? 0 : length] = '\0';
    token[strcspn(token, "\r\n")] = '\0';
}

static bool
connect_to_server(void)
{
    char token[TOKEN_MAX];

    if (!stream.ended && wait_set != NULL)
        return true;
    prepare_process();
    disconnect();
    if (!AcquireExternalFD())
    {
        remember_loss("was not connected to: too many open files");
        return false;
    }
    has_descriptor = true;
    read_token(token, sizeof token);
    if (!grpc_stream_open(&stream,
                          &(GrpcTarget) {.at = {.host = shim_settings.host,
                                                .port = shim_settings.port,
                                                .authority = shim_settings.authority_file},
                                         .token = token},
                          GET_PAGES))
    {
        remember_loss(stream.fault);
        disconnect();
        return false;
    }
    wait_set = CreateWaitEventSet(NULL, 3);
    AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
    AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, stream.transport.fd, NULL, NULL);
    if (IsUnderPostmaster)
        AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
    return true;
}

static void
heed_interrupts(void)
{
    CHECK_FOR_INTERRUPTS();
    if (CritSectionCount > 0 || InterruptHoldoffCount == 0)
        return;
    if (ProcDiePending)
        ereport(ERROR,
                (errcode(ERRCODE_ADMIN_SHUTDOWN),
                 errmsg("terminating while waiting for the page server")));
    if (QueryCancelPending)
        ereport(ERROR,
                (errcode(ERRCODE_QUERY_CANCELED),
                 errmsg("canceling statement while waiting for the page server")));
}

static void
reset_latch(void)
{
    ResetLatch(MyLatch);
    latch_was_reset = true;
}

/* Sleeps until the socket or the latch says something, or `ms` have passed. */
static void
wait_for_socket(int64 ms)
{
    WaitEvent event;
    uint32 wanted = WL_SOCKET_READABLE;

    heed_interrupts();
    if (grpc_stream_wants_write(&stream))
        wanted |= WL_SOCKET_WRITEABLE;
    ModifyWaitEvent(wait_set, 0, WL_LATCH_SET, MyLatch);
    ModifyWaitEvent(wait_set, 1, wanted, NULL);
    if (WaitEventSetWait(wait_set, (long) ms, &event, 1, PG_WAIT_EXTENSION) == 1 &&
        (event.events & WL_LATCH_SET))
        reset_latch();
    heed_interrupts();
}

static void
sleep_until(int64 until)
{
    int64 left;

    heed_interrupts();
    while ((left = until - now_ms()) > 0)
    {
        if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, (long) left,
                      PG_WAIT_EXTENSION) & WL_LATCH_SET)
            reset_latch();
        heed_interrupts();
    }
}

/* Requests */

static PageRequest *
find_request(uint64 id)
{
    for (int i = 0; i < REQUESTS; i++)
        if (requests[i].id == id)
            return &requests[i];
    return NULL;
}

static PageRequest *
find_request_for(const RemoteFork *fork, BlockNumber block)
{
    for (int i = 0; i < REQUESTS; i++)
    {
        if (requests[i].id == 0 || requests[i].stale || requests[i].fork != fork ||
            block < requests[i].lowest || block > requests[i].highest)
            continue;
        for (int k = 0; k < requests[i].nblocks; k++)
            if (requests[i].blocks[k] == block)
                return &requests[i];
    }
    return NULL;
}

bool
page_client_expects(const RemoteFork *fork, BlockNumber block)
{
    return find_request_for(fork, block) != NULL;
}

/* Puts a request on the connection; NULL when there is no connection, slot or memory. */
static PageRequest *
send_request(const RemoteFork *fork, const BlockNumber *blocks, int nblocks, int slots)
{
    Pagestore__V1__GetPagesRequest message = PAGESTORE__V1__GET_PAGES_REQUEST__INIT;
    Pagestore__V1__ReadLsn lsn = PAGESTORE__V1__READ_LSN__INIT;
    Pagestore__V1__RelTag rel = PAGESTORE__V1__REL_TAG__INIT;
    PageRequest *request = NULL;
    uint8 *room;

    for (int i = 0; i < slots && request == NULL; i++)
        if (requests[i].id == 0)
            request = &requests[i];
    if (request == NULL)
        return NULL;
    lsn.request_lsn = lsn.not_modified_since_lsn = shim_settings.lsn;
    rel.spc_oid = fork->spc;
    rel.db_oid = fork->db;
    rel.rel_number = fork->rel;
    rel.fork = fork->fork;
    message.request_id = last_id + 1;
    message.tenant_id.data = shim_settings.tenant_id;
    message.timeline_id.data = shim_settings.timeline_id;
    message.tenant_id.len = message.timeline_id.len = 16;
    message.read_lsn = &lsn;
    message.rel = &rel;
    message.blocks = unconstify(BlockNumber *, blocks);
    message.n_blocks = nblocks;
    message.wait_ms = Min(SERVER_WAIT_MS, shim_settings.timeout_ms);
    room = grpc_stream_put(&stream, pagestore__v1__get_pages_request__get_packed_size(&message));
    if (room == NULL)
        return NULL;
    pagestore__v1__get_pages_request__pack(&message, room);
    request->id = ++last_id;
    request->stale = false;
    request->fork = fork;
    request->nblocks = nblocks;
    memcpy(request->blocks, blocks, nblocks * sizeof *blocks);
    request->lowest = request->highest = blocks[0];
    for (int i = 1; i < nblocks; i++)
    {
        request->lowest = Min(request->lowest, blocks[i]);
        request->highest = Max(request->highest, blocks[i]);
    }
    return request;
}

bool
page_client_request(const RemoteFork *fork, const BlockNumber *blocks, int nblocks)
{
    if (!connect_to_server() || send_request(fork, blocks, nblocks, REQUESTS - 1) == NULL)
        return false;
    grpc_stream_pump(&stream);
    return true;
}

/* Answers */

static void *
allocate(void *context, size_t size)
{
    return MemoryContextAllocExtended(context, size, MCXT_ALLOC_NO_OOM);
}

static void
release(void *context, void *pointer)
{
    /* The context is reset as a whole. */
}

static void
remember_refusal(const Pagestore__V1__Status *status, int nblocks)
{
    refusal.code = status->code;
    refusal.nblocks = nblocks;
    strlcpy(refusal.reason, status->reason, sizeof refusal.reason);
    strlcpy(refusal.message, status->message, sizeof refusal.message);
}

/* Ends the connection over an answer that makes no sense. */
static Outcome
distrust(const char *fault)
{
    strlcpy(stream.fault, fault, sizeof stream.fault);
    stream.ended = true;
    return LOST;
}

static Outcome
take_answer(const uint8 *bytes, size_t length, uint64 *id)
{
    ProtobufCAllocator allocator = {allocate, release, answer_context};
    Pagestore__V1__GetPagesResponse *answer;
    PageRequest *slot;
    PageRequest request;

    MemoryContextReset(answer_context);
    answer = pagestore__v1__get_pages_response__unpack(&allocator, length, bytes);
    if (answer == NULL)
        return distrust("sent a message that does not parse");
    slot = answer->request_id == 0 ? NULL : find_request(answer->request_id);
    if (slot == NULL)
        return distrust("answered a question that was not asked");
    request = *slot;
    *id = slot->id;
    slot->id = 0;
    if (answer->status != NULL)
    {
        remember_refusal(answer->status, request.nblocks);
        return REFUSED;
    }
    if (answer->n_pages != request.nblocks)
        return distrust("sent another number of pages than was asked for");
    for (int i = 0; i < request.nblocks; i++)
        if (answer->pages[i].len != BLCKSZ)
            return distrust("sent a page of another length than 8192 bytes");
    for (int i = 0; i < request.nblocks && !request.stale; i++)
        hydrate_store(request.fork, request.blocks[i], (char *) answer->pages[i].data);
    return STORED;
}

/* Takes all that has arrived; says what became of request `id`, if it is among it. */
static Outcome
take_answers(uint64 id)
{
    const uint8 *bytes;
    size_t length;
    uint64 answered = 0;
    Outcome outcome = IN_FLIGHT;

    while (grpc_stream_next(&stream, &bytes, &length))
    {
        Outcome result = take_answer(bytes, length, &answered);

        if (result == LOST)
            return LOST;
        if (answered == id)
        {
            outcome = result;
            break; /* what follows may wait; `refusal` must not be overwritten */
        }
    }
    return outcome;
}

void
page_client_poll(void)
{
    if (stream.ended)
        return;
    grpc_stream_pump(&stream);
    take_answers(0);
}

static Outcome
wait_for_answer(uint64 id, int64 deadline)
{
    for (;;)
    {
        bool alive = grpc_stream_pump(&stream);
        Outcome outcome = take_answers(id);
        int64 left;

        if (outcome == STORED || outcome == REFUSED)
            return outcome;
        if (outcome == LOST || !alive || stream.ended)
            break;
        left = deadline - now_ms();
        if (left <= 0)
        {
            strlcpy(stream.fault, "did not answer in time", sizeof stream.fault);
            break;
        }
        wait_for_socket(left);
    }
    remember_loss(stream.fault);
    return LOST;
}

/* Failures */

static void
raise_refusal(const RemoteFork *fork, BlockNumber block)
{
    RelPathStr path = relpathperm(remote_fork_node(fork), fork->fork);

    ereport(ERROR,
            (errcode(refusal.code == RPC_DATA_LOSS ? ERRCODE_DATA_CORRUPTED : ERRCODE_IO_ERROR),
             errmsg("the page server could not give block %u of \"%s\" at %X/%X: %s", block,
                    path.str,
                    LSN_FORMAT_ARGS(shim_settings.lsn), refusal.reason),
             errdetail("%s", refusal.message),
             errhint("Page server %s; its log has more.", shim_settings.page_server)));
}

/* A call that ended so will end so again: it is another service, or it does not want us. */
static bool
hopeless(void)
{
    return last_status == RPC_INVALID_ARGUMENT || last_status == RPC_NOT_FOUND ||
           last_status == RPC_PERMISSION_DENIED || last_status == RPC_UNIMPLEMENTED ||
           last_status == RPC_UNAUTHENTICATED;
}

static void
raise_away(const RemoteFork *fork, BlockNumber block)
{
    RelPathStr path = relpathperm(remote_fork_node(fork), fork->fork);

    ereport(ERROR,
            (errcode(ERRCODE_IO_ERROR),
             errmsg("could not get block %u of \"%s\" at %X/%X: page server %s %s", block, path.str,
                    LSN_FORMAT_ARGS(shim_settings.lsn), shim_settings.page_server, last_fault),
             hopeless() ? errdetail("Asking again would not help.")
                        : errdetail("It was tried for %d ms (pagestore.timeout).",
                                    shim_settings.timeout_ms),
             errhint("See that the page server runs (\"pagestore status\"), then run the"
                     " statement again.")));
}

static bool
worth_retrying(uint32 code)
{
    return code == RPC_UNAVAILABLE || code == RPC_DEADLINE_EXCEEDED || code == RPC_ABORTED ||
           code == RPC_RESOURCE_EXHAUSTED;
}

static Outcome
try_once(const RemoteFork *fork, const BlockNumber *blocks, int nblocks, int64 deadline)
{
    PageRequest *request;
    Outcome outcome;

    if (!connect_to_server())
        return LOST;
    request = find_request_for(fork, blocks[0]);
    if (request == NULL)
        request = send_request(fork, blocks, nblocks, REQUESTS);
    if (request == NULL)
    {
        remember_loss("left too many requests unanswered");
        disconnect();
        return LOST;
    }
    outcome = wait_for_answer(request->id, Min(deadline, now_ms() + ATTEMPT_MS));
    if (outcome == LOST)
        disconnect();
    return outcome;
}

void
page_client_fetch(const RemoteFork *fork, const BlockNumber *blocks, int nblocks)
{
    int64 deadline = now_ms() + shim_settings.timeout_ms;
    int pause_ms = FIRST_PAUSE_MS;

    latch_was_reset = false;
    while (remote_map_is_remote(fork, blocks[0]))
    {
        Outcome outcome = try_once(fork, blocks, nblocks, deadline);

        if (outcome == STORED)
            continue;
        if (outcome == REFUSED && !worth_retrying(refusal.code))
        {
            /* Perhaps it was a block that nobody needs yet: ask for the one alone. */
            if (refusal.nblocks == 1)
                raise_refusal(fork, blocks[0]);
            nblocks = 1;
            continue;
        }
        if (now_ms() >= deadline || (outcome == LOST && hopeless()))
        {
            if (outcome == REFUSED)
                raise_refusal(fork, blocks[0]);
            raise_away(fork, blocks[0]);
        }
        sleep_until(Min(now_ms() + pause_ms, deadline));
        pause_ms = Min(pause_ms * 2, LONGEST_PAUSE_MS);
    }
    if (latch_was_reset)
        SetLatch(MyLatch); /* whoever waits outside looks again */
}
