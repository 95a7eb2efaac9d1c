"""What peers have said is there after a kill, slot by slot, whatever became of the others."""

from __future__ import annotations

from pathlib import Path

from pagestore.consensus.acceptor import Heard
from pagestore.consensus.members import Member
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.walservice.memory_of_peers import NAME, SLOT, MemoryOfPeers
from pagestore.walservice.watch import TimelineKey

KEYS = [TimelineKey(DEFAULT_TENANT, TimelineId(bytes([number]) * 16)) for number in range(1, 4)]
TOLD = Heard(Member(2, 77), 6, 5, 0x3000, 0x2000, 7)


def told(memory: MemoryOfPeers) -> dict[tuple[int, TimelineKey], Heard]:
    found = {(number, key): heard for number, key, heard in memory.load()}
    memory.close()
    return found


def filled(directory: Path) -> MemoryOfPeers:
    memory = MemoryOfPeers(directory)
    assert list(memory.load()) == []
    for key in KEYS:
        memory.keep(2, key, TOLD)
    return memory


def test_all_of_it_is_read_again_the_newest_word_of_each(tmp_path: Path) -> None:
    memory = filled(tmp_path)
    later = Heard(Member(2, 77), 8, 1, 0x4000, 0x4000, 8)
    memory.keep(2, KEYS[1], later)
    memory.keep(3, KEYS[1], TOLD)
    memory.close()
    found = told(MemoryOfPeers(tmp_path))
    assert found.keys() == {(2, KEYS[0]), (2, KEYS[1]), (2, KEYS[2]), (3, KEYS[1])}
    assert found[2, KEYS[1]] == later
    assert found[2, KEYS[0]] == TOLD


def test_a_place_that_is_free_is_used_again(tmp_path: Path) -> None:
    memory = filled(tmp_path)
    memory.forget(2, KEYS[0])
    memory.close()
    memory = MemoryOfPeers(tmp_path)
    assert len(list(memory.load())) == 2
    memory.keep(3, KEYS[0], TOLD)
    memory.close()
    assert (tmp_path / NAME).stat().st_size == 3 * SLOT
    assert told(MemoryOfPeers(tmp_path)).keys() == {(2, KEYS[1]), (2, KEYS[2]), (3, KEYS[0])}


def test_a_slot_that_is_torn_says_nothing_and_the_others_do(tmp_path: Path) -> None:
    filled(tmp_path).close()
    raw = bytearray((tmp_path / NAME).read_bytes())
    raw[SLOT + 70] ^= 1
    (tmp_path / NAME).write_bytes(raw[: 2 * SLOT + 40])
    assert told(MemoryOfPeers(tmp_path)).keys() == {(2, KEYS[0])}
