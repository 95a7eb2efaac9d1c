"""A generation is one writer's, and a directory that was replaced gets none any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pagestore.errors import DataLoss, FailedPrecondition, Unavailable
from pagestore.objects.claims import RECORD, claim, establish, reach
from pagestore.objects.store import ObjectStore
from tests.unit.objects.faulty import fail, faulty


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def refused(store: ObjectStore, directory: Path) -> str:
    with pytest.raises(FailedPrecondition) as told:
        claim(store, "part", directory)
    return told.value.reason


def test_each_start_has_a_generation_of_its_own(any_store: ObjectStore, here: Path) -> None:
    assert [claim(any_store, "part", here).generation for _ in range(3)] == [1, 2, 3]
    assert claim(any_store, "other", here).generation == 1


def test_who_has_a_successor_is_told(any_store: ObjectStore, here: Path) -> None:
    first = claim(any_store, "part", here)
    first.check()
    second = claim(any_store, "part", here)
    with pytest.raises(FailedPrecondition) as told:
        first.check()
    assert told.value.reason == "GENERATION_SUPERSEDED"
    second.check()


def test_who_has_a_successor_is_told_when_the_next_claim_is_gone(
    any_store: ObjectStore, here: Path
) -> None:
    first = claim(any_store, "part", here)
    claim(any_store, "part", here)
    third = claim(any_store, "part", here)
    third.put_boundary(5)
    assert [found.name for found in any_store.list("part/claims/")] == ["part/claims/00000003"]
    with pytest.raises(FailedPrecondition):
        first.check()
    third.check()
    assert claim(any_store, "part", here).generation == 4


def test_another_directory_claims_nothing(any_store: ObjectStore, here: Path, there: Path) -> None:
    claim(any_store, "part", here)
    assert refused(any_store, there) == "OBJECT_STORE_CLAIMED"
    assert not (there / RECORD).exists()


def test_a_directory_that_was_replaced_claims_nothing(
    any_store: ObjectStore, here: Path, there: Path
) -> None:
    old = claim(any_store, "part", here)
    assert claim(any_store, "part", there, take_over=True).generation == 2
    assert refused(any_store, here) == "GENERATION_SUPERSEDED"
    with pytest.raises(FailedPrecondition):
        old.check()
    assert claim(any_store, "part", there).generation == 3


def test_a_directory_keeps_to_its_store(store: ObjectStore, here: Path, tmp_path: Path) -> None:
    claim(store, "part", here)
    other = ObjectStore.open(f"file://{tmp_path}/others", {})
    establish(other)
    assert refused(other, here) == "OBJECT_STORE_FOREIGN"


def waits(act: Callable[[], object]) -> str:
    with pytest.raises(Unavailable) as told:
        act()
    assert told.value.reason == "OBJECT_STORE_UNAVAILABLE"
    return told.value.message


@pytest.mark.parametrize("below_the_mount", ["nothing", "an empty directory"])
def test_a_directory_that_is_away_is_not_made_anew_and_counts_again_when_it_is_back(
    tmp_path: Path, here: Path, below_the_mount: str
) -> None:
    root, disk = tmp_path / "objects", tmp_path / "disk"
    store = ObjectStore.open(f"file://{root}", {}).hasty
    mine = claim(store, "part", here)
    root.rename(disk)
    if below_the_mount != "nothing":
        root.mkdir()
    waits(lambda: store.create("part/layer", b"pages"))
    waits(lambda: store.delete(["part/layer"]))
    waits(mine.check)
    waits(lambda: mine.put_boundary(5))
    waits(lambda: claim(store, "part", here))
    waits(lambda: reach(store, here))
    assert not root.exists() or not list(root.iterdir()), "nothing was put there meanwhile"
    if root.exists():
        root.rmdir()
    disk.rename(root)
    mine.check()
    store.create("part/layer", b"pages")
    assert claim(store, "part", here).generation == 2


def test_an_empty_bucket_of_the_same_name_is_not_the_store(
    any_store: ObjectStore, here: Path
) -> None:
    mine = claim(any_store.hasty, "part", here)
    there = {found.name: any_store.get(found.name) for found in any_store.list("")}
    any_store.delete(there)
    assert "not the object store that was there" in waits(mine.check)
    waits(lambda: claim(any_store.hasty, "part", here))
    for name, data in sorted(there.items(), reverse=True):
        any_store.create(name, data)
    mine.check()


def test_another_installations_store_in_its_place_is_not_the_store(
    tmp_path: Path, here: Path, there: Path
) -> None:
    root, others = tmp_path / "objects", tmp_path / "others"
    mine = claim(ObjectStore.open(f"file://{root}", {}), "part", here)
    theirs = claim(ObjectStore.open(f"file://{others}", {}), "part", there)
    assert theirs.generation == mine.generation, "by its name it is the same claim"
    root.rename(tmp_path / "aside")
    others.rename(root)
    assert "not the object store that was there" in waits(mine.check)


def test_who_was_killed_at_any_request_of_a_claim_claims_again(tmp_path: Path) -> None:
    for number in range(1, 30):
        for when in ("before", "after"):
            directory = tmp_path / f"{number}-{when}"
            directory.mkdir()
            store, backend, _ = faulty()
            claim(store, "part", directory)
            begun = backend.requests

            def cut(at: int, verb: str, name: str, last: int = begun + number) -> None:
                if at >= last:
                    fail(at, verb, name)

            setattr(backend, when, cut)
            try:
                claim(store, "part", directory)
                return_early = True
            except Exception:
                return_early = False
            setattr(backend, when, lambda number, verb, name: None)
            again = claim(store, "part", directory)
            again.check()
            assert again.generation in (2, 3)
        if return_early:
            return
    pytest.fail("it never went through")


def test_a_damaged_record_is_named(store: ObjectStore, here: Path) -> None:
    claim(store, "part", here)
    raw = bytearray((here / RECORD).read_bytes())
    raw[20] ^= 1
    (here / RECORD).write_bytes(raw)
    with pytest.raises(DataLoss) as told:
        claim(store, "part", here)
    assert told.value.reason == "OBJECT_CORRUPT"
    assert RECORD in told.value.message


def test_a_store_has_one_id(store: ObjectStore) -> None:
    assert establish(store) == establish(store)
