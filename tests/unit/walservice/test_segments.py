"""Finding a log's end after a crash, aligning LSNs, and naming damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagestore._native import NativeError, WalWriter
from pagestore.consensus.acceptor import WalPosition
from pagestore.errors import DataLoss
from pagestore.pgformat.wal import lay_out, record_bytes
from pagestore.walservice import segments

SYSTEM_ID = 42
XLOG_NOOP = 0x20
SEGMENT = 16 << 20


class Log:
    """WAL of records of given body lengths, from `start` on."""

    def __init__(self, start: int, *lengths: int) -> None:
        self.start = WalPosition(start, 0)
        self.ends = [self.start]
        self.data = b""
        for number, length in enumerate(lengths):
            self.add(bytes((number + i) % 251 + 1 for i in range(length)))

    def add(self, body: bytes, info: int = XLOG_NOOP) -> None:
        at = self.ends[-1]
        record = record_bytes(0, info, 0, at.prev_record_lsn, body)
        data, record_lsn, end = lay_out(at.flush_lsn, record, system_id=SYSTEM_ID)
        self.data += data
        self.ends.append(WalPosition(end, record_lsn))

    @property
    def end(self) -> WalPosition:
        return self.ends[-1]

    def bytes_to(self, lsn: int) -> bytes:
        return self.data[: lsn - self.start.flush_lsn]


def write(directory: Path, log: Log) -> None:
    writer = WalWriter(str(directory), log.start.flush_lsn, log.start.flush_lsn)
    writer.append(log.start.flush_lsn, log.data)
    assert WalPosition(*writer.position[:2]) == log.end
    writer.close()


def spoil(directory: Path, lsn: int, data: bytes) -> None:
    with segments.segment_path(directory, lsn).open("r+b") as file:
        file.seek(lsn % SEGMENT)
        file.write(data)


STARTS = [SEGMENT + 40, SEGMENT + 8192, 2 * SEGMENT - 64, 2 * SEGMENT, 3 * SEGMENT + 100 * 8]


@pytest.mark.parametrize("start", STARTS)
def test_the_end_is_found_from_any_known_record(tmp_path: Path, start: int) -> None:
    log = Log(start, 8, 100, 9000, 1, 40000, 8168, 50)
    write(tmp_path, log)
    for known in log.ends:
        assert segments.find_end(tmp_path, known, log.start.flush_lsn) == log.end
    assert segments.read_range(tmp_path, start, log.end.flush_lsn) == log.data


def test_a_record_larger_than_the_window_is_found(tmp_path: Path) -> None:
    log = Log(SEGMENT + 8192, 100, 5 << 18, 10)
    write(tmp_path, log)
    assert segments.find_end(tmp_path, log.start, log.start.flush_lsn) == log.end


def test_every_torn_tail_ends_at_a_record(tmp_path: Path) -> None:
    log = Log(SEGMENT + 8192 * 2 - 200, 30, 300, 9000, 20)
    write(tmp_path, log)
    for cut in range(log.end.flush_lsn - 1, log.start.flush_lsn, -307):
        spoil(tmp_path, cut, bytes(log.end.flush_lsn - cut))
        expected = max(at for at in log.ends if at.flush_lsn <= cut)
        # Zeros may be what the record's last bytes are, its padding for one.
        found = segments.find_end(tmp_path, log.start, log.start.flush_lsn)
        following = log.ends[log.ends.index(expected) + 1]
        assert found == expected or (found == following and following.flush_lsn <= cut + 8)


def test_a_cut_log_is_continued_and_the_rest_is_zeros(tmp_path: Path) -> None:
    log = Log(SEGMENT + 8192, *[1000] * 20)
    write(tmp_path, log)
    cut = log.ends[7]
    writer = WalWriter(str(tmp_path), log.start.flush_lsn, cut.flush_lsn, cut.prev_record_lsn)
    other = record_bytes(0, XLOG_NOOP, 0, cut.prev_record_lsn, b"other")
    data, record_lsn, end = lay_out(cut.flush_lsn, other, system_id=SYSTEM_ID)
    writer.append(cut.flush_lsn, data)
    writer.close()
    assert segments.find_end(tmp_path, log.start, log.start.flush_lsn) == WalPosition(
        end, record_lsn
    )
    raw = segments.segment_path(tmp_path, end).read_bytes()
    assert raw[end % SEGMENT :] == bytes(SEGMENT - end % SEGMENT)


def test_later_segments_go_with_a_cut(tmp_path: Path) -> None:
    log = Log(2 * SEGMENT - 8192, 100, 100, 20000, 10)
    write(tmp_path, log)
    assert len(list(tmp_path.iterdir())) == 2
    cut = log.ends[2]
    writer = WalWriter(str(tmp_path), log.start.flush_lsn, cut.flush_lsn, cut.prev_record_lsn)
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == [f"{1:08X}{0:08X}{1:08X}"]
    assert segments.find_end(tmp_path, log.start, log.start.flush_lsn) == cut


def test_lsns_align_to_the_record_below(tmp_path: Path) -> None:
    log = Log(SEGMENT + 8192 * 3 + 800, 10, 100, 30000, 7, 8000, 8200, 40, 60)
    write(tmp_path, log)
    first, last = log.start.flush_lsn, log.end.flush_lsn
    for lsn in [*range(first, last, 61), last, *(end.flush_lsn for end in log.ends)]:
        expected = max(end for end in log.ends if end.flush_lsn <= lsn)
        assert segments.align(tmp_path, log.start, log.end, lsn) == expected, lsn - first


def test_a_switch_ends_with_its_segment(tmp_path: Path) -> None:
    log = Log(SEGMENT + 8192, 100)
    log.add(b"", info=0x40)
    switched = log.ends.pop()
    log.data += bytes(2 * SEGMENT - switched.flush_lsn)
    log.ends.append(WalPosition(2 * SEGMENT, switched.prev_record_lsn))
    log.add(b"behind")
    write(tmp_path, log)
    assert segments.find_end(tmp_path, log.start, log.start.flush_lsn) == log.end
    middle = switched.flush_lsn + 100000
    assert segments.align(tmp_path, log.start, log.end, middle) == log.ends[1]


@pytest.mark.parametrize("number", [2, 5, 17])
@pytest.mark.parametrize("offset", [0, 9, 21, 30])
def test_a_flipped_byte_is_damage_not_an_end(tmp_path: Path, number: int, offset: int) -> None:
    """What was written whole and acknowledged is never taken for a torn tail."""
    log = Log(SEGMENT + 8192, *[700] * 20)
    write(tmp_path, log)
    at = log.ends[number + 1].prev_record_lsn + offset
    was = log.data[at - log.start.flush_lsn]
    spoil(tmp_path, at, bytes([was ^ 0x10]))
    with pytest.raises(DataLoss, match="is damaged") as damage:
        segments.find_end(tmp_path, log.start, log.start.flush_lsn)
    assert damage.value.reason == "SEGMENT_DAMAGED"


def test_sectors_never_written_are_a_torn_tail(tmp_path: Path) -> None:
    """A power failure may keep later sectors of what no sync had covered."""
    log = Log(SEGMENT + 8192, *[1500] * 20)
    write(tmp_path, log)
    hole = (log.ends[5].flush_lsn // 512 + 1) * 512
    spoil(tmp_path, hole, bytes(512))
    assert segments.find_end(tmp_path, log.start, log.start.flush_lsn) == log.ends[5]


@pytest.mark.parametrize("fault", ["missing", "short", "long"])
def test_a_segment_that_is_not_whole_is_named(tmp_path: Path, fault: str) -> None:
    log = Log(SEGMENT + 8192, 100, 200)
    write(tmp_path, log)
    path = segments.segment_path(tmp_path, log.end.flush_lsn)
    if fault == "missing":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.truncate(SEGMENT - 1 if fault == "short" else SEGMENT + 1)
    with pytest.raises(DataLoss, match=path.name):
        segments.read_range(tmp_path, log.start.flush_lsn, log.end.flush_lsn)
    with pytest.raises(DataLoss, match=path.name):
        segments.find_end(tmp_path, log.end, log.start.flush_lsn)
    with pytest.raises(NativeError, match=path.name):
        WalWriter(str(tmp_path), log.start.flush_lsn, log.end.flush_lsn, log.end.prev_record_lsn)


def test_what_does_not_continue_the_log_is_not_written(tmp_path: Path) -> None:
    log = Log(SEGMENT + 8192, 100, 200)
    write(tmp_path, log)
    end = log.end
    stranger = record_bytes(0, XLOG_NOOP, 0, end.prev_record_lsn - 8, b"x")
    flipped = bytearray(record_bytes(0, XLOG_NOOP, 0, end.prev_record_lsn, b"x" * 10))
    flipped[30] ^= 1
    right, _, _ = lay_out(
        end.flush_lsn, record_bytes(0, XLOG_NOOP, 0, end.prev_record_lsn, b"y"), system_id=1
    )
    for data in (b"\0" * 64, bytes(stranger), bytes(flipped), right[:-8], b"\xff" * 9000):
        writer = WalWriter(str(tmp_path), log.start.flush_lsn, end.flush_lsn, end.prev_record_lsn)
        with pytest.raises(NativeError) as refusal:
            writer.append(end.flush_lsn, data)
        assert refusal.value.args[0] == -3
        with pytest.raises(NativeError):
            writer.append(end.flush_lsn, right)
        writer.close()
        assert segments.find_end(tmp_path, log.start, log.start.flush_lsn) == end
