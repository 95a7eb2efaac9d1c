"""Opening one part's files in this process, as the part does at its start, and reading all.

What comes back stands for everything a user may see of it: if it is the same, the outcome was
right.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pagestore._native import Layer, NativeError
from pagestore.control.local import _install
from pagestore.control.state import TABLES, ControlState
from pagestore.errors import PagestoreError, of_exception
from pagestore.ids import DEFAULT_TENANT
from pagestore.ingest.releases import consumer_of
from pagestore.installation.layout import Installation, lib_dir
from pagestore.timeline import Repository

Contents = Any


def control(data: Path) -> Contents:
    with ControlState(data / "control") as state:
        view = state.view()
        everything = {table: view._scan(table, b"") for table in TABLES}
    return {
        table: [entry for entry in rows if entry[0] != b"whole"]
        for table, rows in everything.items()
    }


def catalog(data: Path) -> Contents:
    """Every timeline's position and layers."""
    assert consumer_of(data / "pageserver")
    repository = Repository.open(data / "pageserver" / "store")
    try:
        return _timelines(repository)[0]
    finally:
        repository.close()


def page_server(data: Path) -> Contents:
    """Likewise, and every layer's bytes are held against their checksums."""
    repository = Repository.open(data / "pageserver" / "store")
    try:
        found, layers = _timelines(repository)
        for layer in layers.values():
            try:
                layer.verify()
            except NativeError as error:
                raise of_exception(error) from error
        return found
    finally:
        repository.close()


def _timelines(repository: Repository) -> tuple[Contents, dict[str, Layer]]:
    found, layers = {}, {}
    for summary in repository.list(DEFAULT_TENANT):
        own = repository.get(DEFAULT_TENANT, summary.timeline_id).files()
        layers |= {layer.path: layer for layer in own}
        names = [Path(layer.path).name for layer in own]
        found[summary.timeline_id] = (summary.disk_consistent_lsn, names)
    return found, layers


def command_line(data: Path) -> Contents:
    """What `up` and the verbs read of an installation."""
    installation = Installation(data)
    addresses = {part: installation.address(part) for part in installation.part_names}
    listens = {part: installation.config.listen(part) for part in installation.part_names}
    return addresses, listens, installation.last_safekeeper_id


def library(data: Path) -> Contents:
    return _install(lib_dir() / "pagestore_shim.so", data / "computes" / "lib").read_bytes()


Opened = Callable[[Path], Contents]


def outcome(opened: Opened, data: Path) -> Contents | PagestoreError:
    try:
        return opened(data)
    except PagestoreError as error:
        return error
