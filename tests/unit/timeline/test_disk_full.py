"""A disk that is really full: a small tmpfs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore.errors import ResourceExhausted
from pagestore.ids import DEFAULT_TENANT
from pagestore.keyspace import PAGE_SIZE, ValueKind
from pagestore.timeline import Repository, Timeline
from tests.unit.layers.model import Entry

from .model import ROOT_LSN, ModelTimeline, check, image, make_root, put, timeline_id


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mount)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def pages(lsn: int, count: int) -> list[Entry]:
    return [
        (
            keyspace.rel_block(1, 2, 3, 0, block).pack(),
            lsn,
            ValueKind.IMAGE,
            0,
            os.urandom(PAGE_SIZE),
        )
        for block in range(count)
    ]


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, pytest.raises(OSError):  # noqa: PT012
        while True:
            file.write(bytes(65536))
            file.write(bytes(512))


def start(root: Path) -> tuple[Repository, Timeline, ModelTimeline]:
    repository = Repository.open(root)
    entries = [image(keyspace.rel_size(1, 2, 3, 0), ROOT_LSN, b"size")]
    timeline = make_root(repository, 1, entries)
    model = ModelTimeline(None, ROOT_LSN, ROOT_LSN, ROOT_LSN)
    model.own.put(entries)
    return repository, timeline, model


def test_a_flush_that_finds_no_room_says_so_and_resumes(small_disk: Path) -> None:
    repository, timeline, model = start(small_disk / "store")
    entries = pages(ROOT_LSN + 1, 20)
    put(timeline, entries, ROOT_LSN + 10)
    model.own.put(entries)
    fill(small_disk / "ballast")
    timeline.freeze()
    for _ in range(2):
        with pytest.raises(ResourceExhausted) as caught:
            timeline.flush()
        assert caught.value.reason == "STORE_FULL"
        assert caught.value.hint
        assert timeline.disk_consistent_lsn == ROOT_LSN
        check(timeline.snapshot(), model, ROOT_LSN + 10)
    assert not list(small_disk.glob("store/*/*/*.tmp"))
    with pytest.raises(ResourceExhausted):
        make_root(repository, 2, pages(ROOT_LSN, 20))
    assert not list(small_disk.glob(f"store/*/{timeline_id(2)}/*"))
    (small_disk / "ballast").unlink()
    timeline.flush()
    assert timeline.disk_consistent_lsn == ROOT_LSN + 10
    check(timeline.snapshot(), model, ROOT_LSN + 10)
    make_root(repository, 2, pages(ROOT_LSN, 20))
    repository.close()


def test_a_catalog_that_finds_no_room_says_so_and_resumes(small_disk: Path) -> None:
    repository, timeline, model = start(small_disk / "store")
    fill(small_disk / "ballast")
    made, refused = 1, False
    for number in range(2, 400):
        try:
            repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(number), ROOT_LSN)
        except ResourceExhausted as error:
            refused = error.reason == "STORE_FULL"
            break
        made = number
    assert refused
    check(timeline.snapshot(), model, ROOT_LSN)
    (small_disk / "ballast").unlink()
    repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(made + 1), ROOT_LSN)
    repository.close()
    reopened = Repository.open(small_disk / "store")
    assert len(reopened.list(DEFAULT_TENANT)) == made + 1
    reopened.close()
