"""The oracle: plain Postgres replays a cluster's files and WAL, cold, up to an LSN.

The WAL is laid out as an archive that ends exactly at the LSN, so that recovery ends there by
itself. Nobody ever connects to the recovered copy: even a read may prune a page. It is stopped
cleanly as soon as recovery is over, and then its history file tells where recovery ended: anywhere
but at the LSN means that WAL was missing or not what it should be.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pagestore.errors import DataLoss, FailedPrecondition, OutOfRange, PagestoreError
from pagestore.ids import format_lsn, parse_lsn
from pagestore.oracle.recovery import Runner, Walls, copy_cluster, log_of, recover
from pagestore.oracle.scratch import scratch_directory
from pagestore.pgformat.pg_control import PgControl
from pagestore.pgformat.wal import segment_name
from pagestore.postgres import majors
from pagestore.postgres.checkpoint import end_of_checkpoint
from pagestore.postgres.cluster import open_cluster, read_control
from pagestore.postgres.server_log import log_tail

SEGMENT = 16 << 20

Wal = AsyncIterator[tuple[int, bytes]]
"""Pieces of WAL, each with where it begins."""


@asynccontextmanager
async def replayed_cluster(
    directory: Path,
    wal: Wal,
    lsn: int,
    *,
    run_as: str | None = None,
    bindir: Path = majors.BINDIR,
    scratch: Path = Path("/var/tmp"),  # noqa: S108
    walls: Walls | None = None,
) -> AsyncIterator[Path]:
    """A stopped copy of `directory` that has replayed the records that end at or below `lsn`;
    it lives until the block ends.

    Args:
        directory: a cleanly stopped cluster.
        wal: its WAL from :func:`end_of_wal` on, at least up to `lsn`.
        lsn: the end of a record.

    Raises:
        OutOfRange: LSN_TOO_OLD; the cluster stands beyond `lsn`.
        FailedPrecondition: REPLAY_FAILED, or what makes a cluster unreadable.
        DataLoss: WAL_INCOMPLETE; recovery ended before `lsn`.
    """
    control = (await asyncio.to_thread(open_cluster, directory)).control
    base_end = end_of_checkpoint(control.checkpoint_lsn)
    if lsn < base_end:
        raise OutOfRange(
            "LSN_TOO_OLD",
            f"{directory} stands at {format_lsn(base_end)}, behind {format_lsn(lsn)}.",
        )
    if lsn == base_end:
        yield directory
        return
    runner = Runner.of(bindir, run_as, walls)
    owner = runner.owner
    async with scratch_directory("pagestore-replay", scratch, owner) as root:
        archive = Archive(root / "archive")
        archive.adopt(directory / "pg_wal", base_end)
        async for start, data in wal:
            archive.write(start, data[: max(0, lsn - start)])
        for path in (archive.directory, *archive.directory.iterdir()):
            if owner is not None:
                os.chown(path, *owner)
        copy = root / "data"
        await copy_cluster(directory, copy, owner)
        await _replay(copy, control, archive, runner)
        _check_end(copy, lsn)
        yield copy


def end_of_wal(directory: Path) -> int:
    """Of a cleanly stopped cluster: where what is to be replayed begins."""
    return end_of_checkpoint(read_control(directory).checkpoint_lsn)


class Archive:
    """WAL segments as files, written by position."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def adopt(self, pg_wal: Path, end: int) -> None:
        """Takes what a stopped cluster has in its own segment, up to ``end``."""
        inside = (end - 1) % SEGMENT + 1
        with (pg_wal / segment_name(1, end - 1)).open("rb") as source:
            self.write(end - inside, source.read(inside))

    def write(self, lsn: int, data: bytes) -> None:
        """Pieces may overlap; the later one stays."""
        while data:
            path = self.directory / segment_name(1, lsn)
            if not path.exists():
                path.touch()
                os.truncate(path, SEGMENT)
            part = data[: SEGMENT - lsn % SEGMENT]
            with path.open("r+b") as file:
                file.seek(lsn % SEGMENT)
                file.write(part)
            lsn += len(part)
            data = data[len(part) :]


async def _replay(data: Path, control: PgControl, archive: Archive, runner: Runner) -> None:
    for segment in (data / "pg_wal").glob("0*"):
        segment.unlink()
    (data / "recovery.signal").touch()
    settings = {
        "restore_command": f"cp {archive.directory}/%f %p",
        "max_prepared_transactions": "1000",
    }
    try:
        await recover(data, control, runner, settings)
    except (PagestoreError, TimeoutError) as error:
        raise FailedPrecondition(
            "REPLAY_FAILED",
            f"Plain Postgres did not replay the WAL:\n{log_tail(log_of(data))}",
        ) from error


def _check_end(data: Path, lsn: int) -> None:
    """Recovery began a timeline of Postgres's own where the WAL ended."""
    history = (data / "pg_wal/00000002.history").read_text().split()
    end = parse_lsn(history[1])
    if end != lsn:
        raise DataLoss(
            "WAL_INCOMPLETE",
            f"Plain Postgres replayed up to {format_lsn(end)}, not to {format_lsn(lsn)}.",
            "Give the end of a record, and all WAL up to it.",
        )
