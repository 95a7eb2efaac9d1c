"""`recover`: into an empty directory alone, as a whole or not at all, and nobody else writes then.

What a recovered installation serves is tests/integration/test_recover.py's.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pagestore.control.records import KeyRecord, TenantRecord
from pagestore.control.state import TABLES, ControlState
from pagestore.control.storage import Storage
from pagestore.errors import DataLoss, FailedPrecondition, NotFound, PagestoreError
from pagestore.ids import DEFAULT_TENANT, Lsn, TenantId, TimelineId
from pagestore.installation import lifecycle, recovering
from pagestore.installation.layout import Installation
from pagestore.lmdbfile.whole import Whole
from pagestore.objects import archived_wal
from pagestore.objects.archived_wal import Archived
from pagestore.objects.claims import claim, establish
from pagestore.objects.journal import Journal
from pagestore.objects.mirror import Mirror, Source
from pagestore.objects.store import ObjectStore
from pagestore.timeline.catalog import Catalog
from pagestore.timeline.entries import Place, TimelineEntry
from pagestore.walservice import log as log_files
from pagestore.walservice.owner import Owner
from tests.unit.objects.faulty import faulty
from tests.unit.timeline.test_catalog import LAYER
from tests.unit.walservice.test_segments import SEGMENT, Log

TIMELINE = TimelineId(b"t" * 16)
KEY = DEFAULT_TENANT, TIMELINE


def mirrored(store: ObjectStore, part: str, directory: Path, source: Source, name: str) -> None:
    mirror = Mirror(source)
    mirror.begin(claim(store, part, directory), name)
    while mirror.step():
        pass


@pytest.fixture
def log() -> Log:
    return Log(SEGMENT + 40, 8, 100, 9000)


@pytest.fixture
def url(tmp_path: Path, log: Log) -> str:
    """Of a store that has a timeline with a layer and WAL behind it, and a control state."""
    url, old = f"file://{tmp_path}/objects", tmp_path / "old"
    store = ObjectStore.open(url, {})
    for part in ("pageserver", "control"):
        (old / part).mkdir(parents=True)
    catalog = Catalog(old / "catalog.lmdb")
    begin = log.start.flush_lsn
    entry = TimelineEntry(None, Lsn(0), Lsn(begin), Lsn(0), 1)
    catalog.update(lambda to: to.put_timeline(*KEY, entry, [(1, LAYER)]))
    mirrored(store, "pageserver", old / "pageserver", catalog, "catalog")
    catalog.close()
    with ControlState(old / "control") as state:
        with state.change() as change:
            change.put_key(KeyRecord(key="00000000", overwritten=True))
        mirrored(store, "control", old / "control", state.storage, "state")
    wal = Archived(begin, log.data, 4, 42)
    archived_wal.put(store, establish(store), KEY, 1, wal)
    return url


def recovered(data: Path, url: str) -> recovering.Recovered:
    return recovering.recover(Installation(data), url, {}, None, lambda text: None)


def reason(data: Path, url: str) -> str:
    with pytest.raises(PagestoreError) as told:
        recovered(data, url)
    return told.value.reason


def test_catalog_state_and_wal_are_back_and_no_layer_is_here(
    tmp_path: Path, url: str, log: Log
) -> None:
    data = tmp_path / "new"
    found = recovered(data, url)
    assert (found.timelines, found.layers, found.strangers, found.has_key) == (1, 1, 1, False)
    assert found.wal_bytes == len(log.data)
    catalog = Catalog(data / "pageserver/store/catalog.lmdb")
    ((_, layer),) = catalog.layers(*KEY)
    assert layer.place == Place.REMOTE
    catalog.close()
    place = data / "safekeeper" / str(DEFAULT_TENANT) / str(TIMELINE)
    assert log_files.load(place, Owner(*KEY, 1)).state.position == log.end
    with ControlState(data / "control") as state:
        assert state.view().key() == KeyRecord(key="00000000", overwritten=True)
        assert state.accepted
    config = Installation(data).config
    assert config.objects is not None
    assert config.objects.url == url
    assert not list(data.rglob("*.image")) + list(data.rglob("*.delta"))


def test_a_control_state_of_an_older_version_is_back_too(tmp_path: Path, url: str) -> None:
    """That an older pagestore left in the object store, whose sum is over what it wrote."""
    store, old = ObjectStore.open(url, {}), tmp_path / "older"
    old.mkdir()
    older = Storage(old, TABLES, version=2)
    with older.writing() as writer:
        for number in range(3):
            tenant = TenantId(bytes(15) + b"%d" % number)
            record = TenantRecord(tenant=tenant, name=f"t{number}", created_micros=1)
            writer.put("tenants", record.tenant.raw, record.encode())
    mirrored(store, "control", tmp_path / "old" / "control", older, "state")
    older.close()
    recovered(tmp_path / "new", url)
    with ControlState(Installation(tmp_path / "new").part_dir("control")) as state:
        assert {item.name for item in state.view().tenants()} >= {"t0", "t1", "t2"}


def test_who_was_there_before_is_superseded(tmp_path: Path, url: str) -> None:
    store = ObjectStore.open(url, {})
    old = claim(store, "pageserver", tmp_path / "old/pageserver")
    recovered(tmp_path / "new", url)
    with pytest.raises(FailedPrecondition):
        old.check()
    for part in ("pageserver", "control"):
        with pytest.raises(FailedPrecondition) as told:
            claim(store, part, tmp_path / "old" / part)
        assert told.value.reason == "GENERATION_SUPERSEDED"
        claim(store, part, tmp_path / "new" / part)


def test_a_directory_that_has_anything_in_it_is_left_alone(tmp_path: Path, url: str) -> None:
    data = tmp_path / "new"
    data.mkdir()
    (data / "precious").write_text("x")
    assert reason(data, url) == "DIRECTORY_NOT_EMPTY"
    assert [path.name for path in data.iterdir()] == ["precious"]
    done = tmp_path / "done"
    recovered(done, url)
    assert reason(done, url) == "DIRECTORY_NOT_EMPTY"
    assert reason(tmp_path / "other", f"file://{tmp_path}/nothing") == "OBJECT_STORE_EMPTY"


class Killed(BaseException):
    pass


def kill(monkeypatch: pytest.MonkeyPatch, step: str, when: str) -> None:
    true = getattr(recovering, step)

    def killed(*arguments: object) -> None:
        if when == "behind":
            true(*arguments)
        raise Killed

    monkeypatch.setattr(recovering, step, killed)


def test_killed_at_any_step_it_is_begun_anew_and_up_waits_for_that(
    tmp_path: Path, url: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "new"
    steps = ["_claimed", "_catalog", "_control", "_wal", "_key", "_finish"]
    for step, when in itertools.product(steps, ("before", "behind")):
        if (step, when) != ("_finish", "behind"):
            with monkeypatch.context() as patch:
                kill(patch, step, when)
                with pytest.raises(Killed):
                    recovered(data, url)
            with pytest.raises(FailedPrecondition) as told:
                lifecycle.prepare(Installation(data))
            assert told.value.reason == "RECOVERY_UNFINISHED"
    assert recovered(data, url).wal_bytes == len(log.data)
    assert not Installation(data).recovering_file.exists()


def test_killed_at_any_request_to_the_object_store_it_is_begun_anew(
    tmp_path: Path, url: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, backend, _ = faulty(url)
    backend.objects = {
        str(path.relative_to(tmp_path / "objects")): path.read_bytes()
        for path in (tmp_path / "objects").rglob("*")
        if path.is_file()
    }
    monkeypatch.setattr(recovering.ObjectStore, "open", lambda url, environ: store)
    for number in itertools.count(1):
        last = backend.requests + number

        def kill(at: int, verb: str, name: str, last: int = last) -> None:
            if at == last:
                raise Killed

        backend.before = kill
        try:
            found = recovered(tmp_path / "new", url)
        except Killed:
            # Before the first word of the store nothing is there at all.
            assert number == 1 or Installation(tmp_path / "new").recovering_file.exists()
        else:
            break
    assert number > 15
    assert (found.timelines, found.wal_bytes) == (1, len(log.data))


def in_parts(objects: Path, url: str, log: Log, begins: list[int]) -> list[Path]:
    """The WAL of the fixture, as several objects that begin at these offsets."""
    (whole,) = (objects / "wal").rglob("*-00000001")
    whole.unlink()
    store, made = ObjectStore.open(url, {}), []
    for begin, end in itertools.pairwise([*begins, len(log.data)]):
        piece = Archived(log.start.flush_lsn + begin, log.data[begin:end], 4, 42)
        range_ = archived_wal.put(store, establish(store), KEY, 1, piece)
        made.append(objects / archived_wal.object_name(KEY, range_))
    return made


@pytest.mark.parametrize("damage", ["missing", "missing first", "flipped"])
def test_wal_that_is_not_whole_is_refused_by_name_and_comes_back_up_to_there_if_that_will_do(
    tmp_path: Path, url: str, log: Log, damage: str
) -> None:
    begins = [0, 3000, 6000]
    parts = in_parts(tmp_path / "objects", url, log, begins)
    lost = 0 if damage == "missing first" else 1
    kept = parts[lost].read_bytes()
    if damage == "flipped":
        parts[lost].write_bytes(kept[:99] + bytes([kept[99] ^ 1]) + kept[100:])
    else:
        parts[lost].unlink()
    with pytest.raises(DataLoss) as told:
        recovered(tmp_path / "new", url)
    assert told.value.reason == "ARCHIVED_WAL_LOST"
    assert str(TIMELINE) in told.value.message
    name = parts[lost].name if damage == "flipped" else str(Lsn(log.start.flush_lsn + begins[lost]))
    assert name in told.value.message
    with pytest.raises(FailedPrecondition):
        lifecycle.prepare(Installation(tmp_path / "new"))
    # Nothing behind it was given up: with the object back all of it is.
    damaged = parts[lost].read_bytes() if damage == "flipped" else None
    parts[lost].write_bytes(kept)
    assert recovered(tmp_path / "whole", url).wal_bytes == len(log.data)
    (fence,) = (tmp_path / "objects/wal/fences").iterdir()
    fence.unlink()
    parts[lost].unlink()
    if damaged is not None:
        parts[lost].write_bytes(damaged)
    found = recovering.recover(
        Installation(tmp_path / "new"), url, {}, None, lambda text: None, accept_loss=True
    )
    (loss,) = found.lost
    assert str(TIMELINE) in loss
    # Up to the last whole record before it.
    end = max(e.flush_lsn for e in log.ends if e.flush_lsn <= log.start.flush_lsn + begins[lost])
    assert found.wal_bytes == end - log.start.flush_lsn


STRAYS = (".DS_Store", "00000001 (copy)", "0", "zz/0000000000000001.changes")


def test_what_others_have_laid_into_the_store_is_passed_over_and_stays(
    tmp_path: Path, url: str, log: Log
) -> None:
    objects = tmp_path / "objects"
    first = tmp_path / "first"
    recovered(first, url)  # so that there are a fence and claims
    places = [path for path in objects.rglob("*") if path.is_dir()]
    (objects / "pageserver/boundary").mkdir(exist_ok=True)
    strays = [
        place / stray for place in (*places, objects / "pageserver/boundary") for stray in STRAYS
    ]
    for stray in strays:
        stray.parent.mkdir(exist_ok=True)
        stray.write_text("x")
    data = tmp_path / "new"
    assert recovered(data, url).wal_bytes == len(log.data)
    # Who begins there goes on, and removes nothing but what is its own.
    catalog = Catalog(data / "pageserver/store/catalog.lmdb")
    mirrored(ObjectStore.open(url, {}), "pageserver", data / "pageserver", catalog, "catalog")
    catalog.close()
    mine = claim(ObjectStore.open(url, {}), "pageserver", data / "pageserver")
    journal = Journal(mine, "catalog")
    journal.snapshot(Whole(1, bytes(16), 0), [])
    assert journal.prune()
    assert [stray for stray in strays if not stray.exists()] == []


def test_a_journal_that_lacks_an_object_makes_nothing(tmp_path: Path, url: str) -> None:
    (snapshot,) = (tmp_path / "objects/pageserver/catalog").rglob("*.snapshot")
    snapshot.unlink()
    with pytest.raises((DataLoss, NotFound)) as told:
        recovered(tmp_path / "new", url)
    assert told.value.reason == "JOURNAL_INCOMPLETE"
    assert Installation(tmp_path / "new").recovering_file.exists()


def test_for_a_key_that_there_is_not_nobody_is_superseded(tmp_path: Path, url: str) -> None:
    old = claim(ObjectStore.open(url, {}), "pageserver", tmp_path / "old/pageserver")
    key = tmp_path / "none"
    with pytest.raises(FileNotFoundError):
        recovering.recover(Installation(tmp_path / "new"), url, {}, key, lambda text: None)
    old.check()
    assert not (tmp_path / "new").exists()


def test_another_key_than_the_states_is_refused(tmp_path: Path, url: str) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    with pytest.raises(FailedPrecondition) as told:
        recovering.recover(Installation(tmp_path / "new"), url, {}, key, lambda text: None)
    assert told.value.reason == "OPERATOR_KEY_LOST"
