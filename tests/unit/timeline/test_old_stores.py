"""A store that an earlier version wrote opens, and says what it said then.

``store_2`` was written by the version of 30 November 2026 (format 2 of the catalog, the first that
found layers by their bounds): two roots of two tenants, a branch of a branch, and a parent that was
deleted while two branches read through it. ``says.json`` is what that version said of it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pagestore.ids import DEFAULT_TENANT
from pagestore.keyspace import rel_size
from pagestore.timeline import Repository
from pagestore.timeline.entries import Place

from .model import HIGH, LOW, image, put, timeline_id

STORE_2 = Path(__file__).parent / "store_2"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "pages"
    shutil.copytree(STORE_2, root, ignore=shutil.ignore_patterns("says.json"))
    return root


def says(root: Path) -> dict[str, Any]:
    repository = Repository.open(root)
    told: dict[str, Any] = {}
    try:
        for summary in repository.list(None):
            timeline = repository.get(summary.tenant_id, summary.timeline_id)
            moments = range(timeline.earliest_lsn, timeline.last_record_lsn + 1, 50)
            told[f"{summary.tenant_id}/{summary.timeline_id}"] = {
                "parent": str(summary.parent) if summary.parent else None,
                "branch_lsn": summary.branch_lsn,
                "last_record_lsn": summary.last_record_lsn,
                "prev_record_lsn": summary.prev_record_lsn,
                "disk_consistent_lsn": summary.disk_consistent_lsn,
                "layers": summary.layer_count,
                "created": summary.created,
                "files": sorted(
                    str(Path(layer.path).relative_to(root)) for layer in timeline.files()
                ),
                "reads": {
                    str(lsn): {
                        key.hex(): value.decode()
                        for key, value in timeline.snapshot().scan(LOW, HIGH, lsn)
                    }
                    for lsn in moments
                },
            }
    finally:
        repository.close()
    return told


def test_a_store_of_format_2_says_what_it_said(store: Path) -> None:
    expected = json.loads((STORE_2 / "says.json").read_text())
    assert len(expected) == 6
    for _ in range(2):
        assert says(store) == expected


def test_a_store_of_format_2_is_written_and_deleted_from(store: Path) -> None:
    before = says(store)
    repository = Repository.open(store)
    root = repository.get(DEFAULT_TENANT, timeline_id(1))
    put(root, [], 1500)
    root.flush()
    repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(9), 1400)
    for number in (5, 6):  # the last that read through the hidden one
        repository.delete(DEFAULT_TENANT, timeline_id(number))
    repository.close()
    after = says(store)
    gone = {f"{DEFAULT_TENANT}/{timeline_id(number)}" for number in (5, 6)}
    made = {f"{DEFAULT_TENANT}/{timeline_id(9)}"}
    assert set(after) == set(before) - gone | made
    assert not (store / str(DEFAULT_TENANT) / str(timeline_id(4))).exists()
    child = f"{DEFAULT_TENANT}/{timeline_id(2)}"
    assert after[child] == before[child]


def test_old_and_new_entries_stand_beside_each_other(store: Path) -> None:
    repository = Repository.open(store)
    catalog, root = repository._store.catalog, timeline_id(1)
    assert catalog.children(DEFAULT_TENANT, root) == [
        (timeline_id(2), 1150),
        (timeline_id(4), 1200),
    ]
    timeline = repository.get(DEFAULT_TENANT, root)
    put(timeline, [image(rel_size(1, 2, 1, 0), 1205, b"new")], 1210)
    timeline.freeze()
    timeline.flush()
    repository.branch(DEFAULT_TENANT, root, timeline_id(9), 1210)
    repository.close()
    repository = Repository.open(store)
    catalog = repository._store.catalog
    listed = catalog.layers(DEFAULT_TENANT, root)
    assert [number for number, _ in listed] == [1, 2, 3, 4]
    assert [layer.filter_bytes > 0 for _, layer in listed] == [False, False, False, True]
    assert {(layer.level, layer.generation, layer.place) for _, layer in listed} == {
        (0, 0, Place.LOCAL)
    }
    assert catalog.children(DEFAULT_TENANT, root)[-1] == (timeline_id(9), 1210)
    assert catalog.horizon(DEFAULT_TENANT, root) is None
    assert catalog.leases() == []
    assert repository.leases.take((DEFAULT_TENANT, root), 1100, 60)
    repository.close()
