"""The control plane's state as a file: damage, loss and age are named, never believed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from pagestore.control import storage
from pagestore.control.records import TimelineState, Verb
from pagestore.control.state import ControlState
from pagestore.control.storage import FILE, META, NEEDS, NEEDS_KEY, VERSION, WHOLE_KEY, seal
from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.ids import TimelineId
from pagestore.lmdbfile import witness

from .test_state import T1, T2, TENANT, database, event, timeline

LARGE = random.Random(1).randbytes(30_000)
"""So that it takes pages of its own, however it lies."""


def fill(directory: Path, names: int = 60) -> None:
    with ControlState(directory) as state:
        for number in range(names):
            name = f"app{number}"
            ident = TimelineId(number.to_bytes(16, "big"))
            with state.change() as change:
                change.put_timeline(timeline(ident, name, TimelineState.LIVE))
                change.put_database(database(name, ident))
                change.add_event(TENANT, name, event(Verb.CREATE, number))
        with state.change() as change:
            change.put_kept_files(T1, {"pg_stat/pgstat.stat": LARGE})


def contents(directory: Path) -> list[object]:
    with ControlState(directory) as state:
        view = state.view()
        events = [view.events(TENANT, item.name) for item in view.databases()]
        return [view.databases(), view.live_timelines(), events, view.kept_files(T1)]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("control")
    fill(directory)
    return directory


@pytest.fixture
def control(original: Path, tmp_path: Path) -> Path:
    for path in original.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_flipped_bit_is_found_or_harmless(control: Path) -> None:
    """Wherever a bit flips, the file is refused, or reads as before: unused space."""
    before = contents(control)
    raw = (control / FILE).read_bytes()
    rng = random.Random(7)
    places = list(range(0, 160, 5)) + list(range(4097, 4256, 5))
    places += rng.sample(range(8192, len(raw)), 150)
    refused: list[DataLoss] = []
    for at in places:
        damaged = bytearray(raw)
        damaged[at] ^= 1 << rng.randrange(8)
        (control / FILE).write_bytes(damaged)
        try:
            assert contents(control) == before, f"offset {at}"
        except DataLoss as error:
            refused.append(error)
    assert len(refused) > 50
    # A transaction's number with one bit less reads as an older copy's.
    reasons = {error.reason for error in refused}
    assert {"CONTROL_STATE_CORRUPT"} <= reasons <= {"CONTROL_STATE_CORRUPT", "CONTROL_STATE_OLDER"}
    assert all(str(control / FILE) in error.message for error in refused)


LOSSES: dict[str, Callable[[Path], object]] = {
    "truncated to 0": lambda path: path.write_bytes(b""),
    "cut to 8 KiB": lambda path: path.write_bytes(path.read_bytes()[:8192]),
    "cut to half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "removed": lambda path: path.unlink(),
    "garbage": lambda path: path.write_bytes(b"garbage" * 9999),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES.keys())
def test_a_lost_file_is_named_and_never_begun_anew(
    control: Path, lose: Callable[[Path], object]
) -> None:
    lose(control / FILE)
    for _ in range(2):
        with pytest.raises(DataLoss, match=FILE) as caught:
            ControlState(control)
        assert caught.value.reason == "CONTROL_STATE_CORRUPT"


def test_an_older_copy_is_named_and_taken_only_when_told(control: Path) -> None:
    older = (control / FILE).read_bytes()
    with ControlState(control) as state, state.change() as change:
        change.put_database(database("newer", T2))
    (control / FILE).write_bytes(older)
    with pytest.raises(DataLoss, match="older copy") as caught:
        ControlState(control)
    assert caught.value.reason == "CONTROL_STATE_OLDER"
    witness.acceptance_file(control / FILE).touch()
    with ControlState(control) as state:
        assert state.accepted
        assert state.view().database(TENANT, "newer") is None
        state.forget_acceptance()
    with ControlState(control) as state:
        assert not state.accepted


def test_anothers_state_is_named(control: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    fill(other, 5)
    (control / FILE).write_bytes((other / FILE).read_bytes())
    with pytest.raises(DataLoss) as caught:
        ControlState(control)
    assert caught.value.reason == "CONTROL_STATE_FOREIGN"


def test_an_lmdb_file_of_another_kind_is_not_begun_in(control: Path) -> None:
    (control / FILE).unlink()
    witness.generation_file(control / FILE).unlink()
    with lmdb.open(str(control / FILE), subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"t", b"an entry of a catalog")
    with pytest.raises(DataLoss, match="in no table"):
        ControlState(control)


def test_a_page_that_the_disk_did_not_write_is_noticed(control: Path) -> None:
    """A page as it was before: its number, its keys, its seals all hold."""
    before = (control / FILE).read_bytes()
    with ControlState(control) as state, state.change() as change:
        # Of the same length, so that no count differs.
        change.put_database(database("app7", T2))
    after = (control / FILE).read_bytes()
    now = contents(control)
    noticed = 0
    for page in range(2, len(before) // 4096):
        span = slice(page * 4096, (page + 1) * 4096)
        if before[span] != after[span]:
            (control / FILE).write_bytes(after[: span.start] + before[span] + after[span.stop :])
            try:
                assert contents(control) == now
            except DataLoss:
                noticed += 1
    assert noticed


def test_a_state_of_version_1_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes((Path(__file__).parent / "version_1.mdb").read_bytes())
    second = TimelineId(b"2" * 16)
    for _ in range(2):
        with ControlState(tmp_path) as state:
            view = state.view()
            assert [item.name for item in view.databases()] == ["app", "try"]
            assert view.kept_files(second) == {"pg_stat/pgstat.stat": b"statistics" * 900}
            assert view.old_auto_conf(view.known_database(TENANT, "app")) == b"work_mem = '8MB'\n"
            assert [item.state for item in view.unsettled()] == [TimelineState.DROPPED]
            assert view.has_children(second)
            assert [item.name for item in view.checkpoints(TENANT, "app")] == ["c1"]
            assert view.template() is not None
    with ControlState(tmp_path) as state, state.change() as change:
        change.put_database(database("new"))


def test_a_state_of_version_2_is_taken_over_and_stays_the_same_store(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes((Path(__file__).parent / "version_2.mdb").read_bytes())
    before = storage.read_state(tmp_path / FILE)
    assert before is not None
    assert before.version == 2
    for _ in range(2):
        with ControlState(tmp_path) as state:
            view = state.view()
            assert [item.name for item in view.databases()] == ["packed", "plain"]
            assert view.known_timeline(T1).database == "plain"
            assert view.known_timeline(T2).database == "packed"
            assert view.kept_files(T2) == {"pg_stat/pgstat.stat": b"packed" * 900}
            assert [item.verb for item in view.events(TENANT, "plain")] == [Verb.CREATE]
        after = storage.read_state(tmp_path / FILE)
        assert after is not None
        assert after.version == VERSION
        assert after.whole.store_id == before.whole.store_id
    with ControlState(tmp_path) as state, state.change() as change:
        change.put_database(database("new"))
    assert len(contents(tmp_path)) == 4


def test_one_who_reads_up_to_version_2_is_told_what_it_needs(
    control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the records alone would not tell: packed ones look damaged to it."""
    monkeypatch.setattr(storage, "VERSION", 2)
    with pytest.raises(FailedPrecondition, match=f"needs pagestore {NEEDS}") as caught:
        storage.read_state(control / FILE)
    assert caught.value.reason == "CONTROL_STATE_VERSION"


def test_a_damaged_value_of_version_2_is_named(tmp_path: Path) -> None:
    raw = bytearray((Path(__file__).parent / "version_2.mdb").read_bytes())
    raw[raw.rindex(b'"name":"plain"')] ^= 1
    (tmp_path / FILE).write_bytes(raw)
    with pytest.raises(DataLoss) as caught:
        ControlState(tmp_path)
    assert caught.value.reason == "CONTROL_STATE_CORRUPT"


def test_a_damaged_value_of_version_1_is_named(tmp_path: Path) -> None:
    raw = (Path(__file__).parent / "version_1.mdb").read_bytes()
    (tmp_path / FILE).write_bytes(raw.replace(b'"secret"', b'"Secret"'))
    with pytest.raises(DataLoss, match="databases"):
        ControlState(tmp_path)


def write_as(directory: Path, version: int, entries: dict[bytes, bytes]) -> None:
    with (
        lmdb.open(str(directory), max_dbs=64) as env,
        env.begin(write=True) as txn,
    ):
        meta = env.open_db(META.encode(), txn=txn)
        for key, body in entries.items():
            sealed = seal(META.encode(), key, body)
            txn.put(key, bytes([version]) + sealed[1:], db=meta)


def test_a_newer_state_is_refused_with_the_version_that_it_needs(control: Path) -> None:
    write_as(control, 4, {WHOLE_KEY: b"of a form that nobody here knows", NEEDS_KEY: b"0.9.1"})
    before = (control / FILE).read_bytes()
    with pytest.raises(
        FailedPrecondition, match=r"version 4, which needs pagestore 0\.9\.1"
    ) as caught:
        ControlState(control)
    assert caught.value.reason == "CONTROL_STATE_VERSION"
    assert (control / FILE).read_bytes() == before


@pytest.mark.parametrize("entries", [{WHOLE_KEY: b"x" * 40}, {NEEDS_KEY: b"0.9.1"}])
def test_what_only_looks_newer_is_damage(control: Path, entries: dict[bytes, bytes]) -> None:
    write_as(control, 4, entries)
    with pytest.raises(DataLoss) as caught:
        ControlState(control)
    assert caught.value.reason == "CONTROL_STATE_CORRUPT"


def test_what_changes_nothing_writes_nothing(control: Path) -> None:
    with ControlState(control) as state:
        before = (control / FILE).read_bytes()
        with state.change() as change:
            change.known_database(TENANT, "app1")
        assert (control / FILE).read_bytes() == before
