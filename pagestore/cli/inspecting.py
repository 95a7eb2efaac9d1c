"""Truth at rest: ``pagestore inspect``, a file of pagestore's own as text; ``pagestore scrub``, all
of a store's, read and checked."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli.session import Data, Json, human_bytes, session
from pagestore.errors import DataLoss
from pagestore.ids import DEFAULT_TENANT_NAME, TenantId, TimelineId, format_lsn

if TYPE_CHECKING:
    from pagestore.cli.session import Session
    from pagestore.v1 import page_pb2 as pb
    from pagestore.walservice.scrub import ScrubbedLog


def inspect(
    file: Annotated[Path, typer.Argument(help="A layer, catalog.lmdb, a segment of WAL, ...")],
    limit: Annotated[int, typer.Option(min=0, help="Of its entries that are shown.")] = 100,
    as_json: Json = False,
) -> None:
    """Print any file of pagestore's own as text, and what of it is damaged.

    No part needs to run, and nothing is written. Exit status 7: something does not hold.

    Example: pagestore inspect catalog.lmdb
    """
    with session(None, as_json) as run:
        from pagestore.inspection.files import inspect as look

        found = look(file, limit)
        fields = {
            "file": str(file),
            "kind": found.kind,
            **{name.replace(" ", "_"): value for name, value in found.facts.items()},
            "entries": [dict(zip(found.columns, row, strict=True)) for row in found.rows],
            "count": found.count,
            "damage": found.damage,
        }
        lines = [f"{file}: {found.kind}"]
        lines += [
            f"{name.replace('_', ' ')}: {value}"
            for name, value in found.facts.items()
            if value not in (None, "")
        ]
        run.answer(fields, "\n".join(lines))
        if found.rows and not as_json:
            run.table(found.columns, found.rows)
        if found.count is not None and found.count > len(found.rows):
            run.remark(f"{len(found.rows)} of {found.count} entries; --limit shows more")
        if found.damage:
            for what in found.damage:
                run.remark(f"damaged: {what}")
            if as_json:
                raise typer.Exit(7)
            many = len(found.damage)
            raise DataLoss("FILE_DAMAGED", f"{file}: {many} of what it says does not hold.")


@dataclass
class Walk:
    """What a scrub has read, what it found, and what it has put in order."""

    layers: int = 0
    layer_bytes: int = 0
    logs: int = 0
    log_bytes: int = 0
    repaired: list[str] = field(default_factory=list)
    repairs: list[dict[str, str]] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)

    def repair(self, path: str, what: str, source: str, moved_to: str) -> str:
        """Notes one; in words."""
        self.repaired.append(what)
        self.repairs.append({"path": path, "what": what, "from": source, "moved_to": moved_to})
        aside = f"; the damaged file is {moved_to}" if moved_to else ""
        return f"repaired from {source}: {what}{aside}"


def scrub(
    rate: Annotated[
        int, typer.Option(min=0, help="MB a second that are read at most; 0: as fast as it goes.")
    ] = 0,
    objects: Annotated[
        bool, typer.Option("--objects", help="Layers that only the object store has, too.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", "--no-repair", help="Only look; change nothing.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Read all that is stored, while everything runs; repair what is damaged, or say for whom.

    Every layer file of the page server, and the WAL of the safekeepers on this machine. A damaged
    layer is fetched anew from the object store, or made again of WAL that is still kept; the
    damaged file is moved to lost+found. Exit status 7: damage stays.

    Example: pagestore scrub --check
    """
    with session(data, as_json) as run:
        walk = Walk()
        asyncio.run(_scrub_layers(run, walk, rate << 20, objects, check))
        _scrub_logs(run, walk, check)
        said = (
            f"layers: {walk.layers} files, {human_bytes(walk.layer_bytes)}\n"
            f"WAL: {walk.logs} logs, {human_bytes(walk.log_bytes)}"
        )
        run.answer(asdict(walk), said)
        for problem in walk.problems:
            run.remark(_problem_words(problem))
        if not walk.problems:
            run.remark("no damage left" if walk.repairs else "no damage found")
            return
        if as_json:
            raise typer.Exit(7)
        raise DataLoss("SCRUB_FOUND_DAMAGE", f"{len(walk.problems)} files are damaged.")


async def _scrub_layers(
    run: Session, walk: Walk, bytes_per_second: int, objects: bool, check: bool
) -> None:
    from pagestore.cli.transfer import progress_bar
    from pagestore.client.page import AsyncPageClient

    names: dict[TimelineId, list[str]] | None = None
    async with AsyncPageClient(run.control.system_status().page_server_address) as pages:
        timelines = await pages.list_timelines(None)  # repeated until connected, as streams are not
        total = sum(timeline.physical_bytes for timeline in timelines)
        with progress_bar("layers", not run.as_json) as progress:
            async for layer in pages.scrub(
                bytes_per_second=bytes_per_second, objects=objects, check_only=check
            ):
                walk.layers += 1
                walk.layer_bytes += layer.bytes
                progress(walk.layer_bytes, max(total, walk.layer_bytes))
                if layer.repaired:
                    done = layer.path, layer.repaired, layer.repaired_from, layer.moved_to
                    run.remark(walk.repair(*done))
                if not layer.HasField("status"):
                    continue
                if names is None:
                    names = _databases_by_timeline(run)
                walk.problems.append(_layer_problem(layer, names))


def _layer_problem(layer: pb.ScrubbedLayer, names: dict[TimelineId, list[str]]) -> dict[str, Any]:
    readers = [TimelineId(raw) for raw in layer.reader_timeline_ids]
    return {
        "path": layer.path,
        "what": layer.status.message,
        "unrepaired": layer.unrepaired.message,
        "timeline_id": str(TimelineId(layer.timeline_id)),
        "first_lsn": format_lsn(layer.first_lsn),
        "last_lsn": format_lsn(layer.last_lsn),
        "databases": sorted({name for reader in readers for name in names.get(reader, ())}),
        "unnamed_timelines": [str(reader) for reader in readers if reader not in names],
    }


def _databases_by_timeline(run: Session) -> dict[TimelineId, list[str]]:
    """The databases that stand on each timeline; with their tenant's name, but for the default."""
    from pagestore.client.tenants import TenantClient

    found: dict[TimelineId, list[str]] = defaultdict(list)
    for tenant in TenantClient(run.control).tenants():
        run.control.tenant = TenantId(tenant.tenant_id)
        before = "" if tenant.name == DEFAULT_TENANT_NAME else f"{tenant.name}: "
        for database in run.control.databases():
            found[TimelineId(database.timeline_id)].append(before + database.name)
    return found


def _scrub_logs(run: Session, walk: Walk, check: bool) -> None:
    from pagestore.walservice.scrub import scrub as scrub_logs

    for part, config in run.installation.config.safekeepers_here.items():
        for log in scrub_logs(run.installation.part_dir(part), config.id):
            why = ""
            if log.failure is not None and not check:
                log, why = _mended_log(run, walk, part, log)
            walk.logs += 1
            walk.log_bytes += max(0, log.end_lsn - log.start_lsn)
            if log.failure is not None:
                walk.problems.append(_log_problem(log, why))


def _mended_log(run: Session, walk: Walk, part: str, log: ScrubbedLog) -> tuple[ScrubbedLog, str]:
    """The log after what could be mended of it, and why the rest could not."""
    from pagestore.installation.wal_copies import others
    from pagestore.walservice.mending import mend
    from pagestore.walservice.scrub import scrub_log

    root, copies = run.installation.part_dir(part), others(run.installation, part)
    mended, why = mend(root, log.directory, log.owner, copies, time.time())
    for item in mended:
        moved_to = str(item.moved_to or "")
        run.remark(walk.repair(str(item.path), item.what, item.source, moved_to))
    if why is None:
        log = scrub_log(log.directory, log.owner) or replace(log, failure=None)
    return log, why.message if why is not None else ""


def _log_problem(log: ScrubbedLog, why: str) -> dict[str, Any]:
    assert log.failure is not None
    return {
        "path": str(log.directory),
        "what": log.failure.message,
        "unrepaired": why,
        "timeline_id": str(log.timeline),
        "first_lsn": format_lsn(log.start_lsn),
        "last_lsn": format_lsn(log.end_lsn),
        "databases": [],
        "unnamed_timelines": [],
    }


def _problem_words(problem: dict[str, Any]) -> str:
    words = f"damaged: {problem['what']}"
    if problem["unrepaired"]:
        words += f" Not repaired: {problem['unrepaired']}"
    if problem["databases"]:
        names = ", ".join(problem["databases"])
        words += f" Reads of {names} at {problem['first_lsn']} and later may need it."
    if problem["unnamed_timelines"]:
        words += f" So may {len(problem['unnamed_timelines'])} timelines that only a past has."
    return words
