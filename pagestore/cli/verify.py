"""``pagestore verify``: reads all of a database and says whether it is right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli.databases import At
from pagestore.cli.session import Data, Json, Name, human_bytes, point_message, session
from pagestore.cli.transfer import Progress, progress_bar
from pagestore.errors import DataLoss, InvalidInput, NotFound, OutOfRange
from pagestore.ids import TimelineId, format_lsn

if TYPE_CHECKING:
    from pagestore.cli.session import Session
    from pagestore.installation.layout import Installation
    from pagestore.oracle.comparison import Comparison
    from pagestore.oracle.verify import Verified

SHOWN = 20
"""Problems that people see; --json has up to 1,000."""


def verify(
    name: Name,
    at: At = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="PGDATA",
            help="The stopped cluster that the database was imported from: Postgres replays "
            "its WAL on a copy, and every block is compared.",
        ),
    ] = None,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="As --against, on what was imported or created as the page server still has it.",
        ),
    ] = False,
    wal: Annotated[
        Path | None,
        typer.Option("--wal", metavar="DIR", help="WAL segments. Default: the WAL service's."),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Read every layer and every block of a database, and check what can be checked.

    Example: pagestore verify app
    """
    with session(data, as_json) as run:
        from pagestore.v1 import control_pb2 as pb

        if replay and against is not None:
            raise InvalidInput("INVALID_ARGUMENT", "Either --against or --replay, not both.")
        if wal is not None and against is None and not replay:
            raise InvalidInput(
                "INVALID_ARGUMENT", "--wal is to be replayed: add --against PGDATA or --replay."
            )
        if wal is not None and not wal.is_dir():
            raise NotFound("NO_SUCH_FILE", f"{wal} is no directory.", "Name one with segments.")
        found = run.control.resolve(name, point_message(at) or pb.Point())
        timeline = TimelineId(found.timeline_id)
        with progress_bar(f"verifying {name}", not as_json) as progress:
            verified = asyncio.run(_verify(run, timeline, found.lsn, progress))
        fields: dict[str, Any] = {
            "name": name,
            "timeline_id": str(timeline),
            "lsn": format_lsn(found.lsn),
            "relations": verified.relations,
            "blocks": verified.blocks,
            "layers": verified.layers,
            "layer_bytes": verified.layer_bytes,
        }
        problems = list(verified.problems)
        said = _said(verified)
        if against is not None or replay:
            with progress_bar(f"comparing {name}", not as_json) as progress:
                compared = asyncio.run(_compare(run, timeline, found.lsn, against, wal, progress))
            fields["compared_blocks"] = compared.blocks
            fields["compared_files"] = compared.files
            problems += compared.differences
            said += (
                f"\ncompared with plain Postgres: {compared.blocks} blocks of "
                f"{compared.relations} relations, {compared.files} small files, counters"
            )
        fields["problems"] = problems
        _answer(run, fields, said, problems)


def _said(verified: Verified) -> str:
    return (
        f"layers: {verified.layers} files, {human_bytes(verified.layer_bytes)}, every checksum\n"
        f"pages: {verified.blocks} blocks of {verified.relations} relations, headers and LSNs"
    )


def _answer(run: Session, fields: dict[str, Any], said: str, problems: list[str]) -> None:
    shown = [f"problem: {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        shown.append(f"... and {len(problems) - SHOWN} more")
    where = f"{fields['name']} at {fields['lsn']}"
    if not problems:
        run.answer(fields, said, f"verified {where}: no problem found")
        return
    run.answer(fields, "\n".join([said, *shown]))
    if run.as_json:
        raise typer.Exit(7)
    raise DataLoss("VERIFY_FAILED", f"{where} is not as it should be: {len(problems)} problems.")


async def _verify(run: Session, timeline: TimelineId, lsn: int, progress: Progress) -> Verified:
    from pagestore.client.page import AsyncPageClient
    from pagestore.oracle.verify import verify_timeline

    async with AsyncPageClient(run.control.system_status().page_server_address) as pages:
        return await verify_timeline(pages, run.control.tenant, timeline, lsn, progress)


def _serving_safekeeper(installation: Installation) -> str:
    from pagestore.installation.health import is_serving

    addresses = [installation.address(part) for part in installation.config.safekeepers_here]
    return next((address for address in addresses if is_serving(address)), addresses[0])


async def _named(wal: AsyncIterator[tuple[int, bytes]]) -> AsyncIterator[tuple[int, bytes]]:
    """WAL out of the service, or what to do where it has been dropped.

    Raises:
        OutOfRange: WAL_DROPPED.
    """
    try:
        async for piece in wal:
            yield piece
    except OutOfRange as error:
        raise OutOfRange(
            "WAL_DROPPED",
            f"The WAL to be replayed is no longer all there: {error.message}",
            "--wal DIR replays segments that you have kept yourself (pg_receivewal, an archive). "
            "A safekeeper keeps more of it with --wal-keep-bytes (PAGESTORE_WAL_KEEP_BYTES), "
            "from then on.",
        ) from error


async def _compare(
    run: Session,
    timeline: TimelineId,
    lsn: int,
    pgdata: Path | None,
    archive: Path | None,
    progress: Progress,
) -> Comparison:
    from pagestore.cli.copies import walls_for_copies
    from pagestore.client.page import AsyncPageClient
    from pagestore.client.wal import WalClient
    from pagestore.oracle.comparison import compare_cluster
    from pagestore.oracle.replay import end_of_wal, replayed_cluster
    from pagestore.oracle.verify import archived_wal, imported_base, service_wal

    installation = run.installation
    run_as, scratch = installation.run_as, installation.compute_dir
    page_server = run.control.system_status().page_server_address
    async with AsyncExitStack() as stack:
        pages = await stack.enter_async_context(AsyncPageClient(page_server))
        address = _serving_safekeeper(installation)
        service = await stack.enter_async_context(WalClient(address))
        if pgdata is None:
            base = imported_base(
                pages, run.control.tenant, timeline, run_as=run_as, scratch=scratch
            )
            pgdata = await stack.enter_async_context(base)
        start = end_of_wal(pgdata)
        wal = (
            _named(service_wal(pages, service, run.control.tenant, timeline, start, lsn))
            if archive is None
            else archived_wal(archive, start, lsn)
        )
        replayed = replayed_cluster(
            pgdata,
            wal,
            lsn,
            run_as=run_as,
            bindir=installation.config.computes.postgres_bindir,
            scratch=scratch,
            walls=walls_for_copies(installation),
        )
        cluster = await stack.enter_async_context(replayed)
        return await compare_cluster(pages, run.control.tenant, timeline, lsn, cluster, progress)
