"""Names that are made once, errors that say what to do, and answers that were lost."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from obstore.exceptions import PermissionDeniedError

from pagestore.errors import AlreadyExists, FailedPrecondition, InvalidInput, NotFound, Unavailable
from pagestore.objects.backends import STALE_SECONDS
from pagestore.objects.claims import establish
from pagestore.objects.race import prove_conditional
from pagestore.objects.store import ATTEMPTS, ObjectStore
from tests.unit.objects.faulty import Memory, fail, faulty


def test_an_object_is_what_was_made(any_store: ObjectStore) -> None:
    any_store.create("a/b", b"0123456789")
    assert any_store.get("a/b") == b"0123456789"
    assert any_store.get_range("a/b", 3, 4) == b"3456"
    assert any_store.get_range("a/b", 8, 100) == b"89"
    assert any_store.get_range("a/b", 10, 5) == b""
    assert any_store.get_range("a/b", 4000, 5) == b""
    assert any_store.exists("a/b")
    assert not any_store.exists("a/c")


def test_what_is_not_there_is_not_found(any_store: ObjectStore) -> None:
    for ask in (lambda: any_store.get("a"), lambda: any_store.get_range("a", 0, 1)):
        with pytest.raises(NotFound) as told:
            ask()
        assert told.value.reason == "OBJECT_NOT_FOUND"


def test_a_name_is_made_once(any_store: ObjectStore) -> None:
    any_store.create("a", b"mine")
    with pytest.raises(AlreadyExists) as told:
        any_store.create("a", b"other")
    assert told.value.reason == "OBJECT_EXISTS"
    assert any_store.get("a") == b"mine"


def test_of_many_who_create_a_name_at_once_one_succeeds(any_store: ObjectStore) -> None:
    def create(mine: int) -> bool:
        try:
            any_store.create("contended", b"%d" % mine)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(create, range(8))) == 1


def test_a_list_is_in_the_order_of_names_and_of_what_is_below_only(any_store: ObjectStore) -> None:
    for name in ("x/2", "x/10", "x/1", "xy/1", "y"):
        any_store.create(name, b"-" * len(name))
    assert [(found.name, found.size) for found in any_store.list("x/")] == [
        ("x/1", 3),
        ("x/10", 4),
        ("x/2", 3),
    ]
    assert all(found.modified > 0 for found in any_store.list("x/"))


def test_to_ask_a_directory_that_is_not_there_does_not_make_it(tmp_path: Path) -> None:
    store = ObjectStore.open(f"file://{tmp_path}/not/there", {})
    store = store.hasty
    assert not store.exists("a")
    for ask in (
        lambda: store.list("x/"),
        lambda: store.delete(["a"]),
        lambda: store.create("a/b", b"x"),
    ):
        with pytest.raises(Unavailable):
            ask()
    assert not (tmp_path / "not").exists()
    establish(store)
    store.create("a/b", b"x")
    assert store.get("a/b") == b"x"


def test_what_is_deleted_may_be_missing(any_store: ObjectStore) -> None:
    any_store.create("x/1", b"a")
    any_store.delete(["x/1", "x/2", "none/at/all"])
    assert list(any_store.list("x/")) == []
    any_store.delete([])


@pytest.mark.parametrize("size", [0, 1, (20 << 20) + 3])
def test_a_file_goes_up_whole(any_store: ObjectStore, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    any_store.create_file("layers/one", path)
    assert any_store.get("layers/one") == path.read_bytes()
    any_store.create_file("layers/one", path)
    path.write_bytes(os.urandom(size + 1))
    with pytest.raises(AlreadyExists):
        any_store.create_file("layers/one", path)


def test_what_was_never_made_whole_is_not_listed_and_is_swept(
    store: ObjectStore, tmp_path: Path
) -> None:
    store.create("a/whole", b"x")
    left = tmp_path / "objects/a/torn#123"
    left.write_bytes(b"half")
    assert [found.name for found in store.list("a/")] == ["a/whole"]
    store.create("race/0123", b"of one that was killed")
    assert store.sweep(left.stat().st_mtime + 1) == 0
    assert store.sweep(left.stat().st_mtime + STALE_SECONDS + 60) == 2
    assert not left.exists()
    assert not store.exists("race/0123")
    assert store.get("a/whole") == b"x"


@pytest.mark.parametrize(
    "url",
    ["/a/b", "http://a/b", "file:///", "file://host/a", "s3://key:secret@bucket/a", "s3://b?x=1"],
)
def test_a_url_that_is_none_is_refused_and_no_secret_repeated(url: str) -> None:
    with pytest.raises(InvalidInput) as told:
        ObjectStore.open(url, {})
    assert told.value.reason == "OBJECT_STORE_URL"
    assert "secret" not in str(told.value)


def test_a_store_that_fails_for_a_while_is_asked_again_with_growing_pauses() -> None:
    store, backend, pauses = faulty()
    backend.before = lambda number, verb, name: number < 4 and fail(number, verb, name)
    store.create("a", b"x")
    assert backend.objects == {"a": b"x"}
    assert len(pauses) == 3
    assert all(0.05 * 2**i <= pause <= 0.1 * 2**i for i, pause in enumerate(pauses))


def test_a_store_that_goes_on_failing_is_unavailable() -> None:
    store, backend, _ = faulty()
    backend.before = fail
    with pytest.raises(Unavailable) as told:
        store.get("a")
    assert told.value.reason == "OBJECT_STORE_UNAVAILABLE"
    assert "503" in told.value.message
    assert backend.requests == ATTEMPTS


def test_a_create_whose_answer_was_lost_has_succeeded() -> None:
    store, backend, _ = faulty()
    backend.after = lambda number, verb, name: number == 1 and fail(number, verb, name)
    store.create("a", b"mine")
    assert backend.objects == {"a": b"mine"}


def test_a_create_whose_answer_was_lost_is_not_taken_for_anothers() -> None:
    store, backend, _ = faulty()
    backend.objects["a"] = b"his"
    backend.before = lambda number, verb, name: number == 1 and fail(number, verb, name)
    with pytest.raises(AlreadyExists):
        store.create("a", b"own")


def test_who_may_not_is_told_at_once() -> None:
    store, backend, pauses = faulty()

    def deny(number: int, verb: str, name: str) -> None:
        raise PermissionDeniedError("403")

    backend.before = deny
    with pytest.raises(FailedPrecondition) as told:
        store.create("a", b"")
    assert told.value.reason == "OBJECT_STORE_DENIED"
    assert not pauses


def test_a_store_proves_that_it_creates_conditionally(any_store: ObjectStore) -> None:
    prove_conditional(any_store)
    assert list(any_store.list("race/")) == []


def test_a_store_that_overwrites_is_refused() -> None:
    class Overwriting(Memory):
        def create(self, name: str, data: object) -> None:
            self.objects[name] = bytes(data)  # type: ignore[call-overload]

    with pytest.raises(FailedPrecondition) as told:
        prove_conditional(ObjectStore("memory", Overwriting()))
    assert told.value.reason == "OBJECT_STORE_UNCONDITIONAL"
