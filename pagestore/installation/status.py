"""What runs of an installation, and what answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pagestore.client.control import ControlClient
from pagestore.errors import PagestoreError
from pagestore.installation import lost
from pagestore.installation.awake import awake
from pagestore.installation.health import is_serving
from pagestore.installation.layout import Installation, PartProcess
from pagestore.installation.parts import orphans, running_part
from pagestore.v1.control_pb2 import SystemStatus
from pagestore.v1.page_pb2 import Upkeep

LOG_LINES = 40
SAID = "error: "
"""What begins the line by which a part ends, and `HINT` the next: `PagestoreError.last_words`."""
HINT = "hint: "
STATUS_SECONDS = 3.0
"""Within which a part answers, or is said not to serve."""


def described(installation: Installation) -> dict[str, Any]:
    """As `pagestore status --json` says it; `serving` when all of it does."""
    supervisor = installation.running_supervisor()
    fields: dict[str, Any] = {
        "data": str(installation.data),
        "running": supervisor is not None,
        "serving": False,
        "supervisor_pid": supervisor,
        "parts": [],
        "lost": _lost(installation),
    }
    if not installation.config_file.exists():
        return fields
    left = {} if supervisor else orphans(installation)
    if supervisor or left:
        fields["parts"] = _part_rows(installation, left)
        fields["walls"] = installation.walls()
    if supervisor and all(row["serving"] for row in fields["parts"]):
        fields |= _system(installation)
    return fields


def _lost(installation: Installation) -> dict[str, int]:
    items = lost.lost(installation)
    return {"count": len(items), "bytes": sum(item.size for item in items)}


def _system(installation: Installation) -> dict[str, Any]:
    try:
        with ControlClient(
            installation.address("control"),
            timeout=STATUS_SECONDS,
            credentials=installation.credentials,
        ) as control:
            found = control.system_status()
    except PagestoreError as error:
        return {"error": error.message}
    return {
        "serving": True,
        "awake": awake(installation),
        "databases": found.databases,
        "computes_running": found.computes_running,
        "store_bytes": found.store_bytes,
        "upkeep": _upkeep(found.upkeep),
        "objects": {
            part: _objects(status)
            for part, status in (("pageserver", found.upkeep), ("control", found))
            if status.HasField("objects")
        },
        "version": found.version,
        "postgres": dict(found.postgres),
        "troubles": [f"{item.part}: {item.error}" for item in found.parts if item.error],
    }


def _upkeep(figures: Upkeep) -> dict[str, int | list[int]]:
    plain = (f.name for f in figures.DESCRIPTOR.fields if f.message_type is None)
    found = {name: getattr(figures, name) for name in plain}
    return {**found, "level_bytes": list(figures.level_bytes)}


def _objects(status: Upkeep | SystemStatus) -> dict[str, Any]:
    return {
        field.name: getattr(status.objects, field.name)
        for field in status.objects.DESCRIPTOR.fields
    }


def _part_rows(
    installation: Installation, left: dict[str, list[PartProcess]]
) -> list[dict[str, Any]]:
    """All parts are asked at once, so that several that are frozen cost no more than one."""
    names = installation.part_names
    with ThreadPoolExecutor(len(names)) as pool:
        serving = list(pool.map(lambda part: _answers(installation, part), names))
    return [
        _part_row(installation, part, answers, left.get(part, []))
        for part, answers in zip(names, serving, strict=True)
    ]


def _answers(installation: Installation, part: str) -> bool:
    try:
        return is_serving(installation.address(part), STATUS_SECONDS)
    except PagestoreError:
        return False


def _why(installation: Installation, part: str, process: PartProcess) -> str | None:
    """By what a part ended that does not serve yet: what it said itself, last, and how it went."""
    if not process.last_exit:
        return None
    tail = installation.log_tail(part, LOG_LINES).splitlines()
    said = [at for at, line in enumerate(tail) if line.startswith(SAID)]
    if not said:
        return process.last_exit
    error, hint = tail[said[-1]].removeprefix(SAID), tail[said[-1] + 1 : said[-1] + 2]
    ways_out = [line.removeprefix(HINT) for line in hint if line.startswith(HINT)]
    return " ".join([f"{process.last_exit}: {error}", *ways_out])


def _part_row(
    installation: Installation, part: str, answers: bool, left: list[PartProcess]
) -> dict[str, Any]:
    process = left[0] if left else running_part(installation, part)
    kept = process is not None and process.pid > 0 and not left
    return {
        "part": part,
        "address": installation.listens(part)[0],
        "serving": answers and process is not None,
        "kept": kept,
        "pid": (process.pid or None) if process else None,
        "restarts": process.restarts if process else 0,
        "reason": (process.reason or None) if process else None,
        "why": None if answers or process is None else _why(installation, part, process),
        "log": str(installation.log_file(part)),
    }
