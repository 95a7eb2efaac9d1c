"""A scrub reads every file once, and says of a damaged one who reads through it."""

from __future__ import annotations

from pathlib import Path

from pagestore.ids import DEFAULT_TENANT
from pagestore.layers.files import layer_name
from pagestore.timeline.scrub import Scrubbed

from .model import ROOT_LSN, compact, timeline_id
from .test_replacing import Pair


def scrubbed(pair: Pair) -> dict[str, Scrubbed]:
    found = [*pair.repository.scrub(None)]
    by_path = {item.path: item for item in found}
    assert len(by_path) == len(found), "each file once"
    return by_path


def flip(path: str) -> None:
    raw = bytearray(Path(path).read_bytes())
    raw[130] ^= 1
    Path(path).write_bytes(raw)


def test_a_whole_store_is_whole(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    found = scrubbed(pair)
    assert sorted(found) == sorted(str(path) for path in tmp_path.rglob("*.[di][em]*a*"))
    assert len(found) == 8
    assert not any(item.failure for item in found.values())
    assert sum(item.entry.summary.bytes for item in found.values()) > 0
    pair.repository.close()


def test_a_damaged_file_names_those_that_read_through_it(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    layers = {Path(layer.path).name: layer.path for layer in pair.root.files()}
    for number in (2, 6):
        flip(layers[layer_name(number, 1)])
    own = pair.child.files()[0].path
    Path(own).unlink()
    pair.repository.delete(DEFAULT_TENANT, timeline_id(1))
    damaged = {path: item for path, item in scrubbed(pair).items() if item.failure}
    # The child left at ROOT_LSN + 25, so that it needs the second file, and not the last.
    readers = {path: item.readers for path, item in damaged.items()}
    child = (timeline_id(2),)
    assert readers[layers[layer_name(2, 1)]] == child, "the deleted parent reads nothing any more"
    assert readers[own] == child
    assert readers.get(layers[layer_name(6, 1)], ()) == ()
    pair.repository.close()


def test_what_was_replaced_meanwhile_is_no_damage(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    walk = pair.repository.scrub(None)
    first = next(walk)
    assert first.entry.summary.first_lsn == ROOT_LSN
    compact(pair.root, pair.root_model)
    assert not [item for item in walk if item.failure]
    pair.repository.close()
