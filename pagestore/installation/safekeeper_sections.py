"""Changes the safekeepers in ``pagestore.toml``, and leaves everything else as its owner wrote it.

The file says who shall keep the WAL: the control plane brings every timeline to the safekeepers
that stay. So whatever is killed in the middle of a change, the file has where it was going.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import AoT

from pagestore import durable
from pagestore.installation.config import SafekeeperConfig, load


def change(
    path: Path,
    *,
    add: Iterable[SafekeeperConfig] = (),
    leave: int | None = None,
    remove: int | None = None,
) -> None:
    """With safekeepers more, one that runs on until nothing needs it, and without one."""
    file = tomlkit.parse(path.read_text())
    if leave is not None:
        _section(file, leave)["leaving"] = True
    if remove is not None:
        _remove(file, remove)
    for config in add:
        _several(file).append(_table(config))
    durable.replace(path, tomlkit.dumps(file).encode(), check=load)


def _section(file: tomlkit.TOMLDocument, number: int) -> Any:
    one = file.get("safekeeper")
    if one is not None and one.get("id", 1) == number:
        return one
    return next(item for item in file["safekeepers"] if item.get("id", 1) == number)


def _remove(file: tomlkit.TOMLDocument, number: int) -> None:
    one = file.get("safekeeper")
    if one is not None and one.get("id", 1) == number:
        file.remove("safekeeper")
        return
    several = _several(file)
    del several[next(at for at, item in enumerate(several) if item.get("id", 1) == number)]


def _several(file: tomlkit.TOMLDocument) -> AoT:
    if "safekeepers" not in file:
        file.append("safekeepers", tomlkit.aot())
    found = file["safekeepers"]
    assert isinstance(found, AoT)
    return found


def _table(config: SafekeeperConfig) -> Any:
    table = tomlkit.table()
    table["id"] = config.id
    table["listen"] = config.listen
    if config.elsewhere:
        table["elsewhere"] = True
    table.add(tomlkit.nl())
    return table
