"""Which local files go when the disk's budget is used up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pagestore._native import layers_now
from pagestore.errors import Unavailable
from pagestore.maintenance.evicting import Candidate, Evictor, Use, choose
from pagestore.objects.store import ObjectStore
from pagestore.timeline.entries import Place
from tests.unit.maintenance.offsite import layer_objects, places, settle
from tests.unit.maintenance.test_offsite import Kept

FILES = [Candidate(used, b"%d" % used, 100) for used in (30, 10, 20)]


def test_nothing_goes_within_the_budget() -> None:
    assert choose(FILES, Use(over=0, spare=0, oldest=0)) == []


def test_those_that_were_read_least_recently_go_first_and_no_more_than_needed() -> None:
    chosen = choose(FILES, Use(over=150, spare=0, oldest=100))
    assert [item.used for item in chosen] == [10, 20]


def test_ranges_that_are_older_go_before() -> None:
    use = Use(over=150, spare=150, oldest=15)
    assert [item.used for item in choose(FILES, use)] == [10]


def test_ranges_in_use_take_the_room_of_files_that_are_not() -> None:
    use = Use(over=50, spare=1000, oldest=25)
    assert [item.used for item in choose(FILES, use)] == [10]


def test_a_store_stays_within_its_budget(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "data", ObjectStore.open(f"file://{tmp_path}/objects", {}))
    for _ in range(6):
        kept.write(1)
    settle(kept.offsite)
    files = sorted(kept.timeline(1).own_files(), key=lambda layer: layer.path)
    budget = sum(layer.summary.bytes for layer in files[:3])
    evictor = Evictor(kept.repository, kept.offsite, budget)
    layers_now(1000)
    for layer in files[2:5]:
        layer.verify()
    gone = evictor.look()
    kept.offsite.take()
    assert sum(Path(layer.path).stat().st_size for layer in files if Path(layer.path).exists()) > 0
    assert kept.offsite.here_bytes <= budget
    assert gone >= sum(layer.summary.bytes for layer in files) - budget
    stayed = {layer.path for layer in files if Path(layer.path).exists()}
    assert stayed <= {layer.path for layer in files[2:5]}
    assert places(kept.repository, 1).count(Place.REMOTE) == len(files) - len(stayed)
    kept.check()
    for _ in range(3):
        evictor.look()
        kept.offsite.take()
    assert kept.repository.store.elsewhere is not None
    cached = kept.repository.store.elsewhere.remote.stats()["cached_bytes"]
    assert kept.offsite.here_bytes + cached <= budget + budget // 8
    kept.repository.close()


def test_what_is_only_here_never_goes(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "data", ObjectStore.open(f"file://{tmp_path}/objects", {}))
    kept.write(1)
    kept.offsite.take()
    assert Evictor(kept.repository, kept.offsite, 0).look() == 0
    assert set(places(kept.repository, 1)) == {Place.LOCAL}
    kept.check()
    kept.repository.close()


def test_the_last_whole_copy_never_goes(tmp_path: Path) -> None:
    objects = ObjectStore.open(f"file://{tmp_path}/objects", {})
    kept = Kept(tmp_path / "data", objects)
    for _ in range(3):
        kept.write(1)
    settle(kept.offsite)
    gone, cut, *whole = sorted(layer_objects(objects))
    (tmp_path / "objects" / gone).unlink()
    os.truncate(tmp_path / "objects" / cut, 100)
    evictor = Evictor(kept.repository, kept.offsite, 0)
    for _ in range(2):
        evictor.look()
        kept.offsite.take()
    assert places(kept.repository, 1) == [
        Place.LOCAL,
        Place.LOCAL | Place.REMOTE,
        *[Place.REMOTE] * len(whole),
    ]
    kept.check()
    settle(kept.offsite)
    assert gone in layer_objects(objects), "it goes up again"
    evictor.look()
    assert places(kept.repository, 1)[0] == Place.REMOTE
    kept.check()
    kept.repository.close()


def test_nothing_goes_while_another_store_is_under_the_url(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "data", ObjectStore.open(f"file://{tmp_path}/objects", {}))
    kept.write(1)
    settle(kept.offsite)
    (tmp_path / "objects").rename(tmp_path / "disk")
    (tmp_path / "objects").mkdir()
    with pytest.raises(Unavailable):
        Evictor(kept.repository, kept.offsite, 0).look()
    assert set(places(kept.repository, 1)) == {Place.LOCAL | Place.REMOTE}
    kept.check()
    kept.repository.close()
