"""What every verb shares: options, the client, output for people or programs, exit codes.

A verb's body runs in :func:`session`. Results go to stdout, remarks and errors to stderr, so
that ``url=$(pagestore create app)`` works. Under ``--json`` stdout has one JSON object, and an
error is ``{"error": {"reason", "message", "hint"}}`` on stderr.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli import border, choosing, completion
from pagestore.client import credentials, durations
from pagestore.client.credentials import default_data_dir
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT_NAME, TenantId, format_lsn
from pagestore.installation.layout import Installation

if TYPE_CHECKING:
    from pagestore.client.control import ControlClient
    from pagestore.v1 import control_pb2 as pb

Data = Annotated[
    Path | None,
    typer.Option("--data", help="The data directory. Default: PAGESTORE_DATA.", metavar="DIR"),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")]
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A database.", autocompletion=completion.names),
]

FAILED = 1


class Session:
    def __init__(self, data: Path | None, as_json: bool) -> None:
        self.installation = Installation((data or default_data_dir()).expanduser().absolute())
        self.as_json = as_json
        credentials.look_in(self.installation.data)
        self._began = time.monotonic()

    @cached_property
    def control(self) -> ControlClient:
        """The control plane of this data directory.

        Raises:
            Unavailable: NOT_RUNNING.
        """
        from pagestore.client.control import ControlClient
        from pagestore.installation.layout import not_running

        client = ControlClient(self.installation.address("control"))
        if self.installation.running_supervisor() is None and not self._is_ours(client):
            client.close()
            raise not_running(self.installation.data)
        name = choosing.chosen()
        if name != DEFAULT_TENANT_NAME:
            from pagestore.client.tenants import TenantClient

            client.tenant = TenantId(TenantClient(client).get(name).tenant_id)
        return client

    def _is_ours(self, client: ControlClient) -> bool:
        """Whether a control plane that no supervisor keeps is that of this data directory."""
        try:
            directory = Path(client.system_status().data_dir)
            return directory.samefile(self.installation.part_dir("control"))
        except (PagestoreError, OSError):
            return False

    @property
    def elapsed_ms(self) -> float:
        return round((time.monotonic() - self._began) * 1000, 1)

    def answer(self, fields: Mapping[str, Any], text: str = "", remark: str = "") -> None:
        """The result: `fields` for programs; `text` on stdout, `remark` and the fields' own remarks
        on stderr."""
        if self.as_json:
            sys.stdout.write(json.dumps({**fields, "elapsed_ms": self.elapsed_ms}) + "\n")
            return
        if text:
            sys.stdout.write(text + "\n")
        if remark:
            self.remark(f"{remark} ({self.elapsed_ms:.0f} ms)")
        for said in fields.get("remarks") or ():
            self.remark(said)

    def remark(self, text: str) -> None:
        """Something for people only."""
        if not self.as_json:
            sys.stderr.write(text + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Aligned for a terminal; tab-separated for a pipe."""
        if not sys.stdout.isatty():
            for row in rows:
                sys.stdout.write("\t".join(row) + "\n")
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)

    def fail(self, error: PagestoreError) -> None:
        border.say(error, self.as_json)


@contextmanager
def session(data: Path | None, as_json: bool) -> Iterator[Session]:
    """Runs a verb's body; turns its errors into text and an exit code."""
    current = Session(data, as_json)
    try:
        yield current
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt as error:
        raise typer.Exit(border.INTERRUPTED) from error
    except Exception as error:
        failure = border.in_words(error)
        current.fail(failure)
        raise typer.Exit(failure.exit_code) from error
    finally:
        if "control" in current.__dict__:
            current.control.close()


def database_fields(database: pb.Database) -> dict[str, Any]:
    return {
        "name": database.name,
        "timeline_id": database.timeline_id.hex(),
        "lsn": format_lsn(database.lsn),
        "url": database.url,
        "compute": compute_state(database),
        "postgres": database.postgres_major or None,
        "parent": database.parent or None,
        "branch_lsn": format_lsn(database.branch_lsn),
        "physical_bytes": database.physical_bytes,
        "created": database.created,
        "created_at": timestamp(database.created_unix_micros),
        "postgres_database": database.postgres_database,
        "sleeps_after": sleeps_after(database),
        "expires_at": expires_at(database),
        "compute_pid": database.compute_pid or None,
        "compute_error": database.compute_error or None,
        "remarks": list(database.remarks) or None,
        "set_aside": dict(database.set_aside) or None,
        "set_aside_complaint": database.set_aside_complaint or None,
    }


def size_fields(database: pb.Database) -> dict[str, Any]:
    """What it is and takes, and for how long its history is kept; docs/cli.md says how reckoned."""
    sizes, kept = database.sizes, database.retention
    return {
        "logical_bytes": sizes.logical_bytes,
        "own_bytes": database.physical_bytes,
        "shared_bytes": sizes.shared_bytes,
        "history_bytes": sizes.history_bytes,
        "retention_seconds": kept.seconds,
        "retention_bytes": kept.wal_bytes or None,
        "kept_from": format_lsn(kept.kept_from_lsn),
    }


def slot_fields(database: pb.Database) -> dict[str, Any]:
    """Its replication slots, and what WAL they hold back."""
    if not database.slots:
        return {}
    slots = [
        {
            "name": slot.name,
            "plugin": slot.plugin or None,
            "wal_bytes": slot.wal_bytes,
            "lost": slot.lost,
        }
        for slot in database.slots
    ]
    return {"replication_slots": slots, "slot_wal_limit": database.slot_wal_limit}


def slot_words(database: pb.Database) -> str:
    """The same for people."""
    limit = human_bytes(database.slot_wal_limit)
    return ", ".join(
        f"{slot.name} (lost)"
        if slot.lost
        else f"{slot.name} (holds back {human_bytes(slot.wal_bytes)} of WAL, at most {limit})"
        for slot in database.slots
    )


def checkpoint_fields(checkpoint: pb.Checkpoint) -> dict[str, Any]:
    from pagestore.sdk.values import Checkpoint

    told = Checkpoint.of(checkpoint).fields()
    name = told.pop("name")
    return {"checkpoint": name, "timeline_id": checkpoint.timeline_id.hex(), **told}


def compute_state(database: pb.Database) -> str:
    from pagestore.v1 import control_pb2

    return control_pb2.ComputeState.Name(database.compute).removeprefix("COMPUTE_STATE_").lower()


def sleeps_after(database: pb.Database) -> float | str:
    """Seconds without activity; or a word."""
    if not database.HasField("idle"):
        return "default"
    return "never" if database.idle == math.inf else database.idle


def expires_at(database: pb.Database) -> str | None:
    """When it is removed by itself, as `timestamp` has it; None for never."""
    expires = database.expires_unix_micros
    return timestamp(expires) if expires else None


def time_left(database: pb.Database) -> str:
    """The same for people; empty for never."""
    expires = database.expires_unix_micros
    return durations.words(expires / 1e6 - time.time()) if expires else ""


def timestamp(unix_micros: int) -> str:
    """ISO 8601 in local time, to the microsecond, with its offset: ``--at`` takes it."""
    from pagestore.client.points import format_time

    return format_time(unix_micros)


def short_time(unix_micros: int) -> str:
    """Local time to the second, for people."""
    return datetime.fromtimestamp(unix_micros // 1_000_000).isoformat(" ")


def point_message(text: str | None) -> pb.Point | None:
    """What a user wrote for ``--at``, as the control plane takes it."""
    from pagestore.client import point_messages

    return point_messages.point_message(text)


def human_bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
