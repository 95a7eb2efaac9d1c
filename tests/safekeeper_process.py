"""A safekeeper in a process of its own, to be killed, frozen and starved by tests."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from pagestore.client.credentials import Credentials
from pagestore.client.wal import WalClient
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.v1 import wal_pb2 as pb
from tests import access
from tests.plain_postgres import PlainPostgres, plain_postgres

_T = TypeVar("_T")
_MAIN = """
import sys
from pathlib import Path
from pagestore.services.server import run
from pagestore.services.wal import WalSettings, serve
listen, data_dir, number, keep_bytes = sys.argv[1:]
run(serve(WalSettings(
    listen=listen, data_dir=Path(data_dir), id=int(number), keep_bytes=int(keep_bytes)
)))
"""


class SafekeeperProcess:
    """Serves `data_dir`; every start is on the same address."""

    def __init__(self, data_dir: Path, number: int = 1, keep_bytes: int = 64 << 20) -> None:
        self.data_dir = data_dir
        self.number = number
        self.keep_bytes = keep_bytes
        self.listen = "127.0.0.1:0"
        self.timeout = 10.0
        self.log = data_dir.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **popen: Any) -> None:
        address = self.data_dir / "address"
        address.unlink(missing_ok=True)
        arguments = (self.listen, self.data_dir, self.number, self.keep_bytes)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, *map(str, arguments)],
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parent.parent,
                **{"env": access.environment(), **popen},
            )
        deadline = time.monotonic() + 30
        while not address.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log.read_text())
            time.sleep(0.01)
        self.listen = address.read_text().strip()

    @property
    def running(self) -> bool:
        return self._process is not None

    def tell_if_dead(self) -> None:
        """Says why, if it has ended and nobody stopped it."""
        if self._process is not None and self._process.poll() is not None:
            code, log = self._process.returncode, self.log.read_text()
            sys.stdout.write(f"Safekeeper {self.number} has ended ({code}); its log:\n{log}\n")

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def call(
        self,
        work: Callable[[WalClient], Coroutine[Any, Any, _T]],
        credentials: Credentials | None = None,
    ) -> _T:
        """Runs `work` with a client of this safekeeper; an operator's, unless given others."""

        async def main() -> _T:
            given = {"credentials": credentials} if credentials is not None else {}
            async with WalClient(self.listen, timeout=self.timeout, **given) as client:
                return await work(client)

        return asyncio.run(main())


class Timeline:
    """A timeline of a safekeeper that follows a plain cluster."""

    def __init__(self, safekeeper: SafekeeperProcess, postgres: PlainPostgres) -> None:
        self.safekeeper = safekeeper
        self.postgres = postgres
        self.id = TimelineId.generate()
        self.tenant = DEFAULT_TENANT
        self.term = 0
        self.start_lsn = 0

    @property
    def directory(self) -> Path:
        return self.safekeeper.data_dir / str(self.tenant) / str(self.id)

    def create(self, system_id: int | None = None) -> None:
        """From the cluster's flush LSN of now on."""
        self.start_lsn = flush_lsn(self.postgres)
        if system_id is None:
            system_id = int(
                self.postgres.sql("SELECT system_identifier FROM pg_control_system()")[0][0]
            )
        self.safekeeper.call(
            lambda client: client.create_timeline(
                self.tenant, self.id, self.start_lsn, system_id=system_id
            )
        )

    def vote(self) -> pb.VoteResponse:
        answer = self.safekeeper.call(lambda client: client.vote_next(self.tenant, self.id))
        assert answer.granted
        self.term = answer.term
        return answer

    def attach(self, lsn: int | None = None, *, hold: bool = False) -> None:
        self.safekeeper.call(
            lambda client: client.attach_compute(
                self.tenant,
                self.id,
                self.term,
                access.address(self.tenant, self.id, self.term, self.postgres.conninfo()),
                self.start_lsn if lsn is None else lsn,
                hold=hold,
            )
        )

    def detach(self, wait_flush_lsn: int = 0, wait_ms: int = 0) -> int:
        return self.safekeeper.call(
            lambda client: client.detach_compute(
                self.tenant, self.id, self.term, wait_flush_lsn=wait_flush_lsn, wait_ms=wait_ms
            )
        )

    def status(self) -> pb.WalTimelineStatus:
        return self.safekeeper.call(lambda client: client.get_status(self.tenant, self.id))

    def wait(self, what: Callable[[pb.WalTimelineStatus], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not what(status := self.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.02)

    def read(self, start_lsn: int = 0, linger_ms: int = 0) -> bytes:
        """All committed WAL from an LSN on."""

        async def work(client: WalClient) -> bytes:
            at = start_lsn or self.start_lsn
            parts = []
            async for piece in client.read_wal(self.tenant, self.id, at, linger_ms=linger_ms):
                assert piece.lsn == at
                at = piece.end
                parts.append(piece.data)
            assert at <= (await client.get_status(self.tenant, self.id)).commit_lsn
            return b"".join(parts)

        return self.safekeeper.call(work)


def lsn_of(postgres: PlainPostgres, expression: str) -> int:
    return int(postgres.sql(f"SELECT {expression} - '0/0'::pg_lsn")[0][0])


def flush_lsn(postgres: PlainPostgres) -> int:
    """A record's end: everything inserted is flushed, and nothing else runs."""
    postgres.sql("CHECKPOINT")
    return lsn_of(postgres, "pg_current_wal_flush_lsn()")


def compute_wal(postgres: PlainPostgres, start: int, end: int) -> bytes:
    """The bytes [start, end) in a stopped or running cluster's own segments."""
    parts = []
    while start < end:
        number = start >> 24
        length = min(end - start, (1 << 24) - start % (1 << 24))
        path = postgres.data / "pg_wal" / f"{1:08X}{number >> 8:08X}{number & 255:08X}"
        with path.open("rb") as file:
            file.seek(start % (1 << 24))
            parts.append(file.read(length))
        start += length
    return b"".join(parts)


SYNCHRONOUS = {
    "synchronous_standby_names": "ANY 1 (sk1)",
    "wal_level": "replica",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "4GB",
    "wal_keep_size": "1GB",
    "bgwriter_lru_maxpages": 0,
}


@contextmanager
def followed_postgres(data_dir: Path, **settings: object) -> Iterator[Timeline]:
    """A plain cluster with a safekeeper attached as its synchronous standby."""
    safekeeper = SafekeeperProcess(data_dir)
    safekeeper.start()
    try:
        with plain_postgres(**{"fsync": "off", **settings}) as postgres:
            timeline = Timeline(safekeeper, postgres)
            postgres.sql("CREATE TABLE ledger (id bigint PRIMARY KEY, filler text)")
            timeline.create()
            timeline.vote()
            timeline.attach()
            timeline.wait(lambda status: status.receiving)
            postgres.configure(**SYNCHRONOUS)
            postgres.sql("SELECT pg_reload_conf()")
            yield timeline
    finally:
        safekeeper.stop()


def synchronous_state(postgres: PlainPostgres) -> str:
    rows = postgres.sql("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'")
    return str(rows[0][0]) if rows else ""


def wait_synchronous(postgres: PlainPostgres) -> None:
    """Returns when commits wait for the safekeeper, and it follows."""
    deadline = time.monotonic() + 20
    while synchronous_state(postgres) != "quorum":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def insert(connection: psycopg.Connection[Any], number: int, filler: int = 10) -> None:
    connection.execute("INSERT INTO ledger VALUES (%s, repeat('x', %s))", (number, filler))
