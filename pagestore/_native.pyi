"""The native core, as Python sees it. One section a file of native/python."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import NamedTuple, Protocol

_Bytes = bytes
_Path = str | PathLike[str]

class NativeError(Exception):
    """args: (status code of native/core/status.h, text)."""

# --- batch.c

class Batch:
    """Values in WAL order; item i is (key, lsn, kind, flags, payload). See native/core/value.h."""

    nbytes: int
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[bytes, int, int, int, bytes]: ...
    def put(self, key: bytes, lsn: int, kind: int, flags: int, payload: bytes) -> None: ...
    def clear(self) -> None: ...

# --- crc32c.c

def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """CRC-32C; of chunks, chained."""

# --- lmdbfile.c

class LmdbFindings:
    """What the check of an LMDB file has found. See native/core/lmdbfile/check.h."""

    transaction: int
    before: int
    entries: int
    loose: int
    total: bytes
    unsealed: tuple[bytes, bytes] | None
    values: list[bytes | None]
    value_before: bytes | None
    tables: list[bytes]

def lmdb_check(
    descriptor: int, seal: int, seal_version: int, asked: tuple[tuple[bytes, bytes], ...]
) -> LmdbFindings:
    """Checks a whole file and sums up its entries; the first of those asked for is left out.

    Raises NativeError when its structure does not hold; OSError when it cannot be read.
    """

# --- wal.c

def wal_align(
    data: bytes | bytearray | memoryview,
    lsn: int,
    limit: int,
    known_start: int | None,
    known_prev: int,
) -> tuple[int, int] | None:
    """The end of the last whole record at or below ``limit``, and that record's start.

    ``data`` is the WAL from ``lsn`` on. ``known_start`` is the end of a record in it, and
    ``known_prev`` that record's start: reading begins there, and this is the least answer.
    Without, ``lsn`` begins a page, and None says that no whole record was found.
    """

class MetaSource(Protocol):
    """A timeline's committed metadata, for C: Snapshot, MetaTable."""

    def meta_source(self) -> object:
        """A capsule "pagestore.meta_source" around a ps_meta_source (native/core/value.h)."""

class MetaTable:
    """The latest value of each metadata key, in memory; for tests and tools."""

    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def meta_source(self) -> object: ...
    def put(self, key: bytes, value: bytes) -> None: ...
    def remove(self, key: bytes) -> None: ...
    def apply(self, batch: Batch) -> None: ...
    def items(self, low: bytes, high: bytes) -> list[tuple[bytes, bytes]]: ...

class Step(NamedTuple):
    """What a feed did. ``consumed`` is less than the chunk only at a barrier.

    A barrier is ``("clone_database", lsn, [(src_spc, src_db, dst_spc, dst_db)])``: before more
    is fed, the batch must be stored and the database's relations copied as of ``lsn``.
    """

    consumed: int
    records: int
    barrier: tuple[str, int, list[tuple[int, int, int, int]]] | None

class WalIngestor:
    """WAL in, versioned values out (native/core/wal/ingest.h). For one thread at a time.

    The source must hold what earlier feeds put into batches. When ``feed`` raises, ``batch``
    holds the records up to ``last_record_lsn``, and ``next_lsn`` is the same.
    """

    next_lsn: int
    last_record_lsn: int
    prev_record_lsn: int
    def __init__(
        self, start_lsn: int, prev_record_lsn: int, *, consistency: bool = False
    ) -> None: ...
    def feed(
        self,
        chunk: bytes | bytearray | memoryview,
        source: MetaSource,
        batch: Batch,
        checks: Batch | None = None,
    ) -> Step: ...

# --- store.c, store_layers.c, store_file.c, store_snapshot.c, store_timeline.c

class LayerSummary(tuple[int, bytes, bytes, int, int, int, int, int]):
    """What the catalog keeps of a layer file; made from a sequence of its eight fields."""

    kind: int  # 1 delta, 2 image
    min_key: bytes
    max_key: bytes  # inclusive
    first_lsn: int
    last_lsn: int  # inclusive
    entries: int
    keys: int
    bytes: int  # of the file
    def __new__(
        cls, fields: tuple[int, _Bytes, _Bytes, int, int, int, int, int], /
    ) -> LayerSummary: ...

def layer_filter_bytes(keys: int) -> int:
    """Of the filter that a layer file with so many keys is written with."""

def layers_now(second: int) -> None:
    """Tells the second (of CLOCK_MONOTONIC) by which the use of layers is noted."""

class OpenLayer:
    """Values in memory: one writer, many readers. See native/core/layer/open.h."""

    nbytes: int  # memory held
    count: int  # values
    depth: int  # see Layer.depth
    first_lsn: int  # 0 while empty
    last_lsn: int
    def __init__(self) -> None: ...
    def put(self, batch: Batch) -> None:
        """Takes a batch in LSN order: all of it, or nothing when it is not valid."""
    def freeze(self) -> None: ...
    def flush(
        self, path: _Path, tenant: _Bytes, timeline: _Bytes, number: int, *, level: int = 0
    ) -> LayerSummary:
        """Freezes, and writes everything to a new delta layer file, synced."""

class LayerWriter:
    """Writes a layer file from values sorted by key, then newest first."""

    nbytes: int  # of the file so far
    def __init__(
        self,
        path: _Path,
        tenant: _Bytes,
        timeline: _Bytes,
        number: int,
        kind: int,
        *,
        level: int = 1,
    ) -> None: ...
    def put(self, batch: Batch, start: int = 0) -> int:
        """Takes values from ``start`` on; returns the index of the first that is out of order."""
    def finish(self) -> LayerSummary: ...
    def abort(self) -> None: ...

class Layer:
    """An immutable layer file. It is opened when first read and closed when others need it."""

    path: str
    summary: LayerSummary
    def __init__(
        self,
        path: _Path,
        tenant: _Bytes,
        timeline: _Bytes,
        number: int,
        summary: LayerSummary,
        remote: Remote | None = None,
    ) -> None: ...
    @property
    def readers(self) -> int:
        """How many hold it, this one too."""
    @property
    def used(self) -> int:
        """Second of `layers_now` at which it was last read."""
    def verify(self) -> None:
        """Reads and checks every byte."""
    def heads(self, limit: int) -> list[tuple[bytes, int, int, int, int]]:
        """The first values of the file: (key, lsn, kind, flags, bytes of its payload)."""
    def depth(self) -> int:
        """Reads all: the most that one read has to apply of it, a record counted as 8 and a patch
        as 1."""
    def discard(self) -> None:
        """The file goes when nobody reads it any more; its directory too, if it is empty."""
    def let_go(self) -> None:
        """Closes the file, which is not here any more, unless somebody reads."""

class Remote:
    """Layers that are elsewhere: native/core/layer/remote.h.

    ``fetch(tenant, timeline, number, kind, offset, length)`` blocks the thread that reads, and
    gives exactly so many bytes; it raises what a later try may mend, and gives a text where there
    are none and never will be: reads fail as of a damaged file. ``damaged(tenant, timeline,
    number, kind, what)``: whether a file that is here, and does not hold, can be fetched instead.
    Both are called from any thread. ``directory`` is there and empty; ``limit``: bytes in it.
    """

    def __init__(
        self,
        directory: _Path,
        limit: int,
        fetch: Callable[[bytes, bytes, int, int, int, int], bytes | str],
        damaged: Callable[[bytes, bytes, int, int, str], bool],
    ) -> None: ...
    def limit(self, limit: int, /) -> None:
        """Blocks on files where it is less than what is cached."""
    def stats(self) -> dict[str, int]:
        """cached_bytes, fetches, fetched_bytes, failures, emptied_bytes; and `oldest`: the second
        (of CLOCK_MONOTONIC) at which the first to be emptied was read, 0 if there is none."""
    def close(self) -> None:
        """Nothing is fetched any more."""

class Compaction:
    """Delta layers made into others, a file at a time: native/core/store/compaction.h.

    A merge of them, or with ``image_lsn`` images of what they have at that LSN, for keys from
    ``low`` on; then image layers may be among them, and layers of ancestors, each up to its LSN of
    ``uppers``. Weights are those of `Layer.depth`; without
    ``open_weight`` a merge makes no images. What no read at the ``boundaries`` needs, or beyond
    the last of them unless it ``ends`` there, is left out. One thread writes; others may pause and
    cancel it.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        snapshot: Snapshot,
        redo: RedoPool | None,
        *,
        file_bytes: int,
        open_weight: int = 0,
        chain_weight: int = 0,
        chain_bytes: int = 0,
        image_lsn: int = 0,
        low: bytes = ...,
        boundaries: tuple[int, ...] = (),
        ends: bool = False,
        uppers: tuple[int, ...] = ...,
    ) -> None: ...
    def write(
        self, path: _Path, tenant: _Bytes, timeline: _Bytes, number: int, *, level: int
    ) -> LayerSummary | None:
        """The next file, synced; None when there is nothing more.

        Args:
            level: of zstd; 0 is LZ4.
        """
    def pause(self, paused: bool) -> None: ...
    def cancel(self) -> None: ...
    def stats(self) -> dict[str, int]:
        """bytes_read, values, images, refused (pages that redo did not make); between writes."""

class Snapshot:
    """An immutable view of layers, in no order: each counts within its bounds. Thread-safe.

    It owns its layers: files stay as long as it does.
    """

    def __init__(self, layers: Sequence[OpenLayer | Layer] = ()) -> None: ...
    def replace(
        self, gone: Sequence[OpenLayer | Layer], added: Sequence[OpenLayer | Layer]
    ) -> Snapshot:
        """The same without some layers and with others."""
    def over(self, parent: Snapshot, lsn: int) -> Snapshot:
        """A branch: these layers, and what the parent's show up to the branch LSN."""
    def files(self) -> list[Layer]:
        """All that may be read; what was added last comes first, an ancestor's last."""
    def meta_source(self) -> object: ...
    def get(self, key: _Bytes, lsn: int) -> _Bytes | None: ...
    def scan(
        self, low: _Bytes, high: _Bytes, lsn: int, *, limit: int = ...
    ) -> list[tuple[_Bytes, _Bytes]]: ...
    def scan_keys(
        self, low: _Bytes, high: _Bytes, lsn: int, *, limit: int = ...
    ) -> list[_Bytes]: ...
    def changed_keys(self, low: _Bytes, high: _Bytes, after: int, lsn: int) -> _Bytes:
        """18 bytes for each key of [low, high) that has a value beyond ``after`` and up to
        ``lsn``, ascending: what a page is, or that it is no more."""
    def relations(self, low: _Bytes, high: _Bytes, lsn: int) -> _Bytes:
        """Rows of five little-endian 32-bit numbers: spc, db, rel, fork, blocks; for each
        REL_SIZE key of [low, high) that exists at the LSN, ascending."""
    def last_before(self, low: _Bytes, high: _Bytes, lsn: int) -> tuple[_Bytes, _Bytes] | None:
        """The greatest key of [low, high) that exists at the LSN, with its value."""
    def chain(self, key: _Bytes, lsn: int) -> list[tuple[int, int, int, _Bytes]]:
        """What a read of the key needs: (lsn, kind, flags, payload), newest first."""
    def read_pages(self, keys: _Bytes, lsn: int, redo: RedoPool | None = None) -> _Bytes:
        """n * 18 bytes of keys in, n * 8192 bytes of pages out."""

def layer_is_needed(snapshot: Snapshot, layer: Layer, lsns: tuple[int, ...]) -> bool:
    """Whether a read at one of the LSNs, which ascend, is another one without the layer."""

def layer_dead_part(
    snapshot: Snapshot, layer: Layer, boundaries: tuple[int, ...], ends: bool, image_lsn: int
) -> float:
    """About what part of its bytes is dead, by a few of its keys: native/core/store/sieve.h.

    Args:
        image_lsn: of an image layer: those above it up to there count, too.
    """

class TimelineView:
    """What of a timeline C reads without Python: its position, its bounds, its snapshot."""

    def __init__(
        self, last_record_lsn: int, prev_record_lsn: int, earliest_lsn: int, horizon: int
    ) -> None: ...
    def move(self, last_record_lsn: int, prev_record_lsn: int) -> None:
        """Up to there it can be read."""
    def keep(self, horizon: int) -> None:
        """From there on all is kept."""
    def publish(self, snapshot: Snapshot | None) -> None:
        """What it is read by; None: whoever reads asks for it first."""
    def read(self) -> tuple[int, int, int, int, Snapshot | None]:
        """As of one moment: last_record_lsn, prev_record_lsn, earliest_lsn, horizon, snapshot."""

class PageReaders:
    """GetPages on an event loop, and threads of the core for what must wait.

    Args:
        files: threads that wait for files, 1 to 64.
        helpers: redo helpers that there may be, 1 to 64; so many threads wait for one to be free,
            and as many for those that work.
    """

    def __init__(self, files: int, helpers: int) -> None: ...
    def fileno(self) -> int:
        """Readable when there is something to take."""
    def serve_pages(
        self, snapshot: Snapshot, request: _Bytes, lsn: int, redo: RedoPool | None
    ) -> bytes | int:
        """A serialized GetPagesRequest in, a serialized GetPagesResponse out; or a ticket, when
        something has to be waited for."""
    def take(self) -> list[tuple[int, bytes]]:
        """The tickets and responses that are done since it was called last."""
    def cancel(self, ticket: int) -> None:
        """Nobody waits for it any more: it is taken soon, with whatever response."""
    def close(self) -> None:
        """Waits for what is under way. What is not is answered by CLOSED; all is to be taken."""

def parse_pages_request(request: _Bytes) -> tuple[int, _Bytes, _Bytes, int, int, int, int]:
    """(request_id, tenant, timeline, request_lsn, not_modified_since, blocks, wait_ms)."""

def pages_status(request_id: int, code: int, reason: str, message: str) -> _Bytes:
    """A GetPagesResponse that is only a status."""

def set_store_limits(
    *,
    block_cache_bytes: int = ...,
    index_bytes: int = ...,
    open_files: int = ...,
    chunk_bytes: int = ...,
) -> None:
    """Process-wide limits: cached blocks, layer indexes, open layer files, and the memory of open
    layers, used and kept for the next, beyond which none is kept."""

def store_stats() -> dict[str, int]:
    """Counts: block_hits, block_misses, block_bytes, open_files, loaded_layers, index_bytes,
    used_chunk_bytes, kept_chunk_bytes."""

def layer_faults() -> tuple[int, str]:
    """How often the disk has failed while a layer file was read; the words of the last time."""

def limit_malloc(arenas: int, mapped_bytes: int, top_bytes: int) -> None:
    """How malloc keeps memory: in how many arenas; pieces of so many bytes are mapped by
    themselves; so much may be free at an arena's end. See mallopt(3)."""

def trim_memory() -> None:
    """Returns memory that nothing uses to the system."""

# --- redo.c

class RedoPool:
    """Helper processes that make pages from WAL records; shared by threads.

    ``argv`` starts a helper, the word "{dir}" in it being the helper's directory. At most
    ``size`` of them work at a time (as many as ``dirs`` if 0); one that is silent does not count,
    and while there are directories another takes its place. See pagestore.reader.redo.

    A request is (key, base page or None for zeros, [(lsn, kind, flags, data), ...]), oldest
    item first, with kind RECORD or PATCH; ``flags`` of a call are ps_redo_flag.
    """

    def __init__(
        self,
        argv: Sequence[str],
        dirs: Sequence[str],
        *,
        size: int = 0,
        start_ms: int = 10000,
        deadline_ms: int = 3000,
    ) -> None: ...
    def apply(
        self,
        key: bytes,
        base: bytes | None,
        items: list[tuple[int, int, int, bytes]],
        flags: int = 0,
    ) -> bytes: ...
    def apply_many(
        self,
        requests: list[tuple[bytes, bytes | None, list[tuple[int, int, int, bytes]]]],
        flags: int = 0,
    ) -> tuple[list[bytes | None], tuple[int, str] | None]:
        """All pages (None where it failed), and the first failure's (code, text)."""
    def close(self) -> None: ...
    def stop_idle(self, seconds: float) -> None: ...
    def stats(self) -> dict[str, float]: ...

# --- receiver.c

class WalWriter:
    """One timeline's log, open for writing. See native/core/receiver/writer.h."""

    position: tuple[int, int, int]
    """(flush LSN, start of the record that ends there or 0, end of the bytes written)."""
    def __init__(
        self,
        directory: str,
        start_lsn: int,
        flush_lsn: int,
        prev_record_lsn: int = 0,
        epoch: int = 0,
    ) -> None: ...
    def append(self, lsn: int, data: bytes) -> None:
        """Writes whole records at the flush LSN; they are durable when it returns."""
    def close(self) -> None:
        """Nothing may be using the writer, a running receiver least of all."""

class WalReceiver:
    """Pulls from a compute's walsender into a writer. See native/core/receiver/receiver.h."""

    streaming: bool
    def __init__(
        self,
        writer: WalWriter,
        *,
        host: str,
        port: str,
        user: str,
        password: str,
        certificate: str,
        name: str,
        system_id: int,
        notify_fd: int,
    ) -> None: ...
    def run(self) -> None:
        """One connection; returns when stopped or when the compute ended it in order."""
    def stop(self) -> None:
        """From any thread; also makes later runs return."""

# --- relay.c

class TlsContext:
    """A certificate with its key, from PEM files. NativeError (INVALID) names the faulty one."""

    certificate_hash: bytes
    """tls-server-end-point of RFC 5929."""
    def __init__(self, certificate: str, key: str) -> None: ...

TAKEN_AT_ONCE: int
RELAY_METERS: int
"""Events that `Relay.take` gives at most."""

class Relay:
    """Moves the bytes of sessions in threads of its own; native/core/relay/relay.h says how.

    Args:
        notify_fd: an eventfd, signalled when `take` has something.
        max_connections, max_logins: of each thread; who comes beyond is told `full`, or, where
            there is a login that nobody knows anything of yet, the oldest such.
        gone: what a client is told whose backend ends at work, and says nothing.
    """

    def __init__(
        self,
        threads: int,
        notify_fd: int,
        max_connections: int,
        max_logins: int,
        full: bytes,
        gone: bytes,
    ) -> None: ...
    def listen(self, fd: int) -> None:
        """Takes a listening socket over."""

    def adopt(self, fd: int, beside: int) -> int:
        """Takes a connected socket over, into the thread of `beside`; its id, 0 without room."""

    def take(self) -> list[tuple[int, int, bytes]]:
        """Events: (id, kind, data); kind is a ps_relay_kind."""

    def read(self, connection: int) -> None: ...
    def send(self, connection: int, data: bytes) -> None: ...
    def ask(self, connection: int, data: bytes) -> None:
        """Send, then read."""

    def begin_tls(self, connection: int, tls: TlsContext, early: bytes) -> None: ...
    def join(self, client: int, server: int, meter: int, rest: bytes) -> None:
        """
        Args:
            meter: where the client's queries are counted.
        """

    def queries(self, meter: int) -> int:
        """Query, Execute and FunctionCall messages of clients with this meter, since ever."""

    def hold(self, client: int, now: bool = False) -> None: ...
    def release(self, client: int) -> None: ...
    def watch(self, connection: int) -> None: ...
    def close(self, connection: int) -> None: ...
    def dismiss(self, client: int, words: bytes) -> None:
        """Last words, behind the message of its backend's that is under way, and `close`."""

    def sessions(self, limit: int, quiet_ms: int = ...) -> list[tuple[int, int, int, bool, bool]]:
        """(client, server, milliseconds since a byte moved, at rest, client has spoken), without
        those that have been at rest for more than `quiet_ms`."""

    def shut_down(self) -> None:
        """Closes everything."""
