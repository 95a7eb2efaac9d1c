"""What a redo helper may do to us, and what we do then.

A helper that dies takes at most its own page with it; nothing leaks; and it cannot leave its
sandbox, whatever a record makes it do.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore._native import NativeError
from pagestore.errors import FailedPrecondition
from pagestore.pgformat.wal import record_bytes
from pagestore.reader.redo import RedoHelpers
from tests.plain_postgres import BINDIR, PlainPostgres, module, reachable_dir

RECORD, PATCH = 2, 3
ERR_REDO, ERR_UNSUPPORTED, ERR_CLOSED = -7, -6, -9
RM_HEAP2, RM_HEAP, RM_SEQ, RM_XLOG = 9, 10, 15, 0
RELATION = (1663, 5, 16384)
KEY = keyspace.rel_block(*RELATION, 0, 7).pack()

Item = tuple[int, int, int, bytes]


def record(rmgr: int, info: int, main: bytes, *, block: int = 7, will_init: bool = False) -> bytes:
    """A record with one block reference and main data."""
    flags = 0x40 if will_init else 0
    reference = struct.pack("<BBHIIII", 0, flags, 0, *RELATION, block)
    length = bytes((255, len(main))) if len(main) < 256 else struct.pack("<BI", 254, len(main))
    return record_bytes(rmgr, info, 3, 0, reference + length + main)


def sequence(lsn: int, content: bytes) -> Item:
    """A record that makes the page anew: a sequence's, with ``content`` as its tuple."""
    main = struct.pack("<III", *RELATION) + content
    return (lsn, RECORD, 1, record(RM_SEQ, 0, main, will_init=True))


def patch(offset: int, value: int) -> Item:
    return (1, PATCH, 0, struct.pack("<HHBB", offset, 1, 0xFF, value))


GOOD = (KEY, None, [patch(100, 1), patch(101, 2)])
POISON = (KEY, None, [(9, RECORD, 0, b"\xff" * 64)])


@pytest.fixture
def helpers() -> Iterator[RedoHelpers]:
    with RedoHelpers(BINDIR, size=2) as made:
        yield made


def children() -> set[int]:
    own = os.getpid()
    found = set()
    for task in Path(f"/proc/{own}/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def is_ready(pid: int) -> bool:
    """Whether a helper is past its start. One that died meanwhile is not."""
    try:
        return "\nSeccomp:\t2\n" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_runs_until_a_page_is_wanted(helpers: RedoHelpers) -> None:
    before = children()
    assert helpers.pool.stats()["running"] == 0
    page = helpers.pool.apply(*GOOD)
    assert (page[100], page[101]) == (1, 2)
    assert helpers.pool.stats()["running"] == 1
    assert len(children() - before) == 1
    helpers.pool.stop_idle(0)
    assert helpers.pool.stats()["running"] == 0
    assert children() == before
    helpers.pool.apply(*GOOD)
    assert helpers.pool.stats() | {"busy_seconds": 0} == {
        "pages": 2, "records": 4, "busy_seconds": 0, "started": 2, "deaths": 0, "running": 1,
    }  # fmt: skip


def test_a_record_sets_the_page_lsn_and_a_patch_does_not(helpers: RedoHelpers) -> None:
    page = helpers.pool.apply(KEY, None, [sequence(0x1_0000_0040, b"x" * 40), patch(60, 9)])
    assert struct.unpack_from("<II", page) == (1, 0x40)
    assert page[60] == 9


def test_helpers_are_sandboxed_and_not_root(helpers: RedoHelpers) -> None:
    before = children()
    helpers.pool.apply(*GOOD)
    (pid,) = children() - before
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split()[0] != "0"
    assert status["CapEff"].strip("0") == ""
    # What it could still talk to: three pipes, and what single-user Postgres opened itself.
    targets = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    assert not any(target.startswith(("socket:", "/work", "/tmp")) for target in targets), targets


def test_a_record_that_opens_a_file_dies_in_the_sandbox(helpers: RedoHelpers) -> None:
    # Heap2/REWRITE writes a file of logical decoding: the one record with a block reference
    # that makes redo open anything.
    rewrite = record(RM_HEAP2, 0x00, struct.pack("<IIIIQQQ", 3, 5, 16384, 1, 0, 64, 0))
    base = page_with_header()
    with pytest.raises(NativeError) as caught:
        helpers.pool.apply(KEY, base, [(9, RECORD, 0, rewrite)])
    code, text = caught.value.args
    assert code == ERR_REDO
    assert "killed by its sandbox (SIGSYS)" in text
    assert helpers.pool.stats()["deaths"] == 2


def page_with_header() -> bytes:
    return struct.pack("<QHHHHHHI", 0, 0, 0, 24, 8192, 8192, 0x2004, 0).ljust(8192, b"\0")


def test_a_bad_record_costs_only_its_own_page(helpers: RedoHelpers) -> None:
    requests = [GOOD] * 100
    requests[17] = requests[70] = POISON
    pages, fault = helpers.pool.apply_many(requests)
    assert [i for i, page in enumerate(pages) if page is None] == [17, 70]
    assert all(page[100:102] == b"\1\2" for page in pages if page is not None)
    assert fault is not None
    code, text = fault
    assert code == ERR_REDO
    assert "relation 1663/5/16384 fork 0 block 7 at LSN 0/9" in text
    assert "ERROR: a record of" in text
    assert helpers.pool.stats()["deaths"] == 4


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([(9, RECORD, 0, b"")], "was sent as 0"),
        ([(9, RECORD, 0, record(RM_HEAP, 0, b"\0\0\0", block=8))], "does not refer to the block"),
        ([(9, RECORD, 0, record(RM_HEAP, 0, b"\0\0\0"))], "whose base is an empty page"),
        ([(9, RECORD, 0, record(RM_XLOG, 0x10, b"\0" * 88))], "resource manager 0, info 0x10"),
        ([(9, RECORD, 0, record(130, 0, b""))], "resource manager 130"),
        ([(9, PATCH, 0, struct.pack("<HHBB", 8190, 3, 255, 1))], "a patch leaves the page"),
    ],
)
def test_faults_are_named(helpers: RedoHelpers, items: list[Item], words: str) -> None:
    with pytest.raises(NativeError) as caught:
        helpers.pool.apply(KEY, None, items)
    code, text = caught.value.args
    assert code == ERR_REDO
    assert words in text
    helpers.pool.apply(*GOOD)


@pytest.mark.parametrize(
    ("key", "items", "words"),
    [
        (keyspace.slru_page(1, 0).pack(), [patch(1, 1)], "not a block of a relation"),
        (KEY, [(9, 1, 0, b"")], "neither a record nor a patch"),
    ],
)
def test_requests_that_can_never_be_done_start_no_helper(
    helpers: RedoHelpers, key: bytes, items: list[Item], words: str
) -> None:
    with pytest.raises(NativeError) as caught:
        helpers.pool.apply(key, None, items)
    assert caught.value.args[0] == ERR_UNSUPPORTED
    assert words in caught.value.args[1]
    assert helpers.pool.stats()["started"] == 0


def test_killed_helpers_are_replaced_in_the_middle_of_batches(helpers: RedoHelpers) -> None:
    before, fds = children(), descriptors()
    over = threading.Event()

    def kill_now_and_then() -> None:
        while not over.is_set():
            for pid in children() - before:
                if is_ready(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.06)

    chain = [sequence(64 * i, bytes(40)) for i in range(1, 200)]
    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    made = failed = 0
    try:
        while helpers.pool.stats()["deaths"] < 12:
            pages, fault = helpers.pool.apply_many([(KEY, None, chain)] * 150)
            good = [page for page in pages if page is not None]
            assert all(struct.unpack_from("<II", page) == (0, 64 * 199) for page in good)
            assert fault is None or "killed by signal 9" in fault[1]
            made += len(good)
            failed += 150 - len(good)
    finally:
        over.set()
        killer.join()
    assert made > failed
    helpers.pool.stop_idle(0)
    assert children() == before
    assert descriptors() == fds


def test_a_stopped_helper_is_killed_at_its_deadline() -> None:
    with RedoHelpers(BINDIR, size=1, deadline=0.5) as helpers:
        before = children()
        helpers.pool.apply(*GOOD)
        (pid,) = children() - before
        os.kill(pid, signal.SIGSTOP)
        page = helpers.pool.apply(*GOOD)
        assert page[100] == 1
        assert helpers.pool.stats()["deaths"] == 1
        assert pid not in children()


def test_a_killed_page_server_leaves_nothing_for_long() -> None:
    program = (
        "import sys; from tests.integration.test_redo_failures import *\n"
        "helpers = RedoHelpers(BINDIR, size=1, parent=Path(sys.argv[1]))\n"
        "helpers.pool.apply(*GOOD)\n"
        "print(*children(), helpers.directory, flush=True)\n"
        "sys.stdin.read()\n"
    )
    runtime = reachable_dir("ps-test-redo-")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(runtime)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        pid, directory = server.stdout.readline().split()
        with RedoHelpers(BINDIR, parent=runtime):
            assert Path(directory).exists()
        assert state(pid) is not None
        server.kill()
    deadline = time.monotonic() + 30
    while state(pid) not in (None, "Z") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert state(pid) in (None, "Z")  # a container's first process may not reap
    with RedoHelpers(BINDIR, parent=runtime):
        assert not Path(directory).exists()
    runtime.rmdir()


def state(pid: str) -> str | None:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_threads_share_the_pool(helpers: RedoHelpers) -> None:
    wrong = []

    def work(number: int) -> None:
        for i in range(60):
            base = bytes([number]) * 8192
            count = 1 + (i * 7) % 40
            pages, fault = helpers.pool.apply_many([(KEY, base, [patch(i, 255)])] * count)
            expected = base[:i] + b"\xff" + base[i + 1 :]
            if fault is not None or pages != [expected] * count:
                wrong.append((number, i, fault))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # Each was started once and serves on. Of two that are silent for long, as on a busy machine
    # while they start, others are started besides.
    stats = helpers.pool.stats()
    assert (stats["deaths"], stats["started"]) == (0, stats["running"])


def test_mutated_records_never_hang_or_corrupt_the_next_page(helpers: RedoHelpers) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    rng = random.Random(seed)
    honest = sequence(64, b"honest" * 10)
    expected = helpers.pool.apply(KEY, None, [honest])
    requests = []
    for _ in range(60):
        raw = bytearray(sequence(64, bytes(rng.randrange(80)))[3])
        for _ in range(rng.randrange(1, 6)):
            raw[rng.randrange(4, len(raw))] = rng.randrange(256)
        requests += [(KEY, None, [(64, RECORD, 1, bytes(raw))]), (KEY, None, [honest])]
    pages, _ = helpers.pool.apply_many(requests)
    assert all(page == expected for page in pages[1::2]), f"seed {seed}"


def test_long_chains_and_large_records(helpers: RedoHelpers) -> None:
    chain = [sequence(8 * i, i.to_bytes(4, "little") * 30) for i in range(1, 20000)]
    page = helpers.pool.apply(KEY, bytes(8192), chain)
    assert (19999).to_bytes(4, "little") * 30 in page
    # 320 MB for one page, as of a row that was updated millions of times.
    raw = record(RM_SEQ, 0, struct.pack("<III", *RELATION) + b"z" * 8000, will_init=True)
    many = [(8 * i, RECORD, 1, raw) for i in range(1, 40_000)]
    last = (8 * 40_000, PATCH, 0, struct.pack("<HHBB", 8191, 1, 0xFF, 77))
    page = helpers.pool.apply(KEY, None, [*many, last])
    assert struct.unpack_from("<II", page) == (0, 8 * 39_999)
    assert page[8191] == 77
    ops = struct.pack("<HHBB", 500, 8, 0x0F, 0xFF) * 100_000
    page = helpers.pool.apply(KEY, b"\xf0" * 8192, [(1, PATCH, 0, ops)] * 8)
    assert page == b"\xf0" * 500 + b"\xff" * 8 + b"\xf0" * 7684


def test_a_closed_pool_says_so_and_leaves_nothing() -> None:
    before, fds = children(), descriptors()
    helpers = RedoHelpers(BINDIR)
    helpers.pool.apply_many([GOOD] * 64)
    assert helpers.pool.stats()["running"] == 2
    helpers.close()
    helpers.close()
    assert not helpers.directory.exists()
    assert children() == before
    assert descriptors() == fds
    with pytest.raises(NativeError) as caught:
        helpers.pool.apply(*GOOD)
    assert caught.value.args[0] == ERR_CLOSED


def test_a_helper_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "pagestore_redo.so"
    broken.write_bytes(b"not a library")
    with RedoHelpers(BINDIR, library=broken) as helpers:
        pages, fault = helpers.pool.apply_many([GOOD] * 3)
    assert pages == [None] * 3
    assert fault is not None
    assert fault[0] == ERR_REDO
    assert "could not load library" in fault[1]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        RedoHelpers(tmp_path)
    assert caught.value.reason == "POSTGRES_MISSING"
    if os.geteuid() == 0:
        with pytest.raises(FailedPrecondition) as caught:
            RedoHelpers(BINDIR, run_as="nobody-of-this-name")
        assert caught.value.reason == "USER_MISSING"


def test_the_server_refuses_the_library_as_an_extension(helpers: RedoHelpers) -> None:
    cluster = PlainPostgres(reachable_dir())
    cluster.initdb()
    cluster.configure(shared_preload_libraries=helpers.directory / module("redo").name)
    with pytest.raises(RuntimeError, match="postgres --single"):
        cluster.start()
    shutil.rmtree(cluster.root)
