"""A small real installation, stopped, as it is and as it was before its last changes."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pagestore.control import operator_key
from pagestore.control.records import MembersRecord
from pagestore.control.state import ControlState
from pagestore.ingest.releases import consumer_of
from pagestore.installation import keys
from pagestore.timeline import Repository
from tests.integration.installation import Whole, whole_pagestore
from tests.waiting import wait_until

ROWS = "SELECT i, md5(i::text) AS md5 FROM generate_series(1, 3000) i"


@dataclass(frozen=True)
class Copies:
    """Of one installation, now and before; and `stranger`, of which see below."""

    newest: Path
    older: Path
    stranger: Path
    """Of another installation: files that there is only one of in each."""


def copy(source: Path, target: Path) -> None:
    """Segments are mostly holes."""
    subprocess.run(["cp", "-a", "--sparse=always", f"{source}/.", target], check=True)


def _changed(whole: Whole, name: str) -> None:
    whole.json("create", name)
    whole.sql(name, f"CREATE TABLE {name} AS {ROWS}")
    whole.json("checkpoint", name, "made")
    whole.json("stop", name)
    # A page server that has just learned of a log tells a little later what it needs of it.
    made = len(whole.json("ls")["databases"])
    wait_until(lambda: len([*(whole.data / "safekeeper").glob("*/*/horizon")]) >= made)


def _snapshot(whole: Whole, target: Path) -> None:
    addresses = {part: whole.installation.address(part) for part in whole.installation.part_names}
    whole.installation.note_safekeeper_id(len(list(target.parent.iterdir())) + 1)
    whole.down()
    for part, address in addresses.items():
        # As a part that was killed leaves it.
        (whole.installation.part_dir(part) / "address").write_text(address + "\n")
    # As one that Postgres's user cannot reach has it.
    (whole.data / "compute-dir").write_text("/var/tmp/pagestore-of-a-test\n")
    target.mkdir()
    copy(whole.data, target)


def _make_stores(data: Path) -> None:
    """As another installation begins them."""
    with ControlState(data / "control") as state, state.change() as change:
        change.put_members(MembersRecord(settled=(1,)))
    Repository.open(data / "pageserver" / "store").close()
    consumer_of(data / "pageserver")
    keys.settle(data)
    operator_key.make(data / "operator-key")


@pytest.fixture(scope="session")
def copies() -> Iterator[Copies]:
    place = Path(tempfile.mkdtemp(prefix="ps-damage-", dir="/tmp"))
    found = Copies(place / "newest", place / "older", place / "stranger")
    try:
        with whole_pagestore() as whole:
            _changed(whole, "first")
            _snapshot(whole, found.older)
            whole.up()
            whole.json("start", "first")
            whole.sql("first", "INSERT INTO first SELECT i + 3000, md5 FROM first")
            whole.json("stop", "first")
            _changed(whole, "second")
            _snapshot(whole, found.newest)
        _make_stores(found.stranger)
        yield found
    finally:
        shutil.rmtree(place)
