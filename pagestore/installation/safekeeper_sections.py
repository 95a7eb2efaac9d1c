"""Changes the safekeepers in ``pagestore.toml``, and leaves everything else as its owner wrote it.

The file says who shall keep the WAL: the control plane brings every timeline to the safekeepers
that stay. So whatever is killed in the middle of a change, the file has where it was going.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pagestore import durable
from pagestore.installation.config import SafekeeperConfig, load

_HEADER = re.compile(r"\s*\[(\[)?\s*([^\]]+?)\s*\]")
_ID = re.compile(r"\s*id\s*=\s*(\d+)")


def change(
    path: Path,
    *,
    add: Iterable[SafekeeperConfig] = (),
    leave: int | None = None,
    remove: int | None = None,
) -> None:
    """With safekeepers more, one that runs on until nothing needs it, and without one."""
    lines = path.read_text().rstrip("\n").split("\n")
    if leave is not None:
        begin, _ = _section(lines, leave)
        lines.insert(begin + 1, "leaving = true")
    if remove is not None:
        begin, end = _section(lines, remove)
        del lines[begin:end]
    for config in add:
        lines += ["", "[[safekeepers]]", f"id = {config.id}", f'listen = "{config.listen}"']
        lines += ["elsewhere = true"] if config.elsewhere else []
    _write(path, [*lines, ""])


def _section(lines: list[str], number: int) -> tuple[int, int]:
    """From its header to the next one."""
    headers = [at for at, line in enumerate(lines) if _HEADER.match(line)]
    for begin, end in zip(headers, [*headers[1:], len(lines)], strict=True):
        header = _HEADER.match(lines[begin])
        assert header is not None
        ids = [int(found[1]) for line in lines[begin:end] if (found := _ID.match(line))]
        if header[2] in ("safekeeper", "safekeepers") and (ids or [1])[0] == number:
            return begin, end
    raise AssertionError(f"the loaded file has safekeeper {number}")


def _write(path: Path, lines: list[str]) -> None:
    """Checked, durable, and whole whatever happens."""
    durable.replace(path, "\n".join(lines).encode(), mode=0o644, check=load)
