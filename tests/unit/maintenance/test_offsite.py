"""A store in an object store: what is there, in which order it comes there, what it is good for."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.exceptions import GenericError

from pagestore import keyspace
from pagestore._native import NativeError
from pagestore.errors import DataLoss, FailedPrecondition, PagestoreError, Unavailable
from pagestore.ids import DEFAULT_TENANT
from pagestore.layers.files import layer_name
from pagestore.layers.native import store_errors
from pagestore.maintenance.offsite import Offsite
from pagestore.objects.claims import claim
from pagestore.objects.store import ObjectStore
from pagestore.timeline import Repository, Timeline, elsewhere
from pagestore.timeline.entries import Place, layer_key
from tests.unit.maintenance.offsite import (
    evict_all,
    layer_objects,
    places,
    recover,
    settle,
    upload_all,
)
from tests.unit.objects import s3
from tests.unit.objects.faulty import Memory, fail, faulty
from tests.unit.timeline.model import (
    ROOT_LSN,
    ModelTimeline,
    check,
    compact,
    image,
    make_root,
    put,
    timeline_id,
)


class Kept:
    """A root and a branch of it, in a store that is kept in an object store."""

    def __init__(self, directory: Path, objects: ObjectStore) -> None:
        self.directory, self.objects = directory, objects
        directory.mkdir(exist_ok=True)
        self.open()
        entries = [image(keyspace.rel_size(1, 2, 1, 0), ROOT_LSN, b"root")]
        make_root(self.repository, 1, entries)
        self.models = {1: ModelTimeline(None, ROOT_LSN, ROOT_LSN, ROOT_LSN)}
        self.models[1].own.put(entries)

    def open(self) -> None:
        self.repository = Repository.open(self.directory / "store", objects=self.objects)
        self.offsite = Offsite(self.repository, self.directory)
        self.offsite.start()

    def reopen(self) -> None:
        self.repository.close()
        self.open()

    def timeline(self, number: int) -> Timeline:
        return self.repository.get(DEFAULT_TENANT, timeline_id(number))

    def write(self, number: int, *, flush: bool = True) -> None:
        model, timeline = self.models[number], self.timeline(number)
        entries = [
            image(keyspace.rel_size(1, 2, rel, 0), model.last + rel, b"%d" % model.last)
            for rel in range(1, 9)
        ]
        put(timeline, entries, model.last + 10)
        model.own.put(entries)
        model.last += 10
        if flush:
            timeline.freeze()
            timeline.flush()
            model.durable = model.last

    def branch(self, parent: int, child: int) -> None:
        model = self.models[parent]
        self.repository.branch(DEFAULT_TENANT, timeline_id(parent), timeline_id(child), model.last)
        self.models[child] = ModelTimeline(model, model.last, model.last, model.last)

    def compact(self, number: int) -> None:
        compact(self.timeline(number), self.models[number])

    def check(self, repository: Repository | None = None) -> None:
        for number, model in self.models.items():
            found = (repository or self.repository).get(DEFAULT_TENANT, timeline_id(number))
            assert found.last_record_lsn >= model.durable
            for lsn in range(model.branch_lsn, model.durable + 1, 3):
                check(found.snapshot(), model, lsn)

    def recovered(self) -> Iterator[Repository]:
        """Another store, made from the object store."""
        directory = self.directory.with_name("recovered")
        recover(self.objects, directory)
        repository = Repository.open(directory / "store", objects=self.objects)
        yield repository
        repository.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    store = Kept(tmp_path / "data", ObjectStore.open(f"file://{tmp_path}/objects", {}))
    yield store
    store.repository.close()


def key_of(store: Kept, number: int) -> tuple:
    return DEFAULT_TENANT, timeline_id(number)


def test_all_is_read_from_the_object_store_when_nothing_is_here(kept: Kept) -> None:
    for _ in range(3):
        kept.write(1)
    kept.branch(1, 2)
    kept.write(2)
    settle(kept.offsite)
    assert set(places(kept.repository, 1)) == {Place.LOCAL | Place.REMOTE}
    assert evict_all(kept.repository, kept.offsite) > 0
    assert set(places(kept.repository, 1)) == {Place.REMOTE}
    assert not list((kept.directory / "store").glob("*/*/*.*")), "no layer file is here"
    kept.check()
    kept.reopen()
    assert not list((kept.directory / "store/cache").iterdir()), "emptied at the start"
    kept.check()
    kept.compact(1)
    kept.check()
    settle(kept.offsite)
    assert kept.repository.store.elsewhere is not None
    assert kept.repository.store.elsewhere.remote.stats()["fetches"] > 0


def test_what_was_journaled_can_be_recovered_on_an_empty_machine(kept: Kept) -> None:
    kept.write(1)
    kept.branch(1, 2)
    kept.write(2)
    kept.compact(1)
    settle(kept.offsite)
    for repository in kept.recovered():
        kept.check(repository)
        files = list((kept.directory.with_name("recovered") / "store").glob("*/*/*.*"))
        assert not files, "no layer is copied"


def test_a_transaction_waits_for_the_layers_that_it_leaves_named(kept: Kept) -> None:
    settle(kept.offsite)
    kept.write(1)
    kept.offsite.take()
    before = kept.offsite.durable_lsn(key_of(kept, 1))
    assert not kept.offsite.journal()
    assert kept.offsite.durable_lsn(key_of(kept, 1)) == before < kept.models[1].durable
    upload_all(kept.offsite)
    kept.offsite.take()
    assert kept.offsite.journal()
    assert kept.offsite.durable_lsn(key_of(kept, 1)) == kept.models[1].durable
    for repository in kept.recovered():
        kept.check(repository)


def test_a_layer_that_was_replaced_before_its_turn_is_never_put_there(kept: Kept) -> None:
    settle(kept.offsite)
    for _ in range(3):
        kept.write(1)
    kept.compact(1)
    settle(kept.offsite)
    names = {name.rpartition("/")[2].partition("-")[0] for name in layer_objects(kept.objects)}
    listed = kept.repository.store.catalog.layers(*key_of(kept, 1))
    assert names == {f"{number:012x}" for number, _ in listed}
    for repository in kept.recovered():
        kept.check(repository)


def test_an_object_goes_when_its_removal_is_journaled_and_nobody_reads_it(kept: Kept) -> None:
    for _ in range(3):
        kept.write(1)
    settle(kept.offsite)
    evict_all(kept.repository, kept.offsite)
    before = layer_objects(kept.objects)
    old = kept.timeline(1).snapshot()
    kept.compact(1)
    kept.offsite.take()
    kept.offsite.clean()
    assert before <= layer_objects(kept.objects), "a recovery would want them"
    settle(kept.offsite)
    kept.offsite.clean()
    assert before <= layer_objects(kept.objects), "a reader may want them"
    check(old, kept.models[1], kept.models[1].durable)
    del old
    kept.offsite.clean()
    assert len(before & layer_objects(kept.objects)) == 1, "the image"
    kept.check()


def test_files_that_were_replaced_go_while_the_object_store_is_away(tmp_path: Path) -> None:
    objects, backend, _ = faulty()
    kept = Kept(tmp_path / "data", objects)
    kept.write(1)
    kept.write(1)
    settle(kept.offsite)
    kept.check()
    backend.before = fail
    kept.compact(1)
    kept.offsite.take()
    with pytest.raises(Unavailable):
        upload_all(kept.offsite)
    kept.offsite.take()
    assert len(list(kept.timeline(1).directory.glob("*.delta"))) == 1
    kept.check()
    kept.repository.close()


def test_the_objects_of_a_deleted_timeline_go(kept: Kept) -> None:
    kept.branch(1, 2)
    kept.write(2)
    settle(kept.offsite)
    kept.repository.delete(DEFAULT_TENANT, timeline_id(2))
    del kept.models[2]
    settle(kept.offsite)
    kept.offsite.clean()
    assert not [name for name in layer_objects(kept.objects) if str(timeline_id(2)) in name]
    assert kept.offsite.durable_lsn(key_of(kept, 2)) == 0


def test_an_existing_store_is_put_there_as_a_whole(tmp_path: Path) -> None:
    objects = ObjectStore.open(f"file://{tmp_path}/objects", {})
    kept = Kept(tmp_path / "data", objects)
    kept.repository.close()
    kept.repository = Repository.open(tmp_path / "data/store")  # without an object store
    kept.write(1)
    kept.reopen()
    kept.write(1)
    settle(kept.offsite)
    for repository in kept.recovered():
        kept.check(repository)
    kept.repository.close()


def test_a_store_that_is_in_step_writes_nothing_at_its_start(kept: Kept) -> None:
    kept.write(1)
    settle(kept.offsite)
    before = {found.name for found in kept.objects.list("pageserver/catalog/")}
    kept.reopen()
    settle(kept.offsite)
    assert {found.name for found in kept.objects.list("pageserver/catalog/")} == before
    assert kept.offsite.durable_lsn(key_of(kept, 1)) == kept.models[1].durable


def test_a_stalled_one_changes_nothing_that_counts(kept: Kept, tmp_path: Path) -> None:
    kept.write(1)
    settle(kept.offsite)
    recover(kept.objects, tmp_path / "successor")
    before = layer_objects(kept.objects)
    durable = kept.offsite.durable_lsn(key_of(kept, 1))
    kept.write(1)
    kept.compact(1)
    kept.offsite.take()
    upload_all(kept.offsite)
    kept.offsite.take()
    with pytest.raises(FailedPrecondition, match="taken over"):
        kept.offsite.journal()
    kept.offsite.clean()
    assert before <= layer_objects(kept.objects), "nothing was deleted"
    assert kept.offsite.durable_lsn(key_of(kept, 1)) == durable, "no WAL is released"
    with pytest.raises(FailedPrecondition, match="taken over"):
        kept.offsite.check()


def test_an_older_copy_of_the_catalog_is_refused(kept: Kept, tmp_path: Path) -> None:
    kept.write(1)
    kept.repository.close()
    older = (kept.directory / "store/catalog.lmdb").read_bytes()
    kept.open()
    kept.write(1)
    settle(kept.offsite)
    kept.repository.close()
    (kept.directory / "store/catalog.lmdb").write_bytes(older)
    (kept.directory / "store/catalog.lmdb-generation").unlink()
    with pytest.raises(DataLoss, match="older copy"):
        kept.open()


def test_a_damaged_file_is_not_put_there(kept: Kept) -> None:
    settle(kept.offsite)
    kept.write(1)
    path = next(kept.timeline(1).directory.glob("*.delta"))
    flip(path)
    kept.offsite.take()
    key = kept.offsite.next_layer()
    assert key is not None
    with pytest.raises(DataLoss, match=path.name):
        kept.offsite.upload(key)
    kept.offsite.give_back(key)
    assert kept.offsite.next_layer() == key
    assert kept.offsite.behind().layers == 1


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[130] ^= 1
    path.write_bytes(raw)


def test_a_damaged_file_that_is_there_is_fetched_anew_by_a_read(kept: Kept) -> None:
    kept.write(1)
    settle(kept.offsite)
    kept.reopen()
    path = next(kept.timeline(1).directory.glob("*.delta"))
    whole = path.read_bytes()
    flip(path)
    kept.check()
    assert path.read_bytes() != whole
    kept.offsite.mend()
    assert path.read_bytes() == whole
    kept.check()


def test_a_scrub_fetches_anew_what_is_damaged_here(kept: Kept) -> None:
    kept.write(1)
    settle(kept.offsite)
    whole, path = path_and_bytes(kept)
    flip(path)
    (found,) = [item for item in kept.repository.scrub(None) if item.path == str(path)]
    assert found.failure is None
    assert found.repaired is not None
    assert path.name in found.repaired.message
    assert path.read_bytes() == whole
    path.unlink()
    assert any(item.repaired for item in kept.repository.scrub(None))
    assert not any(item.repaired or item.failure for item in kept.repository.scrub(None))


def path_and_bytes(kept: Kept) -> tuple[bytes, Path]:
    path = next(kept.timeline(1).directory.glob("*.delta"))
    return path.read_bytes(), path


def test_a_scrub_looks_at_objects_where_it_is_asked_to(kept: Kept) -> None:
    kept.write(1)
    settle(kept.offsite)
    evict_all(kept.repository, kept.offsite)
    assert not list(kept.repository.scrub(None)), "nothing is here"
    found = list(kept.repository.scrub(None, objects=True))
    assert len(found) == 2
    assert not any(item.failure for item in found)
    first, second = sorted(layer_objects(kept.objects))
    kept.objects.delete([first])
    raw = bytearray(kept.objects.get(second))
    raw[200] ^= 1
    kept.objects.delete([second])
    kept.objects.create(second, bytes(raw))
    failures = [item.failure for item in kept.repository.scrub(None, objects=True)]
    assert [failure.code for failure in failures if failure] == ["DATA_LOSS"] * 2
    assert all(item.readers for item in kept.repository.scrub(None, objects=True))
    with pytest.raises(DataLoss), store_errors():
        kept.timeline(1).files()[0].verify()


def test_a_read_while_the_object_store_is_away_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "AWAY_SECONDS", 600.0)
    objects, backend, _ = faulty()
    kept = Kept(tmp_path / "data", objects)
    kept.write(1)
    settle(kept.offsite)
    evict_all(kept.repository, kept.offsite)
    backend.before = fail
    with pytest.raises(Unavailable) as raised, store_errors():
        kept.check()
    assert raised.value.reason == "OBJECT_STORE_UNAVAILABLE"
    before = backend.requests
    with pytest.raises(Unavailable), store_errors():
        kept.check()
    assert backend.requests == before, "told at once"
    kept.repository.close()


def test_what_was_being_evicted_when_the_power_went_goes(kept: Kept) -> None:
    kept.write(1)
    settle(kept.offsite)
    path = next(kept.timeline(1).directory.glob("*.delta"))
    raw = path.read_bytes()
    evict_all(kept.repository, kept.offsite)
    path.write_bytes(raw)
    kept.reopen()
    kept.repository.sweep()
    assert not path.exists()
    assert not (kept.directory / "store/lost+found").exists()
    kept.check()


class PowerLost(BaseException):
    """Not an Exception: no clean-up code runs after it."""


def tell(kept: Kept) -> None:
    """A little of everything, put there after each step."""
    kept.write(1)
    settle(kept.offsite)
    kept.branch(1, 2)
    kept.write(2)
    kept.write(1)
    settle(kept.offsite)
    kept.compact(1)
    settle(kept.offsite)
    evict_all(kept.repository, kept.offsite)
    kept.write(1)
    kept.compact(1)
    settle(kept.offsite)
    kept.repository.delete(DEFAULT_TENANT, timeline_id(2))
    del kept.models[2]
    settle(kept.offsite)


class Writes:
    """Counts the requests that change something; the power goes at the last one."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, _: int, verb: str, name: str) -> None:
        self.left -= verb in ("create", "delete") and not name.startswith("race/")
        if self.left == 0:
            self.left = -1
            raise PowerLost


def writes_of_a_story(tmp_path: Path, moment: str) -> int:
    objects, backend, _ = faulty()
    counted = Writes(10**6)
    setattr(backend, moment, counted)
    kept = Kept(tmp_path / "told", objects)
    tell(kept)
    kept.repository.close()
    return 10**6 - counted.left


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_power_goes_at_each_request(tmp_path: Path, moment: str) -> None:
    """Recovered, it is as it was when it was last told to be durable, or later; and the store
    that was here goes on as if nothing had been."""
    total = writes_of_a_story(tmp_path, moment)
    assert total > 15
    for number in range(1, total + 1):
        objects, backend, _ = faulty()
        kept = Kept.__new__(Kept)
        setattr(backend, moment, Writes(number))
        try:
            kept.__init__(tmp_path / f"{moment}-{number}", objects)  # type: ignore[misc]
            tell(kept)
        except (PowerLost, NativeError, PagestoreError):
            pass  # a fetch cannot hand on what is no error
        setattr(backend, moment, lambda *_: None)
        check_both(kept, backend)


def check_both(kept: Kept, backend: Memory) -> None:
    durable = {
        number: kept.offsite.durable_lsn(key_of(kept, number))
        for number in getattr(kept, "models", {})
    }
    if any(durable.values()):
        directory = kept.directory.with_name(f"{kept.directory.name}-recovered")
        copy, there, _ = faulty()
        there.objects = dict(backend.objects)
        recover(copy, directory)
        repository = Repository.open(directory / "store", objects=copy)
        for number, lsn in durable.items():
            try:
                found = repository.get(DEFAULT_TENANT, timeline_id(number))
            except PagestoreError:
                assert lsn == 0, "it was there"
                continue
            assert found.last_record_lsn >= lsn
            check(found.snapshot(), kept.models[number], min(lsn, kept.models[number].last))
        repository.close()
    if not hasattr(kept, "models"):
        if hasattr(kept, "repository"):
            kept.repository.close()
        return
    kept.reopen()
    settle(kept.offsite)
    kept.check()
    kept.repository.close()


def test_only_one_of_two_may_claim(kept: Kept, tmp_path: Path) -> None:
    settle(kept.offsite)
    (tmp_path / "stranger").mkdir()
    with pytest.raises(FailedPrecondition) as raised:
        claim(kept.objects, "pageserver", tmp_path / "stranger")
    assert raised.value.reason == "OBJECT_STORE_CLAIMED"


def test_a_file_name_carries_the_generation_that_wrote_it(kept: Kept) -> None:
    kept.write(1)
    settle(kept.offsite)
    listed = kept.repository.store.catalog.layers(*key_of(kept, 1))
    assert [entry.generation for _, entry in listed] == [1, 1]
    kept.reopen()
    kept.write(1)
    settle(kept.offsite)
    listed = kept.repository.store.catalog.layers(*key_of(kept, 1))
    number, entry = listed[-1]
    assert entry.generation == 2
    assert layer_name(number, 1).replace(".", "-00000002.") in {
        name.rpartition("/")[2] for name in layer_objects(kept.objects)
    }


def test_a_store_over_the_wire(tmp_path: Path) -> None:
    with s3.moto() as environ:
        bucket = f"offsite-{secrets.token_hex(4)}"
        s3.make_bucket(environ, bucket)
        kept = Kept(tmp_path / "data", ObjectStore.open(f"s3://{bucket}/wire", environ))
        kept.write(1)
        kept.branch(1, 2)
        kept.write(2)
        settle(kept.offsite)
        assert evict_all(kept.repository, kept.offsite) > 0
        kept.check()
        assert not any(item.failure for item in kept.repository.scrub(None, objects=True))
        kept.compact(1)
        settle(kept.offsite)
        kept.offsite.clean()
        kept.check()
        for repository in kept.recovered():
            kept.check(repository)
        kept.repository.close()


def test_one_asks_a_store_that_is_silent_and_the_others_are_told_so(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(elsewhere, "AWAY_SECONDS", 0.0)
    store, backend, _ = faulty()
    kept = Kept(tmp_path / "data", store)
    kept.write(1)
    settle(kept.offsite)
    evict_all(kept.repository, kept.offsite)
    away = kept.repository.store.elsewhere
    assert away is not None
    ((number, entry),) = kept.repository.store.catalog.layers(DEFAULT_TENANT, timeline_id(1))[1:]
    asked = layer_key(DEFAULT_TENANT, timeline_id(1), number), entry, 0, 16

    def silent(number: int, verb: str, name: str) -> None:
        raise GenericError("it is silent")

    def within(number: int, verb: str, name: str) -> None:
        """What another reader is told while this one is waiting for an answer."""
        with pytest.raises(Unavailable, match="a moment ago"):
            away.read(*asked)
        raise GenericError("it is silent")

    backend.before = silent
    with pytest.raises(Unavailable, match="it is silent"):
        away.read(*asked)
    assert "it is silent" in away.trouble
    backend.before = within
    with pytest.raises(Unavailable, match="it is silent"):
        away.read(*asked)
    backend.before = lambda number, verb, name: None
    assert len(away.read(*asked)) == 16
    assert away.trouble == ""
    kept.repository.close()
