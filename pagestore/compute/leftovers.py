"""Computes that outlived the process that started them: taken over, or ended and removed.

What decides is the record, which only we can write (:mod:`pagestore.compute.record`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path

from pagestore.compute import removal
from pagestore.compute.record import ComputeRecord, facts_in
from pagestore.compute.running import RunningCompute
from pagestore.ids import TenantId, TimelineId
from pagestore.postgres.process import GONE, Identity, ServerProcess, boot_id
from pagestore.tokens import Signer


def adopt(directory: Path, signer: Signer | None = None) -> RunningCompute | None:
    """The compute that runs in a directory, or None.

    Args:
        signer: of its address.

    None also for one whose start was never finished, or that is dead; what is left of it
    is then for :func:`clear` to end and remove.
    """
    record = ComputeRecord.load(directory)
    if record is None or not record.ready:
        return None
    server = record.server()
    if server is None:
        record.end_sandbox()
        return None
    return RunningCompute(directory, record, server, signer=signer)


def ended(directory: Path) -> RunningCompute | None:
    """One that was ready, and has ended since: what it left can still be read."""
    record = ComputeRecord.load(directory)
    if record is None or not record.ready or record.is_running:
        return None
    return RunningCompute(directory, record, ServerProcess(record.pid, pidfd=GONE))


async def clear(directory: Path) -> None:
    """Ends whatever runs in a compute's directory, and removes it; leaves alone what has no
    record of ours."""
    record = ComputeRecord.load(directory)
    if record is None:
        return
    server = record.server() or ServerProcess.find(record.process)
    if server is not None:
        await server.kill()
    record.end_sandbox()
    await asyncio.to_thread(removal.remove, directory, record)


def resume_removal(aside: Path) -> None:
    """Goes on with what an earlier process began to remove."""
    record = ComputeRecord.load(aside)
    if record is not None:
        removal.finish_removal(aside, record)


async def clear_version_1(directory: Path) -> None:
    """Ends and removes a compute of the time when its whole directory, with the record, was
    its server's: so its owner may have written anything, and nobody else's process is ended."""
    owner = _owner(directory)
    facts = facts_in(directory, owner) if owner is not None else {}
    if facts.get("version") != 1:
        return
    with contextlib.suppress(ValueError, TypeError, KeyError, OSError):
        process = Identity(int(facts["pid"]), int(facts["start_ticks"]), boot_id())
        if Path(f"/proc/{process.pid}").stat().st_uid == owner:
            server = ServerProcess.find(process)
            if server is not None:
                await server.kill()
    await asyncio.to_thread(_remove_version_1, directory)


def _remove_version_1(directory: Path) -> None:
    """As the data of a compute whose record is ours."""
    aside = removal.aside_of(directory)
    aside.mkdir(mode=0o700, exist_ok=True)
    record = ComputeRecord(TenantId(bytes(16)), TimelineId(bytes(16)), 0, "", "")
    record.save(aside)
    directory.rename(aside / "data")
    removal.finish_removal(aside, record)


def _owner(directory: Path) -> int | None:
    """The unprivileged user of a directory; None where there is none."""
    try:
        found = os.lstat(directory)
    except OSError:
        return None
    return (found.st_uid or None) if stat.S_ISDIR(found.st_mode) else None
