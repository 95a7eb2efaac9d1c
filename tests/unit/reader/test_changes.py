"""Which blocks were changed between two LSNs, whatever the layers are by now."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore.keyspace import Fork, Kind, ValueKind
from pagestore.reader.changes import ChangedRelation, changed_blocks
from pagestore.timeline import Repository, Timeline
from tests.unit.timeline.model import ROOT_LSN, batch_of, image, make_root, put

RELATIONS = 3
BLOCKS = 12
Changed = dict[int, set[int]]


def page(lsn: int, fill: int) -> bytes:
    """As Postgres begins it: with the LSN of its last change."""
    return (
        (lsn >> 32).to_bytes(4, "little")
        + (lsn & 0xFFFFFFFF).to_bytes(4, "little")
        + bytes([fill % 251]) * 8184
    )


def block(rel: int, number: int) -> keyspace.Key:
    return keyspace.rel_block(1663, 5, rel, Fork.MAIN, number)


def found(timeline: Timeline, after: int, lsn: int) -> Changed:
    told = changed_blocks(timeline.snapshot(), after, lsn)
    assert all(place[:2] == (1663, 5) for place, _ in told)
    assert all(blocks.tolist() == sorted(blocks.tolist()) for _, blocks in told)
    return {place.rel: set(blocks.tolist()) for place, blocks in told}


@pytest.mark.parametrize("seed", range(6))
def test_every_block_that_was_changed_is_told_and_no_other(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    repository = Repository.open(tmp_path)
    first = [
        image(block(rel, number), ROOT_LSN, page(ROOT_LSN, number))
        for rel in range(RELATIONS)
        for number in range(BLOCKS)
    ]
    root = make_root(repository, 1, first)
    history: list[tuple[int, int, int]] = []
    lsn = ROOT_LSN
    for _ in range(120):
        lsn += rng.randrange(1, 9)
        rel, number = rng.randrange(RELATIONS), rng.randrange(BLOCKS)
        history.append((lsn, rel, number))
        kind = rng.choice([ValueKind.RECORD, ValueKind.IMAGE, ValueKind.TOMBSTONE])
        value = {
            ValueKind.RECORD: b"record",
            ValueKind.IMAGE: page(lsn, number),
            ValueKind.TOMBSTONE: b"",
        }[kind]
        other = keyspace.rel_block(1663, 5, rel, Fork.FSM, number).pack()
        entries = [
            (block(rel, number).pack(), lsn, kind, 0, value),
            (other, lsn, ValueKind.IMAGE, 0, page(lsn, number)),
        ]
        put(root, entries, lsn)
        if rng.random() < 0.2:
            root.freeze()
            root.flush()
    for _ in range(40):
        after = rng.randrange(ROOT_LSN, lsn)
        upto = rng.randrange(after, lsn + 1)
        expected: Changed = {}
        for at, rel, number in history:
            if after < at <= upto:
                expected.setdefault(rel, set()).add(number)
        assert found(root, after, upto) == expected, (after, upto)
    repository.close()


def test_a_page_that_was_only_written_anew_is_not_told(tmp_path: Path) -> None:
    """A pass of images stands at one LSN, and each page in it says when it was changed."""
    repository = Repository.open(tmp_path)
    root = make_root(
        repository, 1, [image(block(0, n), ROOT_LSN, page(ROOT_LSN, n)) for n in range(3)]
    )
    changed = ROOT_LSN + 10
    put(root, [image(block(0, 1), changed, page(changed, 1))], changed)
    put(root, [], ROOT_LSN + 50)
    root.freeze()
    root.flush()
    with_images(root, ROOT_LSN + 50, {0: ROOT_LSN, 1: changed, 2: 0})
    assert found(root, ROOT_LSN, ROOT_LSN + 50) == {0: {1, 2}}, "2 was never logged"
    assert found(root, changed, ROOT_LSN + 50) == {0: {2}}
    repository.close()


def with_images(timeline: Timeline, lsn: int, pages: dict[int, int]) -> None:
    from pagestore._native import LayerWriter
    from pagestore.layers.files import layer_name
    from pagestore.timeline.entries import LayerEntry

    number = timeline.reserve_number()
    path = timeline.directory / layer_name(number, 2)
    writer = LayerWriter(path, timeline.tenant_id.raw, timeline.timeline_id.raw, number, 2)
    entries = [image(block(0, n), lsn, page(of, n)) for n, of in pages.items()]
    writer.put(batch_of(entries))
    timeline.replace_layers([], [(number, LayerEntry.fresh(writer.finish(), 1))])


def test_nothing_was_changed_in_no_time(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path)
    root = make_root(repository, 1, [image(block(0, 0), ROOT_LSN, page(ROOT_LSN, 0))])
    assert changed_blocks(root.snapshot(), ROOT_LSN, ROOT_LSN) == []
    with pytest.raises(ValueError, match="LSN 0"):
        root.snapshot().changed_keys(*keyspace.kind_range(Kind.REL_BLOCK), 0, ROOT_LSN)
    assert ChangedRelation(1663, 5, 0) == (1663, 5, 0)
    repository.close()
