"""A running compute: wait for its end, stop it with nothing lost.

Its server's user may have replaced everything in its data directory by now, so what is read from
there is read as :mod:`pagestore.postgres.untrusted` says, and says nothing of other computes.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pagestore.client.walservice import WalService
from pagestore.compute.places import write_readable
from pagestore.compute.record import ComputeRecord
from pagestore.compute.removal import remove
from pagestore.errors import (
    Aborted,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    PagestoreError,
)
from pagestore.ids import format_lsn
from pagestore.pgformat import wal as walformat
from pagestore.pgformat.pg_control import DbState, PgControl
from pagestore.postgres.checkpoint import end_of_checkpoint
from pagestore.postgres.operator_session import operator_session
from pagestore.postgres.process import POLL_SECONDS, ServerProcess, own_user
from pagestore.postgres.server_log import log_tail
from pagestore.postgres.settings import (
    AUTO_CONF,
    HBA_FILE,
    IDENT_FILE,
    SYNCHRONOUS_FILE,
    hba,
    ident,
    synchronous_conf,
)
from pagestore.postgres.untrusted import open_regular, open_root, read_regular
from pagestore.postgres.user_settings import LONGEST_FILE, allowed, parse
from pagestore.tokens import Signer

_DETACH_WAIT_MS = 1_000
CARRIED = ("pg_stat/pgstat.stat", "pg_stat/pg_stat_statements.stat")
"""Files that no WAL holds, of use to the next compute of the same timeline. All may be lost, as
after a crash; one that is larger than LONGEST_CARRIED is."""
LONGEST_CARRIED = 4 << 20
RULE_SECONDS = 20.0
LAST_WAL_SECONDS = 0.3
"""For whoever has not taken the last WAL yet, once enough of the others have."""
_LONGEST_CONTROL_FILE = 8_192
_MOST_REST = 48 << 20
"""Bytes of WAL that a stopped server may still have to hand over: they travel in one message."""
_HIGHEST_LSN = 1 << 63


@dataclass(frozen=True, slots=True)
class StopResult:
    """``clean``: the shutdown checkpoint is durable at the WAL service, so the next start
    finds everything, and the files of CARRIED can be."""

    flush_lsn: int
    clean: bool
    files: Mapping[str, bytes] = field(default_factory=dict)
    user_settings: Mapping[str, str] | None = None
    """None where there was no file to read them from."""


class RunningCompute:
    """A compute that was ready once. Belongs to one event loop."""

    def __init__(
        self,
        directory: Path,
        record: ComputeRecord,
        server: ServerProcess,
        phases: Mapping[str, float] | None = None,
        remarks: tuple[str, ...] = (),
        signer: Signer | None = None,
    ) -> None:
        self.phases = dict(phases or {})
        """Seconds that each phase of its start took; none for an adopted one."""
        self.remarks = remarks
        """What its start found to say to the user."""
        self.directory = directory
        self.record = record
        self._server = server
        self._signer = signer

    @property
    def pid(self) -> int:
        return self.record.pid

    @property
    def port(self) -> int:
        return self.record.port

    @property
    def term(self) -> int:
        return self.record.term

    @property
    def start_lsn(self) -> int:
        return self.record.start_lsn

    @property
    def read_lsn(self) -> int:
        return self.record.read_lsn

    @property
    def superuser(self) -> str:
        return self.record.superuser

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return Path(self.record.log)

    @property
    def alive(self) -> bool:
        return self._server.alive

    def conninfo(self) -> str:
        """libpq keywords: the superuser, over the Unix socket."""
        return self.record.conninfo()

    def for_safekeepers(self, record: ComputeRecord | None = None) -> str:
        """Where they find it, signed; by another record than the one that is kept, if given."""
        return (record or self.record).signed_for_safekeepers(self._signer)

    async def wait_exit(self) -> int | None:
        """Until the server is gone; its exit code, None when it was adopted."""
        return await self._server.wait()

    def let_in(self, superuser: str, roles: Sequence[str]) -> ComputeRecord:
        """From now on pagestore's own user is this superuser over the Unix socket, or one of these
        roles, and no other. The record that says so is not kept yet: see :meth:`keep`."""
        for name, text in (
            (HBA_FILE, hba(superuser, self.record.host, roles)),
            (IDENT_FILE, ident(superuser, [own_user()], roles)),
        ):
            target = self.directory / name
            write_readable(target, text, target.stat().st_gid)
        self._server.send(signal.SIGHUP)
        return replace(self.record, superuser=superuser)

    def keep(self, record: ComputeRecord) -> None:
        record.save(self.directory)
        self.record = record

    async def set_rule(self, rule: str) -> None:
        """Whom commits wait for from now on.

        When this returns, nobody is told of a commit by an older rule any more: every walsender
        that knew one has ended.

        Raises:
            DeadlineExceeded: RULE_NOT_TAKEN.
        """
        target = self.directory / SYNCHRONOUS_FILE
        write_readable(target, synchronous_conf(rule), target.stat().st_gid)
        self._server.send(signal.SIGHUP)
        try:
            async with asyncio.timeout(RULE_SECONDS):
                # The postmaster takes a file before it tells its children to.
                while await self.rule() != rule:
                    await asyncio.sleep(POLL_SECONDS)
                await self._renew_walsenders()
        except TimeoutError as error:
            raise DeadlineExceeded(
                "RULE_NOT_TAKEN",
                f"The compute {self.pid} has not taken {rule!r} as its quorum within "
                f"{RULE_SECONDS:.0f} s.",
            ) from error

    async def _renew_walsenders(self) -> None:
        """Ends those that run; safekeepers come back at once."""
        async with await operator_session(self.conninfo()) as session:
            cursor = await session.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_replication"
                " WHERE sync_state <> 'async' OR application_name ~ '^sk[0-9]'"
            )
            pids = [row[0] for row in await cursor.fetchall()]
            left = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s)"
            while await (await session.execute(left, (pids,))).fetchone() != (0,):
                await asyncio.sleep(POLL_SECONDS)

    async def rule(self) -> str:
        """Whom commits wait for, as a new session is told."""
        async with await operator_session(self.conninfo()) as session:
            row = await (await session.execute("SHOW synchronous_standby_names")).fetchone()
        return str(row[0]) if row else ""

    def release(self) -> None:
        """Lets it live on, unwatched."""
        self._server.release()

    async def stop(self, wal: WalService, timeout: float = 60.0) -> StopResult:
        """As `shut_down`; then the directory is removed, out of the way at once."""
        result = await self.shut_down(wal, timeout)
        await asyncio.to_thread(self.remove)
        return result

    async def shut_down(self, wal: WalService, timeout: float = 60.0) -> StopResult:
        """A fast shutdown. When it returns, the shutdown checkpoint is durable at the WAL
        service, or another compute has taken the timeline over. May be repeated.

        Raises:
            DeadlineExceeded: COMPUTE_STOP_TIMEOUT; it was killed. No acknowledged commit is
                lost.
            PagestoreError: the WAL service is away.
        """
        self._server.send(signal.SIGINT)
        try:
            async with asyncio.timeout(timeout):
                await self._shut_down(wal)
        except TimeoutError as error:
            await self._server.kill()
            raise DeadlineExceeded(
                "COMPUTE_STOP_TIMEOUT",
                f"Postgres did not stop within {timeout:.0f} s and was killed. Its log "
                f"{self.log} ends:\n{log_tail(self.log)}",
            ) from error
        end = self._clean_end()
        result = await self._detach(wal, end)
        result = replace(result, user_settings=self.user_settings())
        if result.clean:
            result = replace(result, files=self._kept())
        return result

    def user_settings(self) -> dict[str, str] | None:
        """What ALTER SYSTEM has set by now, running or not."""
        with self._opened_data() as root:
            text = read_regular(root, AUTO_CONF, LONGEST_FILE)
        return None if text is None else allowed(parse(text))

    def _kept(self) -> dict[str, bytes]:
        with self._opened_data() as root:
            found = {path: read_regular(root, path, LONGEST_CARRIED) for path in CARRIED}
        return {path: content for path, content in found.items() if content is not None}

    async def _shut_down(self, wal: WalService) -> None:
        """Until the server is gone, or only waits for somebody who does not take its last WAL
        although the WAL service has it: a safekeeper that is frozen, while the others are not."""
        ending = asyncio.ensure_future(self._server.wait())
        taken = 0
        while not ending.done() and taken < 2:
            await asyncio.wait([ending], timeout=LAST_WAL_SECONDS)
            end = 0 if ending.done() else self._clean_end()
            if end and await self._is_committed(wal, end):
                taken += 1
        if not ending.done():
            await self._server.kill()
        await ending

    async def _is_committed(self, wal: WalService, lsn: int) -> bool:
        try:
            return await wal.is_committed(self.record.tenant, self.record.timeline, lsn)
        except PagestoreError:
            return False

    async def kill(self) -> None:
        """Ends it as a crash would. The directory stays until `remove`."""
        await self._server.kill()

    def remove(self) -> None:
        """Throws the directory away. Only for a compute that is gone."""
        if self._server.alive:
            raise FailedPrecondition("COMPUTE_RUNNING", f"The compute {self.pid} still runs.")
        remove(self.directory, self.record)

    def _clean_end(self) -> int:
        """The end of the shutdown checkpoint; 0 when there is none, or it is being written."""
        with self._opened_data() as root:
            content = read_regular(root, "global/pg_control", _LONGEST_CONTROL_FILE)
        try:
            control = PgControl.parse(content or b"")
        except (DataLoss, FailedPrecondition):
            return 0
        if control.state != DbState.SHUTDOWNED or control.checkpoint_lsn >= _HIGHEST_LSN:
            return 0
        return end_of_checkpoint(control.checkpoint_lsn)

    async def _detach(self, wal: WalService, end: int) -> StopResult:
        try:
            flush = await self._flushed(wal, end)
            if flush < end:
                # The safekeeper was away while the server stopped: hand it the rest.
                flush = await self._hand_over(wal, flush, end)
        except Aborted:
            return StopResult(0, clean=False)
        return StopResult(flush, clean=0 < end <= flush)

    async def _flushed(self, wal: WalService, end: int) -> int:
        ids = (self.record.tenant, self.record.timeline)
        try:
            return await wal.detach_compute(
                *ids, self.term, wait_flush_lsn=end, wait_ms=_DETACH_WAIT_MS if end else 0
            )
        except DeadlineExceeded:
            return await wal.detach_compute(*ids, self.term)

    async def _hand_over(self, wal: WalService, start: int, end: int) -> int:
        """The WAL of [start, end), from the server's own segments; the position that is durable
        then."""
        if end - start > _MOST_REST:
            raise _wal_gone(start)
        with self._opened_data() as root:
            rest = read_local_wal(root, start, end)
        ids = (self.record.tenant, self.record.timeline)
        return (await wal.append_wal(*ids, self.term, start, rest)).flush_lsn

    @contextmanager
    def _opened_data(self) -> Iterator[int]:
        root = open_root(self.data)
        try:
            yield root
        finally:
            os.close(root)


def read_local_wal(data: int, start: int, end: int) -> bytes:
    """The bytes of [start, end) from a stopped server's own segments.

    Args:
        data: its data directory, opened.

    Raises:
        FailedPrecondition: WAL_GONE; a segment was recycled already.
    """
    out = bytearray()
    while start < end:
        offset = start % walformat.SEGMENT_SIZE
        length = min(end - start, walformat.SEGMENT_SIZE - offset)
        try:
            fd = open_regular(
                data, "pg_wal/" + walformat.segment_name(walformat.TIMELINE_ID, start)
            )
        except OSError as error:
            raise _wal_gone(start) from error
        try:
            piece = os.pread(fd, length, offset)
        finally:
            os.close(fd)
        if len(piece) < length:
            raise _wal_gone(start)
        out += piece
        start += length
    return bytes(out)


def _wal_gone(start: int) -> FailedPrecondition:
    return FailedPrecondition(
        "WAL_GONE",
        f"The compute that stopped has no longer, or not whole, its WAL from {format_lsn(start)}.",
    )
