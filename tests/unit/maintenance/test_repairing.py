"""A damaged layer file that the object store has is fetched, and the damaged one kept aside."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagestore.errors import DataLoss, Unavailable
from pagestore.ids import DEFAULT_TENANT
from pagestore.lost_found import DIRECTORY
from pagestore.objects.store import ObjectStore
from pagestore.timeline import Repository, damage, elsewhere
from pagestore.timeline.elsewhere import object_name
from pagestore.timeline.entries import layer_key
from pagestore.timeline.scrub import OBJECT_STORE, Scrubbed
from tests.unit.maintenance.offsite import layer_objects, settle
from tests.unit.maintenance.test_offsite import Kept, flip
from tests.unit.objects.faulty import fail, faulty
from tests.unit.timeline.model import timeline_id
from tests.unit.timeline.test_crashes import MOMENTS, CrashingFiles, PowerLost


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    store = Kept(tmp_path / "data", ObjectStore.open(f"file://{tmp_path}/objects", {}))
    fill(store)
    yield store
    store.repository.close()


def fill(store: Kept) -> None:
    for _ in range(3):
        store.write(1)
    store.branch(1, 2)
    store.write(2)
    settle(store.offsite)


def deltas(store: Kept) -> list[Path]:
    return sorted(store.timeline(1).directory.glob("*.delta"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(10))


def exchange(path: Path) -> None:
    """For a file that is whole, of the same timeline, and an older one."""
    first = min(path.parent.glob("*.delta"))
    path.write_bytes(first.read_bytes())


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[Callable[[Path], object]] = [flip, cut, lengthen, exchange, empty, Path.unlink]


def repaired(store: Kept) -> list[Scrubbed]:
    found = list(store.repository.scrub(None))
    assert not any(item.failure for item in found), found
    return [item for item in found if item.repaired]


def aside(store: Kept) -> list[bytes]:
    place = store.directory / "store" / DIRECTORY
    return [path.read_bytes() for path in sorted(place.glob("*"))]


@pytest.mark.parametrize("damaging", DAMAGES)
@pytest.mark.parametrize("opened", [True, False])
def test_each_damage_is_repaired(
    kept: Kept, damaging: Callable[[Path], object], opened: bool
) -> None:
    if not opened:
        kept.reopen()
    kept.check()  # files and indexes are open, or will be only afterwards
    path = deltas(kept)[-1]
    whole = path.read_bytes()
    damaging(path)
    damaged = [path.read_bytes()] if path.exists() else []
    (found,) = repaired(kept)
    assert (found.path, found.source) == (str(path), OBJECT_STORE)
    assert [found.aside is not None] == [bool(damaged)]
    assert path.read_bytes() == whole
    assert aside(kept) == damaged
    assert repaired(kept) == []
    kept.check()
    kept.reopen()
    kept.check()


def test_a_walk_that_only_looks_changes_nothing(kept: Kept) -> None:
    path = deltas(kept)[0]
    flip(path)
    damaged = path.read_bytes()
    found = [item for item in kept.repository.scrub(None, repair=False) if item.failure]
    assert [(item.path, item.repaired, item.unrepaired) for item in found] == [
        (str(path), None, None)
    ]
    assert found[0].readers == (timeline_id(1), timeline_id(2))
    assert path.read_bytes() == damaged
    assert aside(kept) == []


def test_a_whole_file_is_left_alone(kept: Kept) -> None:
    others = kept.repository.store.elsewhere
    assert others is not None
    path = deltas(kept)[0]
    number = int(path.stem, 16)
    entry = kept.repository.store.catalog.layer(DEFAULT_TENANT, timeline_id(1), number)
    assert entry is not None
    before = path.stat()
    assert others.restore(layer_key(DEFAULT_TENANT, timeline_id(1), number), entry) is None
    assert path.stat() == before
    assert aside(kept) == []


def change_object(store: Kept, path: Path, make: Callable[[bytes], bytes]) -> None:
    number = int(path.stem, 16)
    entry = store.repository.store.catalog.layer(DEFAULT_TENANT, timeline_id(1), number)
    assert entry is not None
    name = object_name(layer_key(DEFAULT_TENANT, timeline_id(1), number), entry)
    raw = store.objects.get(name)
    store.objects.delete([name])
    store.objects.create(name, make(raw))


@pytest.mark.parametrize(
    "make",
    [
        lambda raw: raw + b"more",
        lambda raw: raw[:-1],
        lambda raw: raw[:200] + bytes([raw[200] ^ 1]) + raw[201:],
    ],
    ids=["longer", "shorter", "flipped"],
)
def test_an_object_that_is_another_one_is_not_taken(
    kept: Kept, make: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = deltas(kept)[0]
    # So that what is longer looks like the layer as far as it is fetched.
    monkeypatch.setattr(elsewhere, "FETCH_BYTES", path.stat().st_size)
    change_object(kept, path, make)
    flip(path)
    damaged = path.read_bytes()
    (found,) = [item for item in kept.repository.scrub(None) if item.failure]
    assert isinstance(found.unrepaired, DataLoss)
    assert path.read_bytes() == damaged
    assert not list(path.parent.glob("*.tmp"))
    assert aside(kept) == []


def test_an_object_of_another_generation_is_not_taken(kept: Kept) -> None:
    path = deltas(kept)[0]
    flip(path)
    (name,) = [name for name in layer_objects(kept.objects) if f"/{path.stem}-" in name]
    raw = kept.objects.get(name)
    kept.objects.delete([name])
    kept.objects.create(name.replace("-00000001", "-00000002"), raw)
    (found,) = [item for item in kept.repository.scrub(None) if item.failure]
    assert isinstance(found.unrepaired, DataLoss)
    assert aside(kept) == []


def test_a_file_that_only_we_cannot_read_is_not_replaced(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where too many files are open."""
    kept.reopen()
    path = deltas(kept)[0]
    inode = path.stat().st_ino
    monkeypatch.setattr(damage, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(damage, "LONGEST_PAUSE", 0.0)
    walk = kept.repository.scrub(None)
    with no_more_files():
        found = list(walk)
    assert {item.failure.reason for item in found if item.failure} == {"IO_ERROR"}
    assert not any(item.repaired for item in found)
    assert path.stat().st_ino == inode
    assert aside(kept) == []
    assert not damage.is_damaged(path, Unavailable("IO_ERROR", "as it was then"))


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_a_read_has_noted_is_mended_once_the_object_store_is_back(tmp_path: Path) -> None:
    objects, backend, _ = faulty()
    kept = Kept(tmp_path / "data", objects)
    fill(kept)
    kept.reopen()
    path = deltas(kept)[0]
    whole = path.read_bytes()
    flip(path)
    kept.check()
    backend.before = fail
    with pytest.raises(Exception, match="does not answer"):
        kept.offsite.mend()
    backend.before = lambda *_: None
    kept.offsite.mend()
    assert path.read_bytes() == whole
    assert len(aside(kept)) == 1
    kept.check()
    kept.repository.close()


class Repairing(CrashingFiles):
    """Stops at a step of a repair, also at that of moving aside."""

    def move_aside(self, root: Path, path: Path, now: float) -> Path | None:
        return self._step(lambda: super(CrashingFiles, self).move_aside(root, path, now))


def killed_at(root: Path, step: int, moment: str, damaging: Callable[[Path], object]) -> bool:
    objects, _, _ = faulty()
    kept = Kept(root, objects)
    fill(kept)
    path = deltas(kept)[1]
    damaging(path)
    damaged = path.read_bytes() if path.exists() else None
    kept.repository.close()
    kept.repository = Repository.open(
        root / "store", objects=objects, files=Repairing(step, moment)
    )
    try:
        list(kept.repository.scrub(None))
        crashed = False
    except PowerLost:
        crashed = True
    kept.reopen()
    kept.repository.sweep()
    repaired(kept)  # or it was
    kept.check()
    if damaged is not None:
        assert damaged in aside(kept)
    assert not list((root / "store").glob("*/*/*.tmp"))
    kept.repository.close()
    return crashed


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("damaging", [flip, Path.unlink])
def test_a_repair_that_was_killed_is_finished_by_the_next(
    tmp_path: Path, moment: str, damaging: Callable[[Path], object]
) -> None:
    step = 1
    while killed_at(tmp_path / str(step), step, moment, damaging):
        step += 1
    assert step > 4
