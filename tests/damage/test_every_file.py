"""Every file of ours, with every damage: the outcome is right, or names the file.

A file is truncated, removed, replaced by an older copy of itself, by another's, or one bit in it
flips; then the part that reads it opens it in this process. *Right*: all that can be read is as
it was. *Named*: the error says which file, or whose. Anything else fails. The table of it all is
printed at the end.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pagestore.errors import PagestoreError

from . import opening
from .conftest import Copies, copy
from .opening import Opened, outcome


@dataclass(frozen=True)
class Kind:
    """One kind of file: `pattern` finds it, `folder` is what its reader needs."""

    name: str
    pattern: str
    folder: str
    opened: Opened
    flips: int = 8
    spared: tuple[str, ...] = ()
    """Damages that leave what may well be right: of text that people edit, or that is written
    anew at each start."""


HEX = "[0-9a-f]" * 32
STORE = "pageserver/store"
LOG = f"safekeeper/{HEX}/{HEX}"
SEGMENT = "[0-9A-F]" * 24
TEXT = ("half", "older", "another's")
GONE = ("removed", "older", "another's")
KINDS = [
    Kind("configuration", "pagestore.toml", ".", opening.command_line, 0, TEXT),
    Kind("last safekeeper id", "last-safekeeper-id", ".", opening.command_line, 0, GONE),
    Kind("our mark", "pagestore-installation", ".", opening.command_line, 4),
    Kind("place of computes", "compute-dir", ".", opening.compute_place, 0, GONE),
    Kind("address", "control/address", ".", opening.command_line, 0, GONE),
    Kind("control state", "control/data.mdb", "control", opening.control, 40),
    Kind("its generation", "control/data.mdb-generation", "control", opening.control),
    Kind("its LMDB lock", "control/lock.mdb", "control", opening.control),
    Kind("catalog", f"{STORE}/catalog.lmdb", "pageserver", opening.catalog, 40),
    Kind("its generation ", f"{STORE}/catalog.lmdb-generation", "pageserver", opening.catalog),
    Kind("its LMDB lock ", f"{STORE}/catalog.lmdb-lock", "pageserver", opening.catalog),
    Kind("consumer", "pageserver/consumer", "pageserver", opening.catalog, 4),
    Kind("image layer", f"{STORE}/{HEX}/{HEX}/*.image", "pageserver", opening.page_server),
    Kind("delta layer", f"{STORE}/{HEX}/{HEX}/*.delta", "pageserver", opening.page_server),
    Kind("WAL segment", f"{LOG}/{SEGMENT}", "safekeeper", opening.safekeeper, 24),
    Kind("control file", f"{LOG}/control", "safekeeper", opening.safekeeper, 24),
    Kind("horizon", f"{LOG}/horizon", "safekeeper", opening.safekeeper),
    Kind("witness", f"{LOG}/witness", "safekeeper", opening.safekeeper, 24),
    Kind("address book", "safekeeper/peers", "safekeeper", opening.address_book, 24),
    Kind("operator key", "operator-key", ".", opening.passwords, 24),
    Kind("signing key", "keys/signing-key", ".", opening.tokens, 24),
    Kind("public keys", "keys/public-keys", ".", opening.tokens, 24),
    Kind("a part's token", "tokens/*", ".", opening.tokens, 24),
    Kind("shim library", "computes/lib/pagestore_shim-*.so", "computes", opening.library),
]


ELSEWHERE = {
    "*/lock": "holds nothing but the lock",
    "lock": "whose it is says the lock, not the text",
    "*.log": "is read by people",
    "*/address": "each part writes its own anew; the control plane's stands for all",
    "computes/lib/pagestore_session-*.so": "is installed as the shim is",
    "safekeeper/memory-of-peers": "tests/unit/walservice/test_memory_of_peers.py",
    "compute/walls.json": "the agent writes it anew at each start, and only `status` reads it",
    "control/session-secret": "another is made; sessions that slept end",
    "proxy/stranger-secret": "another is made; strangers hear another salt",
}
"""Files that are not damaged here, and why."""


@dataclass(frozen=True)
class Case:
    """One damage about to be done to `path`, below `data`."""

    data: Path
    path: Path
    kind: Kind
    copies: Copies
    exchanged: list[Path] = field(default_factory=list)
    """Others that are damaged with it."""

    @property
    def relative(self) -> Path:
        return self.path.relative_to(self.data)

    def siblings(self) -> list[Path]:
        return [path for path in sorted(self.data.glob(self.kind.pattern)) if path != self.path]


Damage = Callable[[Case], bool]
"""False where there is no such damage to this file."""


def emptied(case: Case) -> bool:
    case.path.write_bytes(b"")
    return True


def halved(case: Case) -> bool:
    case.path.write_bytes(case.path.read_bytes()[: case.path.stat().st_size // 2])
    return True


def cut_to_two_pages(case: Case) -> bool:
    if case.path.stat().st_size <= 8192:
        return False
    case.path.write_bytes(case.path.read_bytes()[:8192])
    return True


def removed(case: Case) -> bool:
    case.path.unlink()
    return True


def older(case: Case) -> bool:
    before = case.copies.older / case.relative
    if not before.exists() or before.read_bytes() == case.path.read_bytes():
        return False
    case.path.write_bytes(before.read_bytes())
    return True


def anothers(case: Case) -> bool:
    """A sibling's, exchanged; where there is only one, another installation's."""
    for sibling in case.siblings():
        mine, theirs = case.path.read_bytes(), sibling.read_bytes()
        if mine != theirs:
            case.path.write_bytes(theirs)
            sibling.write_bytes(mine)
            case.exchanged.append(sibling)
            return True
    for stranger in case.copies.stranger.glob(case.kind.pattern):
        if stranger.read_bytes() != case.path.read_bytes():
            case.path.write_bytes(stranger.read_bytes())
            return True
    return False


DAMAGES: dict[str, Damage] = {
    "emptied": emptied,
    "8 KiB": cut_to_two_pages,
    "half": halved,
    "removed": removed,
    "older": older,
    "another's": anothers,
}
Table = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    filled: Table = {}
    yield filled
    plugins = request.config.pluginmanager
    terminal = plugins.get_plugin("terminalreporter")
    columns = [*DAMAGES, "a bit"]
    rows = [["file", *columns]]
    rows += [[kind.name, *(filled.get((kind.name, c), "-") for c in columns)] for kind in KINDS]
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns) + 1)]
    with plugins.get_plugin("capturemanager").global_and_fixture_disabled():
        terminal.write_line("")
        for row in rows:
            cells = zip(row, widths, strict=True)
            terminal.write_line("  ".join(cell.ljust(width) for cell, width in cells).rstrip())


@pytest.fixture
def case(request: pytest.FixtureRequest, copies: Copies, tmp_path: Path) -> Case:
    return fresh(request.param, copies, tmp_path / "data")


def fresh(kind: Kind, copies: Copies, data: Path) -> Case:
    (data / kind.folder).mkdir(parents=True)
    copy(copies.newest / kind.folder, data / kind.folder)
    paths = sorted(data.glob(kind.pattern))
    assert paths, f"the installation has no {kind.pattern}"

    def promise(path: Path) -> tuple[bool, int]:
        before = copies.older / path.relative_to(data)
        changed = before.exists() and before.read_bytes() != path.read_bytes()
        return changed, path.stat().st_size

    return Case(data, max(paths, key=promise), kind, copies)


def is_named(error: PagestoreError, case: Case) -> bool:
    """By its path, or by the timeline that it is of."""
    where = []
    for path in (case.path, *case.exchanged):
        timelines = re.findall(r"[0-9a-f]{32}", str(path.relative_to(case.data)))[1:]
        where += [path.name.split("-generation")[0], *timelines]
    return any(word in error.message for word in where)


def judged(case: Case, expected: opening.Contents) -> str:
    found = outcome(case.kind.opened, case.data)
    if isinstance(found, PagestoreError):
        assert is_named(found, case), f"{found.reason}: {found.message}"
        assert found.hint or found.reason == "LAYER_CORRUPT" or "IO" in found.reason, found
        return found.reason
    assert found == expected, "it is neither named nor right"
    return "right"


EXPECTED: dict[str, opening.Contents] = {}


def whole(case: Case) -> opening.Contents:
    """What is read of it undamaged, by the same reader."""
    if case.kind.name not in EXPECTED:
        EXPECTED[case.kind.name] = case.kind.opened(case.data)
    return EXPECTED[case.kind.name]


cases = pytest.mark.parametrize("case", KINDS, indirect=True, ids=[k.name.strip() for k in KINDS])


def test_every_file_of_an_installation_has_its_row(copies: Copies) -> None:
    files = {path.relative_to(copies.newest) for path in copies.newest.rglob("*") if path.is_file()}
    patterns = [*(kind.pattern for kind in KINDS), *ELSEWHERE]
    left = [file for file in files if not any(file.match(pattern) for pattern in patterns)]
    assert left == []


@cases
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_ours_any_more(case: Case, damage: str, table: Table) -> None:
    expected = whole(case)
    if damage not in case.kind.spared and DAMAGES[damage](case):
        table[case.kind.name, damage] = judged(case, expected)


@cases
def test_a_flipped_bit(case: Case, table: Table) -> None:
    expected = whole(case)
    original = case.path.read_bytes()
    written = len(original.rstrip(b"\0"))
    rng = random.Random(case.kind.name)
    outcomes = set()
    for _ in range(case.kind.flips):
        raw = bytearray(original)
        at = rng.randrange(written * 8)
        raw[at // 8] ^= 1 << at % 8
        case.path.write_bytes(raw)
        outcomes.add(judged(case, expected))
    if outcomes:
        table[case.kind.name, "a bit"] = ", ".join(sorted(outcomes))
