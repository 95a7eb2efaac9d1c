"""What was measured: rows, as one table and one JSON file a run."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pagestore.bench.plain import BINDIR

Better = Literal["less", "more"]


@dataclass(frozen=True)
class Target:
    """A figure to reach: at most (``less``) or at least (``more``) `value`."""

    value: float
    text: str = ""


@dataclass
class Row:
    """One system's answer to one case.

    Args:
        values: one a repetition, in `unit`.
        relative_to: the system whose median the target is a multiple of; "" for none.
    """

    part: str
    case: str
    system: str
    unit: str
    values: list[float]
    better: Better = "less"
    target: Target | None = None
    relative_to: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass
class Report:
    """A run: how it was made, and what came out."""

    settings: dict[str, Any]
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])
    rows: list[Row] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    """What was left out, and why."""

    def met(self, row: Row) -> bool | None:
        """Whether the row's target is met; None where it has none."""
        if row.target is None:
            return None
        reached = row.median
        if row.relative_to:
            other = self.find(row.part, row.case, row.relative_to)
            if other is None or other.median == 0:
                return None
            reached /= other.median
        return reached <= row.target.value if row.better == "less" else reached >= row.target.value

    def find(self, part: str, case: str, system: str) -> Row | None:
        wanted = (part, case, system)
        return next((r for r in self.rows if (r.part, r.case, r.system) == wanted), None)

    def as_json(self) -> dict[str, Any]:
        return {
            "started": self.started,
            "settings": self.settings,
            "environment": {**environment(), "load_before": self.load_before},
            "load_after": os.getloadavg()[0],
            "rows": [self._row_json(row) for row in self.rows],
            "failures": self.failures,
            "remarks": self.remarks,
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        found: dict[str, Any] = {
            "part": row.part,
            "case": row.case,
            "system": row.system,
            "unit": row.unit,
            "better": row.better,
            "median": round(row.median, 4),
            "least": round(min(row.values), 4),
            "most": round(max(row.values), 4),
            "values": [round(value, 4) for value in row.values],
        }
        if row.target is not None:
            found["target"] = row.target.value
            found["target_text"] = target_text(row)
            found["relative_to"] = row.relative_to or None
            found["met"] = self.met(row)
        return found

    def write(self, folder: Path) -> Path:
        """One file a run, named by its time; never overwrites."""
        folder.mkdir(parents=True, exist_ok=True)
        stamp = self.started.replace(":", "").replace("+0000", "Z")
        number = 0
        while True:
            path = folder / f"bench-{stamp}{f'-{number}' if number else ''}.json"
            try:
                with path.open("x") as file:
                    json.dump(self.as_json(), file, indent=1)
                    file.write("\n")
                return path
            except FileExistsError:
                number += 1


def environment() -> dict[str, Any]:
    """The machine and the versions, as far as they decide figures."""
    postgres = subprocess.run(
        [str(BINDIR / "postgres"), "--version"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "cores": os.cpu_count(),
        "cpu": _first(Path("/proc/cpuinfo"), "model name"),
        "memory": _first(Path("/proc/meminfo"), "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgres": postgres,
        "pagestore": metadata.version("pagestore"),
        "grpcio": metadata.version("grpcio"),
        "revision": _revision(),
    }


def _first(path: Path, key: str) -> str:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _revision() -> str:
    """Of the source tree this runs from, if it is one."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def number(value: float) -> str:
    """Three significant digits, and thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def target_text(row: Row) -> str:
    if row.target is None:
        return ""
    if row.target.text:
        return row.target.text
    sign = "≤" if row.better == "less" else "≥"
    if row.relative_to:
        return f"{sign} {row.target.value:g} × {row.relative_to}"
    return f"{sign} {number(row.target.value)}"


COLUMNS = ("part", "case", "system", "median", "range", "unit", "target", "")


def cells(report: Report, row: Row) -> list[str]:
    met = report.met(row)
    return [
        row.part,
        row.case,
        row.system,
        number(row.median),
        f"{number(min(row.values))} to {number(max(row.values))}" if len(row.values) > 1 else "",
        row.unit,
        target_text(row),
        {None: "", True: "met", False: "missed"}[met],
    ]


def print_table(report: Report, rows: Iterable[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("median", "range") else "left")
    last: Sequence[str] = ("", "")
    for row in rows:
        line = cells(report, row)
        shown = [text if text != last[i] else "" for i, text in enumerate(line[:2])]
        if shown[0]:
            shown[1] = line[1]
        table.add_row(*map(Text, [*shown, *line[2:]]))
        last = line[:2]
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)


def print_environment(report: Report) -> None:
    found = environment()
    from rich.console import Console

    Console(width=160).print(
        f"{found['cores']} cores ({found['cpu']}), {found['postgres']}, pagestore"
        f" {found['pagestore']} {found['revision']}, {report.started};"
        f" load {report.load_before:.1f} before, {os.getloadavg()[0]:.1f} after;"
        f" {report.settings['rounds']} rounds after {report.settings['warmup']} of warm-up",
        markup=False,
        highlight=False,
    )
