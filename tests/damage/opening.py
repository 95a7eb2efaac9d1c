"""Opening one part's files in this process, as the part does at its start, and reading all.

What comes back stands for everything a user may see of it: if it is the same, the outcome was
right.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pagestore._native import Layer, NativeError
from pagestore.agent.place import install
from pagestore.control import operator_key
from pagestore.control.state import TABLES, ControlState
from pagestore.errors import PagestoreError, of_exception
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.ingest.releases import consumer_of
from pagestore.installation import keys
from pagestore.installation.layout import Installation, lib_dir
from pagestore.installation.ownership import claim, outside
from pagestore.postgres import majors
from pagestore.timeline import Repository
from pagestore.tokens import Verifier, parse_public_keys
from pagestore.walservice import segments
from pagestore.walservice.safekeeper import Safekeeper, Settings
from pagestore.walservice.watch import TimelineKey
from tests.plain_postgres import MAJOR

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


def safekeeper(data: Path) -> Contents:
    """Every log's promises and end; from its start on each record is held against its CRC, as
    ingest does with what it is sent."""
    return asyncio.run(_logs(data / "safekeeper"))


async def _logs(data_dir: Path) -> Contents:
    keeper = await Safekeeper.open(data_dir, Settings())
    try:
        return {path.name: await _log(keeper, path) for path in _log_directories(data_dir)}
    finally:
        await keeper.close()


def _log_directories(data_dir: Path) -> list[Path]:
    return sorted((data_dir / str(DEFAULT_TENANT)).iterdir())


async def _log(keeper: Safekeeper, directory: Path) -> Contents:
    key = TimelineKey(DEFAULT_TENANT, TimelineId.parse(directory.name))
    async with keeper.use(key) as timeline:
        state = timeline.state
        end = segments.find_end(directory, state.start, timeline.base_lsn)
        return end, state


def address_book(data: Path) -> Contents:
    """Of a safekeeper that is told, as `up` tells each, where the others are."""
    told = {2: "127.0.0.1:7442", 3: "127.0.0.1:7443"}

    async def main() -> Contents:
        keeper = await Safekeeper.open(data / "safekeeper", Settings(peers=told))
        addresses = keeper.book.addresses
        await keeper.close()
        return {number: addresses.get(number) for number in told}

    return asyncio.run(main())


def compute_place(data: Path) -> Contents:
    """Where computes are, of an installation that has them elsewhere."""
    return outside(data / "compute-dir")


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
    claim(data)  # as `up` does first
    return addresses, listens, installation.last_safekeeper_id


def passwords(data: Path) -> Contents:
    """Of all databases."""
    with ControlState(data / "control") as state:
        key = operator_key.settle(state, data / "operator-key")
        return {
            item.name: key.open(item.tenant, item.sealed_password)
            for item in state.view().databases()
        }


def tokens(data: Path) -> Contents:
    """Whom the parts know by the tokens that the operator and they have."""
    keys.settle(data)
    verifier = Verifier(parse_public_keys((data / keys.PUBLIC_KEYS).read_text()))
    files = sorted((data / "tokens").iterdir())
    return {
        path.name: verifier.verify(path.read_text().strip(), time.time()).scope for path in files
    }


def library(data: Path) -> Contents:
    shim = lib_dir() / majors.place(Path(majors.library("shim")), MAJOR)
    return install(shim, data / "computes" / "lib").read_bytes()


Opened = Callable[[Path], Contents]


def outcome(opened: Opened, data: Path) -> Contents | PagestoreError:
    try:
        return opened(data)
    except PagestoreError as error:
        return error
