/*
 * Asking for blocks before they are read.
 *
 * A scan is a run of reads of block after block by this process. Its window grows from 8 blocks
 * to pagestore.readahead, and the next window is asked for as soon as the scan enters the last
 * one, so that one is always on its way. From 17 on Postgres reads several blocks at a time where
 * it knows that it will need them: such a read begins a scan at once, and asks for its own blocks
 * and the first window in one request. In a parallel query each process scans a chunk, then jumps
 * ahead to its next; there a window ends where the chunk does, for what follows is another's.
 * Blocks named by PrefetchBuffer are gathered and asked for together when one of them is read or
 * there are enough.
 *
 * Nothing here waits: what has been asked for is stored when it arrives (page_client.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "page_client.h"
#include "port/pg_bitutils.h"
#include "readahead.h"
#include "shim.h"

#define SCANS 8
#define FIRST_WINDOW 8
#define SMALL_FORK 8      /* blocks: brought whole at the first read */
#define IDLE_WINDOWS 4    /* a scan that finds so many windows already here is left alone */
#define GATHERED_MAX 32

/* How a parallel scan deals out a table (heapam.c, tableam.c): so many chunks, if they are not
 * too large. */
#define PARALLEL_CHUNKS 2048
#define SMALLEST_CHUNK 4
#define LARGEST_CHUNK 8192

typedef struct Scan
{
    const RemoteFork *fork;
    BlockNumber last;    /* the block read last */
    BlockNumber marker;  /* where the last window begins: reading it asks for the next one */
    BlockNumber end;     /* all remote blocks before it have been asked for */
    int window;          /* 0: only one block was read so far */
    int idle_windows;
} Scan;

static Scan scans[SCANS];
static int nscans;
static int next_victim;

static struct
{
    const RemoteFork *fork;
    int nblocks;
    BlockNumber blocks[GATHERED_MAX];
} gathered;

/* Scans */

/* The remote blocks of [first, end) that are not on their way yet, at most PAGE_BATCH_MAX. */
static int
collect_remote(const RemoteFork *fork, BlockNumber first, BlockNumber end, BlockNumber *blocks)
{
    int n = 0;

    end = Min(end, fork->nblocks);
    for (BlockNumber block = first; block < end && n < PAGE_BATCH_MAX; block++)
        if (remote_map_is_remote(fork, block) && remote_map_hot_page(fork, block) == NULL &&
            !page_client_expects(fork, block))
            blocks[n++] = block;
    return n;
}

int
readahead_ask(const RemoteFork *fork, BlockNumber first, BlockNumber end)
{
    BlockNumber blocks[PAGE_BATCH_MAX];
    int n = collect_remote(fork, first, end, blocks);

    if (n > 0)
        page_client_request(fork, blocks, n);
    return n;
}

static void
drop_scan(Scan *scan)
{
    *scan = scans[--nscans];
}

/* The blocks of a chunk of a parallel scan; 0 outside of parallel queries. */
static BlockNumber
chunk_size(const RemoteFork *fork)
{
    if (!IsInParallelMode())
        return 0;
    return Min(pg_nextpower2_32(Max(fork->nblocks / PARALLEL_CHUNKS, SMALLEST_CHUNK)),
               LARGEST_CHUNK);
}

/* Where a scan's windows end. */
static BlockNumber
limit_of(const Scan *scan, BlockNumber chunk)
{
    return chunk == 0 ? scan->fork->nblocks : (scan->last / chunk + 1) * chunk;
}

/* Asks for the window after `end`, and what a read that begins at `from` needs before that. The
 * scan may be dropped: it is done, or needs no help. */
static void
ask_next_window(Scan *scan, BlockNumber from, BlockNumber chunk)
{
    BlockNumber first = Max(scan->end, from);
    BlockNumber limit = limit_of(scan, chunk);

    scan->window = Min(Max(scan->window * 2, FIRST_WINDOW), shim_settings.readahead);
    scan->marker = first;
    scan->end = Max(first, Min(Max(first + scan->window, scan->last + 1), limit));
    if (readahead_ask(scan->fork, first, scan->end) > 0)
        scan->idle_windows = 0;
    else if (scan->end > first)
        scan->idle_windows++;
    if (scan->idle_windows > IDLE_WINDOWS || first >= scan->fork->nblocks)
        drop_scan(scan);
}

/* Whether a read continues a scan: the next block, or the first of a later chunk. */
static bool
continues(const Scan *scan, BlockNumber block, BlockNumber chunk)
{
    return block == scan->last + 1 ||
           (chunk > 0 && scan->window > 0 && block > scan->last && block % chunk == 0);
}

/* Notes a read; true when it belongs to a scan, whose next window is then on its way. */
static bool
note_read(const RemoteFork *fork, BlockNumber first, BlockNumber last)
{
    BlockNumber chunk = chunk_size(fork);

    for (int i = 0; i < nscans; i++)
    {
        Scan *scan = &scans[i];

        if (scan->fork != fork || !continues(scan, first, chunk))
            continue;
        scan->last = last;
        if (scan->window == 0 || last >= scan->marker)
            ask_next_window(scan, first, chunk);
        return true;
    }
    return false;
}

static void
begin_scan(const RemoteFork *fork, BlockNumber first, BlockNumber last)
{
    Scan *scan;

    if (nscans < SCANS)
        scan = &scans[nscans++];
    else
        scan = &scans[next_victim++ % SCANS];
    *scan = (Scan){.fork = fork, .last = last, .marker = last + 1, .end = last + 1};
    if (first == last)
        return;
    scan->window = Min(FIRST_WINDOW, shim_settings.readahead);
    scan->end = Max(scan->end, Min(scan->end + scan->window, limit_of(scan, chunk_size(fork))));
    readahead_ask(fork, first, scan->end);
}

void
readahead_forget(void)
{
    nscans = 0;
    gathered.nblocks = 0;
}

void
readahead_local(const RemoteFork *fork, BlockNumber block, BlockNumber nblocks)
{
    if (nscans > 0)
        note_read(fork, block, block + nblocks - 1);
}

/* Blocks that were named beforehand */

static void
ask_gathered(void)
{
    BlockNumber blocks[GATHERED_MAX];
    int n = 0;

    for (int i = 0; i < gathered.nblocks; i++)
        if (remote_map_is_remote(gathered.fork, gathered.blocks[i]))
            blocks[n++] = gathered.blocks[i];
    gathered.nblocks = 0;
    if (n > 0)
        page_client_request(gathered.fork, blocks, n);
    page_client_poll();
}

static bool
is_gathered(const RemoteFork *fork, BlockNumber block)
{
    for (int i = 0; i < gathered.nblocks; i++)
        if (gathered.blocks[i] == block && gathered.fork == fork)
            return true;
    return false;
}

void
readahead_gather(const RemoteFork *fork, BlockNumber block)
{
    if (gathered.nblocks > 0 && gathered.fork != fork)
        ask_gathered();
    if (is_gathered(fork, block) || page_client_expects(fork, block))
        return;
    gathered.fork = fork;
    gathered.blocks[gathered.nblocks++] = block;
    if (gathered.nblocks == GATHERED_MAX)
        ask_gathered();
}

void
readahead_remote(const RemoteFork *fork, BlockNumber block, BlockNumber nblocks)
{
    BlockNumber last = block + nblocks - 1;

    for (BlockNumber each = block; each <= last; each++)
        if (is_gathered(fork, each))
            ask_gathered();
    if (fork->nblocks <= SMALL_FORK)
        readahead_ask(fork, 0, fork->nblocks);
    else if (shim_settings.readahead > 0 && !note_read(fork, block, last))
        begin_scan(fork, block, last);
    else if (shim_settings.readahead > 0 && !page_client_expects(fork, block))
        /* its window was lost with a connection */
        readahead_ask(fork, block,
                      block + Max(nblocks, Min(FIRST_WINDOW, shim_settings.readahead)));
    if (nblocks > 1)
        readahead_ask(fork, block, last + 1); /* what no window has taken */
}
