"""Moving whole clusters in and out: import and export, with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli.databases import At, tell_set_aside
from pagestore.cli.session import Data, Json, Name, database_fields, point_message, session
from pagestore.ids import TimelineId, format_lsn

if TYPE_CHECKING:
    from pagestore.cli.session import Session
    from pagestore.transfer.cluster_settings import Brought
    from pagestore.v1 import control_pb2 as pb

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in total)."""


@contextmanager
def progress_bar(what: str, shown: bool) -> Iterator[Progress]:
    """A bar on stderr where that is a terminal; otherwise silent."""
    if not (shown and sys.stderr.isatty()):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def import_(
    name: Name,
    pgdata: Annotated[
        Path,
        typer.Option(
            "--from-pgdata",
            metavar="DIR",
            help="A stopped cluster of a Postgres that is installed here, or a base backup.",
        ),
    ],
    postgres_database: Annotated[
        str,
        typer.Option("--database", metavar="DB", help="What the URL names. Default: the largest."),
    ] = "",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Take a vanilla Postgres cluster in, as a new database. The directory is only read.

    The role postgres gets a new password, which is in the URL. The cluster's own settings come
    with it; which do not is said.

    Example: pagestore import shop --from-pgdata /var/lib/postgresql/15/main
    """
    with session(data, as_json) as run:
        timeline = run.control.begin_import(name)
        with progress_bar(f"importing {name}", not as_json) as progress:
            database, brought = _import(run, name, timeline, pgdata, postgres_database, progress)
        fields = database_fields(database) | _settings_fields(brought)
        run.answer(fields, database.url, f"imported {name}")
        _tell_left_out(run, brought)
        tell_set_aside(run, database)


def _settings_fields(brought: Brought) -> dict[str, Any]:
    return {"settings": brought.settings, "settings_left_out": brought.left_out}


def _tell_left_out(run: Session, brought: Brought) -> None:
    for item, why in brought.left_out.items():
        run.remark(f"left out: {item}. {why}")


def _import(
    run: Session,
    name: str,
    timeline: TimelineId,
    pgdata: Path,
    postgres_database: str,
    progress: Progress,
) -> tuple[pb.Database, Brought]:
    import asyncio

    from pagestore.cli.copies import walls_for_copies
    from pagestore.client.page import AsyncPageClient
    from pagestore.oracle.recovery import stopped_cluster
    from pagestore.postgres import majors
    from pagestore.postgres.cluster import read_control
    from pagestore.transfer.cluster_settings import read_settings
    from pagestore.transfer.pgdata import Imported, read_pgdata

    address = run.control.system_status().page_server_address
    imported = Imported()

    installation = run.installation

    async def send() -> None:
        cluster = stopped_cluster(
            pgdata,
            run_as=installation.run_as,
            bindir=installation.config.computes.postgres_bindir,
            scratch=installation.compute_dir,
            walls=walls_for_copies(installation),
        )
        async with cluster as directory, AsyncPageClient(address) as pages:
            chunks = read_pgdata(directory, run.control.tenant, timeline, progress)
            await pages.import_timeline(imported.watch(chunks))

    asyncio.run(send())
    bindir = installation.config.computes.postgres_bindir
    brought = read_settings(pgdata, majors.libraries(bindir, read_control(pgdata).version.major))
    database = run.control.register(
        name,
        timeline,
        prev_record_lsn=imported.prev_record_lsn,
        system_id=imported.system_id,
        postgres_database=postgres_database,
        settings=brought.settings,
    )
    return database, brought


def export(
    name: Name,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New, or empty.")],
    at: At = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Write an ordinary data directory, on which plain Postgres of its major starts.

    With the database's settings as they are now.

    Example: pagestore export app /tmp/app --at before-migration
    """
    with session(data, as_json) as run:
        import asyncio

        from pagestore.client.page import AsyncPageClient
        from pagestore.postgres.process import account
        from pagestore.transfer.cluster_settings import settings_to_export
        from pagestore.transfer.export import export_pgdata
        from pagestore.v1 import control_pb2 as pb

        found = run.control.resolve(name, point_message(at) or pb.Point())
        timeline = TimelineId(found.timeline_id)
        brought = settings_to_export(run.control.settings(name).settings)
        address = run.control.system_status().page_server_address

        async def receive(progress: Progress) -> None:
            async with AsyncPageClient(address) as pages:
                await export_pgdata(
                    pages,
                    run.control.tenant,
                    timeline,
                    found.lsn,
                    directory,
                    progress,
                    owner=account(run.installation.run_as),
                    prev_record_lsn=found.prev_record_lsn,
                    settings=brought.settings,
                )

        with progress_bar(f"exporting {name}", not as_json) as progress:
            asyncio.run(receive(progress))
        fields = {
            "name": name,
            "timeline_id": str(timeline),
            "lsn": format_lsn(found.lsn),
            "directory": str(directory.absolute()),
            **_settings_fields(brought),
        }
        run.answer(fields, str(directory), f"exported {name} at {format_lsn(found.lsn)}")
        _tell_left_out(run, brought)
