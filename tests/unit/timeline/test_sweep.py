"""What no record names is out of the way before it matters, and never deleted."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from pagestore import keyspace, lost_found
from pagestore.errors import ResourceExhausted
from pagestore.ids import DEFAULT_TENANT
from pagestore.layers.files import layer_name
from pagestore.timeline import Repository, Timeline

from .model import ROOT_LSN, image, make_root, put, timeline_id

STRAY = b"a layer that a newer catalog named"
KEY = keyspace.rel_size(1, 2, 1, 0)


def write(timeline: Timeline) -> None:
    last = timeline.last_record_lsn
    put(timeline, [image(KEY, last + 5, b"%d" % last)], last + 10)
    timeline.freeze()
    timeline.flush()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A root with a branch that has a layer, and a stray file beside it, next in number."""
    repository = Repository.open(tmp_path)
    make_root(repository, 1, [image(KEY, ROOT_LSN, b"root")])
    write(repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), ROOT_LSN))
    repository.close()
    (directory(tmp_path, 2) / layer_name(2, 1)).write_bytes(STRAY)
    return tmp_path


def directory(root: Path, number: int) -> Path:
    return root / str(DEFAULT_TENANT) / str(timeline_id(number))


def aside(root: Path) -> list[bytes]:
    return [item.path.read_bytes() for item in lost_found.found(root)]


def test_opening_leaves_a_timelines_directory_for_later(store: Path) -> None:
    repository = Repository.open(store)
    assert aside(store) == []
    repository.sweep()
    assert aside(store) == [STRAY]
    repository.sweep()
    repository.close()


def test_a_new_layer_takes_no_strays_place(store: Path) -> None:
    repository = Repository.open(store)
    child = repository.get(DEFAULT_TENANT, timeline_id(2))
    write(child)
    assert aside(store) == [STRAY]
    names = sorted(path.name for path in directory(store, 2).iterdir())
    assert names == [layer_name(1, 1), layer_name(2, 1)]
    repository.sweep()
    assert child.snapshot().get(KEY.pack(), child.last_record_lsn) == b"%d" % (ROOT_LSN + 10)
    assert sorted(path.name for path in directory(store, 2).iterdir()) == names
    repository.close()


@pytest.mark.parametrize("swept", [False, True])
def test_a_stray_does_not_go_with_its_timeline(store: Path, swept: bool) -> None:
    repository = Repository.open(store)
    if swept:
        repository.sweep()
    repository.delete(DEFAULT_TENANT, timeline_id(2))
    assert aside(store) == [STRAY]
    assert not directory(store, 2).exists()
    repository.close()


def test_a_hidden_parents_stray_does_not_go_with_its_last_child(store: Path) -> None:
    (directory(store, 1) / layer_name(9, 1)).write_bytes(b"of the parent")
    repository = Repository.open(store)
    repository.delete(DEFAULT_TENANT, timeline_id(1))
    repository.close()
    (directory(store, 1) / layer_name(8, 1)).write_bytes(b"come later")
    repository = Repository.open(store)
    repository.delete(DEFAULT_TENANT, timeline_id(2))
    assert sorted(aside(store)) == sorted([STRAY, b"come later", b"of the parent"])
    assert not directory(store, 1).exists()
    repository.close()


def test_what_is_being_written_is_left_alone(store: Path) -> None:
    """Flushes, branches and deletions all the while: only the stray is moved."""
    repository = Repository.open(store)
    for number in range(10, 40):
        write(repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(number), ROOT_LSN))
    repository.close()
    repository = Repository.open(store)
    failed: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, 40, 3):
                timeline = repository.get(DEFAULT_TENANT, timeline_id(number))
                for _ in range(3):
                    write(timeline)
                if number % 2:
                    repository.delete(DEFAULT_TENANT, timeline_id(number))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (10, 11, 12)]
    threads.append(threading.Thread(target=repository.sweep))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    repository.sweep()
    assert aside(store) == [STRAY]
    for number in range(10, 40, 2):
        timeline = repository.get(DEFAULT_TENANT, timeline_id(number))
        assert len(list(timeline.directory.iterdir())) == timeline.layer_count == 4
    repository.close()


def test_a_sweep_passes_over_what_it_cannot_move_and_a_flush_is_told(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(root: Path, path: Path, now: float) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    (directory(store, 1) / "a stranger").write_bytes(b"strange")
    repository = Repository.open(store)
    with monkeypatch.context() as patched:
        patched.setattr(lost_found, "move_aside", full)
        repository.sweep()
        child = repository.get(DEFAULT_TENANT, timeline_id(2))
        with pytest.raises(ResourceExhausted):
            write(child)
        assert (directory(store, 2) / layer_name(2, 1)).read_bytes() == STRAY
    child.flush()
    assert aside(store) == [STRAY]
    repository.sweep()
    assert sorted(aside(store)) == sorted([STRAY, b"strange"])
    repository.close()


def test_closing_ends_a_sweep(store: Path) -> None:
    repository = Repository.open(store)
    repository.close()
    repository.sweep()  # as a thread would that was beginning
    assert aside(store) == []
