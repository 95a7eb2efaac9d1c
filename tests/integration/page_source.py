"""A page server of one stopped cluster's files, and a hydrating copy of that cluster.

With these the shim is tested against real Postgres and real gRPC before, and apart from, the
rest of pagestore: :class:`PageSource` serves GetPages straight from the files, and
:func:`write_hydrating_copy` makes the data directory that a compute would have.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from pagestore.postgres import remote_map
from pagestore.v1 import page_pb2
from tests.plain_postgres import PlainPostgres, free_port, module, reachable_dir

PAGE = 8192
SEGMENT_PAGES = 131072
TENANT = bytes(range(16))
TIMELINE = bytes(range(16, 32))
FORKS = {"": 0, "_fsm": 1, "_vm": 2, "_init": 3}
DEFAULT_TABLESPACE = 1663
GLOBAL_TABLESPACE = 1664
RELATION_FILE = re.compile(r"(?:base/(\d+)|global)/(\d+)(_fsm|_vm|_init)?(?:\.(\d+))?")
SHIM = module("shim")

Fork = tuple[int, int, int, int]


@dataclass(frozen=True)
class SegmentFile:
    path: Path
    fork: Fork
    segment: int

    @property
    def nblocks(self) -> int:
        return self.path.stat().st_size // PAGE


def relation_files(data: Path) -> list[SegmentFile]:
    """Every relation segment file below `data`."""
    found = []
    for path in sorted([*data.glob("base/*/*"), *data.glob("global/*")]):
        match = RELATION_FILE.fullmatch(str(path.relative_to(data)))
        if match is None:
            continue
        db, rel, suffix, segment = match.groups()
        space = DEFAULT_TABLESPACE if db else GLOBAL_TABLESPACE
        fork = (space, int(db or 0), int(rel), FORKS[suffix or ""])
        found.append(SegmentFile(path, fork, int(segment or 0)))
    return found


def write_hydrating_copy(source: Path, target: Path) -> None:
    """Copies a stopped cluster without its relation files: all is in the remote map, but for
    unlogged relations, which a compute lays whole."""
    segments = {file.path: file for file in relation_files(source)}
    unlogged = {f.fork[:3] for f in segments.values() if f.fork[3] == FORKS["_init"]}
    lengths: dict[Fork, int] = {}

    def copy(name: str, to: str) -> None:
        file = segments.get(Path(name))
        if file is None or file.fork[:3] in unlogged:
            shutil.copy2(name, to)
            return
        lengths[file.fork] = lengths.get(file.fork, 0) + file.nblocks

    shutil.copytree(source, target, copy_function=copy)
    (target / remote_map.FILE_NAME).write_bytes(remote_map.build(remote_map.table_of(lengths)))
    adopt(target, source)


def adopt(tree: Path, model: Path) -> None:
    """Gives a tree to the owner of `model`."""
    owner = model.stat()
    for path in [tree, *tree.rglob("*")]:
        shutil.chown(path, owner.st_uid, owner.st_gid)


class PageSource:
    """Serves GetPages from a stopped cluster's files, in a thread of its own.

    ``requests`` lists (fork, blocks) as they came. ``refuse`` may answer a request with a
    status instead; ``mangle`` may change a response; while ``gate`` is clear, answers wait.
    """

    def __init__(self, data: Path, lsn: int) -> None:
        self.files = {(file.fork, file.segment): file.path for file in relation_files(data)}
        self.lsn = lsn
        self.port = free_port()
        self.method = "GetPages"
        self.requests: list[tuple[Fork, list[int]]] = []
        self.refuse: Callable[[Fork, list[int]], page_pb2.Status | None] = lambda *_: None
        self.mangle: Callable[[page_pb2.GetPagesResponse], None] = lambda _: None
        self.gate = threading.Event()
        self.gate.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pages_sent(self) -> int:
        return sum(len(blocks) for _, blocks in self.requests)

    @property
    def running(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)))
        self._thread.start()
        assert started.wait(10)

    def stop(self) -> None:
        """Closes every connection at once, as a kill would."""
        if self._thread is not None:
            assert self._loop is not None
            assert self._stop is not None
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        method = grpc.stream_stream_rpc_method_handler(self._get_pages)
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "pagestore.v1.PageService", {self.method: method}
                )
            ]
        )
        assert server.add_insecure_port(self.address) == self.port
        await server.start()
        started.set()
        await self._stop.wait()
        await server.stop(0)

    async def _get_pages(self, stream: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for message in stream:
            while not self.gate.is_set():
                await asyncio.sleep(0.005)
            response = self._answer(page_pb2.GetPagesRequest.FromString(message))
            self.mangle(response)
            yield response.SerializeToString()

    def _answer(self, request: page_pb2.GetPagesRequest) -> page_pb2.GetPagesResponse:
        assert request.tenant_id == TENANT
        assert request.timeline_id == TIMELINE
        assert request.read_lsn.request_lsn == self.lsn
        assert request.read_lsn.not_modified_since_lsn == self.lsn
        rel = request.rel
        fork = (rel.spc_oid, rel.db_oid, rel.rel_number, rel.fork)
        blocks = list(request.blocks)
        self.requests.append((fork, blocks))
        status = self.refuse(fork, blocks)
        if status is not None:
            return page_pb2.GetPagesResponse(request_id=request.request_id, status=status)
        pages = self._read(fork, blocks)
        return page_pb2.GetPagesResponse(request_id=request.request_id, pages=pages)

    def _read(self, fork: Fork, blocks: list[int]) -> list[bytes]:
        pages = []
        files: dict[int, Any] = {}
        for block in blocks:
            segment, within = divmod(block, SEGMENT_PAGES)
            if segment not in files:
                files[segment] = self.files[fork, segment].open("rb")
            files[segment].seek(within * PAGE)
            pages.append(files[segment].read(PAGE))
        for file in files.values():
            file.close()
        return pages


def scratch_dir() -> Path:
    """As reachable_dir, in memory where there is such a file system: a directory laid a
    hundred times over need not wait for a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        return reachable_dir()
    path = Path(tempfile.mkdtemp(prefix="ps-test-", dir=memory))
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")
    return path


class HydratingPostgres(PlainPostgres):
    """Stock Postgres with the shim, on a hydrating copy of a stopped cluster."""

    def __init__(self, source: PlainPostgres, pages: PageSource, **settings: object) -> None:
        super().__init__(scratch_dir())
        write_hydrating_copy(source.data, self.data)
        shim = self.root / SHIM.name
        shutil.copy(SHIM, shim)
        defaults: dict[str, object] = {
            "shared_preload_libraries": shim,
            "fsync": "off",
            "full_page_writes": "off",
            "wal_level": "replica",
            "pagestore.page_server": pages.address,
            "pagestore.tenant_id": TENANT.hex(),
            "pagestore.timeline_id": TIMELINE.hex(),
            "pagestore.lsn": f"{pages.lsn >> 32:X}/{pages.lsn & 0xFFFFFFFF:X}",
        }
        self.configure(**(defaults | settings))

    @property
    def log(self) -> str:
        return (self.root / "postgres.log").read_text()

    def process_titles(self) -> list[str]:
        """What each process of the server says that it does, without asking the server."""
        postmaster = (self.data / "postmaster.pid").read_text().split()[0]
        listing = subprocess.run(
            ["ps", "--ppid", postmaster, "-o", "args="], capture_output=True, text=True
        )
        return listing.stdout.splitlines()

    def remote_blocks(self) -> int:
        """How many blocks the map still has as remote."""
        content = (self.data / remote_map.FILE_NAME).read_bytes()
        offset, length = struct.unpack_from("<QQ", content, 16)
        return sum(byte.bit_count() for byte in content[offset : offset + length])


def checkpoint_lsn(cluster: PlainPostgres) -> int:
    """Where a stopped cluster's last checkpoint record is."""
    words = cluster.tool("pg_controldata", cluster.data).stdout
    match = re.search(r"Latest checkpoint location: +([0-9A-F]+)/([0-9A-F]+)", words)
    assert match is not None
    return int(match[1], 16) << 32 | int(match[2], 16)


@contextmanager
def serving(source: PlainPostgres) -> Iterator[PageSource]:
    """A page source of a stopped cluster."""
    pages = PageSource(source.data, checkpoint_lsn(source))
    pages.start()
    try:
        yield pages
    finally:
        pages.gate.set()
        pages.stop()


@contextmanager
def hydrating(
    source: PlainPostgres, pages: PageSource, **settings: object
) -> Iterator[HydratingPostgres]:
    """A running hydrating copy of a stopped cluster, removed at the end."""
    cluster = HydratingPostgres(source, pages, **settings)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop(signal.SIGQUIT)
        shutil.rmtree(cluster.root, ignore_errors=True)


@contextmanager
def plain_copy(source: PlainPostgres) -> Iterator[PlainPostgres]:
    """A running copy of a stopped cluster, without the shim."""
    cluster = PlainPostgres(scratch_dir())
    try:
        shutil.copytree(source.data, cluster.data)
        adopt(cluster.data, source.data)
        cluster.start()
        yield cluster
    finally:
        cluster.stop(signal.SIGQUIT)
        shutil.rmtree(cluster.root, ignore_errors=True)


def fork_of(cluster: PlainPostgres, relation: str, dbname: str = "postgres") -> Fork:
    """The main fork of a relation."""
    query = (
        "SELECT d.oid, pg_relation_filenode(%s::regclass) FROM pg_database d"
        " WHERE d.datname = current_database()"
    )
    with cluster.connect(dbname) as connection:
        row = connection.execute(query, [relation]).fetchone()
    assert row is not None
    return (DEFAULT_TABLESPACE, row[0], row[1], 0)
