"""Each file of a log × removed, truncated, flipped, an older copy, another's: named, or right.

The crash is real: a process is gone without a word, since a clean end would make all of it simple.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pagestore._native import WalWriter, crc32c
from pagestore.consensus.acceptor import Elect, TermSwitch
from pagestore.consensus.members import ALONE, UNCONFIGURED, Configuration, Member
from pagestore.errors import DataLoss, NotFound, PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.services.wal import WalService
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice import control_file, witness
from pagestore.walservice.safekeeper import Safekeeper, Settings
from pagestore.walservice.watch import TimelineKey
from tests.unit.walservice.test_segments import SEGMENT, Log

KEY = TimelineKey(DEFAULT_TENANT, TimelineId(b"t" * 16))
OTHER = TimelineKey(DEFAULT_TENANT, TimelineId(b"o" * 16))
START = SEGMENT + 8192
THREE = Configuration(1, (Member(1), Member(2), Member(3)))


def log_of(*lengths: int, fill: int = 0) -> Log:
    log = Log(START)
    for length in lengths:
        log.add(bytes((length + i + fill) % 251 + 1 for i in range(length)))
    return log


FULL = log_of(100, 2000, 9000, 300, 40)
STRANGER = log_of(100, 2000, 9000, 300, 40, fill=7)
"""A branch's parallel history: records of the same lengths at the same places."""


def directory(data_dir: Path, key: TimelineKey = KEY) -> Path:
    return data_dir / str(key.tenant) / str(key.timeline)


async def write(keeper: Safekeeper, log: Log, first: int, last: int, key: TimelineKey) -> None:
    """Appends records one by one, each durable, as commits are."""
    async with keeper.use(key) as timeline:
        if not timeline.state.term:
            await timeline.vote(1)
        for number in range(first, last):
            at, end = log.ends[number].flush_lsn, log.ends[number + 1].flush_lsn
            data = log.data[at - START : end - START]
            assert (await timeline.append(1, at, data)).position.flush_lsn == end


@pytest.fixture(params=["killed", "stopped"])
def ended(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A data directory with two logs, and an older copy of it of three records less. A kill
    leaves the control file as it was when the writing began."""
    now, before = tmp_path / "now", tmp_path / "before"

    async def main() -> None:
        keeper = await Safekeeper.open(now, Settings())
        for key, log in ((KEY, FULL), (OTHER, STRANGER)):
            await keeper.create(key, log.start, 42)
            await write(keeper, log, 0, 2, key)
        shutil.copytree(now, before)
        for key, log in ((KEY, FULL), (OTHER, STRANGER)):
            await write(keeper, log, 2, 5, key)
            async with keeper.use(key) as timeline:
                await timeline.release("page", log.ends[1].flush_lsn)
        if request.param == "killed":
            shutil.copytree(now, tmp_path / "killed")
        await keeper.close()

    asyncio.run(main())
    if request.param == "killed":
        shutil.rmtree(now)
        (tmp_path / "killed").rename(now)
    return now, before


def outcome(data_dir: Path, key: TimelineKey = KEY) -> str | int:
    """The reason that is given for a log, or how far it is committed."""

    async def main() -> str | int:
        keeper = await Safekeeper.open(data_dir, Settings())
        try:
            async with keeper.use(key) as timeline:
                return timeline.state.commit_lsn
        except PagestoreError as error:
            return error.reason
        finally:
            await keeper.close()

    return asyncio.run(main())


def segment(data_dir: Path, key: TimelineKey = KEY) -> Path:
    (found,) = (path for path in directory(data_dir, key).iterdir() if len(path.name) == 24)
    return found


def contents(data_dir: Path) -> dict[str, bytes]:
    """Of the log that is tried; the other may go on."""
    return {
        path.name: path.read_bytes()
        for path in directory(data_dir).iterdir()
        if not path.name.startswith(witness.NAME)
    }


def place(data_dir: Path, name: str) -> Path:
    return segment(data_dir) if name == "segment" else directory(data_dir) / name


def removed(path: Path, older: Path, other: Path) -> None:
    path.unlink()


def emptied(path: Path, older: Path, other: Path) -> None:
    path.write_bytes(b"")


def shortened(path: Path, older: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flipped(path: Path, older: Path, other: Path) -> None:
    raw = bytearray(path.read_bytes())
    # Inside the last record, or in the middle of a small file.
    raw[FULL.end.prev_record_lsn % SEGMENT + 30 if len(raw) == SEGMENT else 20] ^= 4
    path.write_bytes(bytes(raw))


def an_older_copy(path: Path, older: Path, other: Path) -> None:
    if older.exists():
        shutil.copy(older, path)
    else:
        path.unlink()


def of_another(path: Path, older: Path, other: Path) -> None:
    shutil.copy(other, path)


RIGHT = FULL.end.flush_lsn
TABLE = {
    ("segment", removed): "SEGMENT_DAMAGED",
    ("segment", emptied): "SEGMENT_DAMAGED",
    ("segment", shortened): "SEGMENT_DAMAGED",
    ("segment", flipped): "SEGMENT_DAMAGED",
    ("segment", an_older_copy): "SEGMENT_DAMAGED",
    ("segment", of_another): "SEGMENT_DAMAGED",
    ("control", removed): "CONTROL_MISSING",
    ("control", emptied): "CONTROL_DAMAGED",
    ("control", shortened): "CONTROL_DAMAGED",
    ("control", flipped): "CONTROL_DAMAGED",
    ("control", an_older_copy): "CONTROL_OUTDATED",
    ("control", of_another): "CONTROL_FOREIGN",
    ("horizon", removed): RIGHT,
    ("horizon", emptied): "HORIZON_DAMAGED",
    ("horizon", shortened): "HORIZON_DAMAGED",
    ("horizon", flipped): "HORIZON_DAMAGED",
    ("horizon", an_older_copy): RIGHT,
    ("horizon", of_another): "HORIZON_FOREIGN",
    ("witness", removed): RIGHT,
    ("witness", emptied): RIGHT,
    ("witness", shortened): RIGHT,
    ("witness", flipped): RIGHT,
    ("witness", an_older_copy): RIGHT,
    ("witness", of_another): RIGHT,
}


@pytest.mark.parametrize(("name", "harm"), TABLE, ids=lambda x: getattr(x, "__name__", x))
def test_what_was_replaced_is_named_and_nothing_is_cut(
    ended: tuple[Path, Path],
    name: str,
    harm: Callable[[Path, Path, Path], None],
) -> None:
    now, before = ended
    expected = TABLE[name, harm]
    path = place(now, name)
    other = directory(now, OTHER) / path.name
    whole = path.read_bytes()
    harm(path, directory(before) / path.name, other)
    if path.exists() and path.read_bytes() == whole:
        expected = RIGHT  # a kill leaves the control file as it was at the first append
    harmed = contents(now)
    assert outcome(now) == expected
    if expected != RIGHT:
        assert contents(now) == harmed, "what is refused is left as it is"
        assert outcome(now) == expected, "and stays refused"
    assert outcome(now, OTHER) == STRANGER.end.flush_lsn, "the others are served"


def test_a_whole_directory_from_before_is_told_by_who_has_more(ended: tuple[Path, Path]) -> None:
    """All its files fit each other; who has read on from there proves that they are old."""
    _, before = ended

    async def main() -> None:
        keeper = await Safekeeper.open(before, Settings())
        service = WalService(keeper)
        request = pb.ReadWalRequest(
            tenant_id=KEY.tenant.raw, timeline_id=KEY.timeline.raw, start_lsn=RIGHT
        )
        with pytest.raises(DataLoss) as refusal:
            await anext(service.read_wal(request, None))
        assert refusal.value.reason == "LOG_ROLLED_BACK"
        async with keeper.use(KEY) as timeline:
            assert timeline.last_error == refusal.value.message
            assert timeline.state.commit_lsn == FULL.ends[2].flush_lsn
        request.start_lsn = FULL.ends[2].flush_lsn
        assert [chunk async for chunk in service.read_wal(request, None)] == []
        await keeper.close()

    asyncio.run(main())


def test_a_second_older_control_file_that_was_itself_clean_is_known(
    ended: tuple[Path, Path],
) -> None:
    """A promise may have been given since: a vote is all that is between the two."""
    now, _ = ended

    async def vote() -> bytes:
        keeper = await Safekeeper.open(now, Settings())
        async with keeper.use(KEY) as timeline:
            before = (directory(now) / "control").read_bytes()
            await timeline.vote(9)
        await keeper.close()
        return before

    (directory(now) / "control").write_bytes(asyncio.run(vote()))
    assert outcome(now) == "CONTROL_OUTDATED"


def test_a_torn_tail_behind_the_durable_position_is_no_damage(tmp_path: Path) -> None:
    """What was arriving when the process died: the record's first half, and garbage."""

    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path / "run", Settings())
        await keeper.create(KEY, FULL.start, 42)
        await write(keeper, FULL, 0, 4, KEY)
        shutil.copytree(tmp_path / "run", tmp_path / "killed")
        await keeper.close()

    asyncio.run(main())
    at, end = FULL.ends[4].flush_lsn, FULL.end.flush_lsn
    for tail in (FULL.data[at - START : end - START - 12], b"\x50\0\0\0" + bytes(range(1, 60))):
        shutil.rmtree(tmp_path / "torn", ignore_errors=True)
        shutil.copytree(tmp_path / "killed", tmp_path / "torn")
        with segment(tmp_path / "torn").open("r+b") as file:
            file.seek(at % SEGMENT)
            file.write(tail)
        assert outcome(tmp_path / "torn") == at


def test_a_record_that_nobody_was_told_of_is_still_found(tmp_path: Path) -> None:
    """Synced, but the process died before it could say so: it is part of the log."""

    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path / "run", Settings())
        await keeper.create(KEY, FULL.start, 42)
        await write(keeper, FULL, 0, 4, KEY)
        shutil.copytree(tmp_path / "run", tmp_path / "killed")
        await write(keeper, FULL, 4, 5, KEY)
        await keeper.close()

    asyncio.run(main())
    shutil.copy(segment(tmp_path / "run"), segment(tmp_path / "killed"))
    assert outcome(tmp_path / "killed") == FULL.end.flush_lsn


def test_an_older_copy_is_known_although_the_whole_segment_was_noted_before(
    tmp_path: Path,
) -> None:
    """The control file notes where the log is once a segment; the witness each time."""

    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path / "run", Settings())
        await keeper.create(KEY, FULL.start, 42)
        await write(keeper, FULL, 0, 4, KEY)
        noted = control_file.read(directory(tmp_path / "run"), keeper.owner(KEY))
        assert noted.state.position == FULL.start, "so that it says nothing of the end"
        older = segment(tmp_path / "run").read_bytes()
        await write(keeper, FULL, 4, 5, KEY)
        shutil.copytree(tmp_path / "run", tmp_path / "killed")
        segment(tmp_path / "killed").write_bytes(older)
        await keeper.close()

    asyncio.run(main())
    assert outcome(tmp_path / "killed") == "SEGMENT_DAMAGED"


def test_what_an_election_cut_is_not_taken_for_lost(tmp_path: Path) -> None:
    """The witness has seen more than is left, in the epoch before."""
    begins = FULL.start.flush_lsn

    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path / "run", Settings())
        await keeper.create(KEY, FULL.start, 42, Member(1), THREE)
        async with keeper.use(KEY) as timeline:
            await timeline.vote(1)
            await timeline.elect(Elect(1, (TermSwitch(1, begins),), THREE))
        await write(keeper, FULL, 0, 5, KEY)
        async with keeper.use(KEY) as timeline:
            await timeline.vote(3)
            history = (
                TermSwitch(1, begins),
                TermSwitch(2, FULL.ends[2].flush_lsn),
                TermSwitch(3, RIGHT),
            )
            await timeline.elect(Elect(3, history, THREE))
            assert timeline.state.position.flush_lsn == FULL.ends[2].flush_lsn
            shutil.copytree(tmp_path / "run", tmp_path / "killed")
        await keeper.close()

    asyncio.run(main())
    for name in ("run", "killed"):
        seen = witness.read(directory(tmp_path / name), Safekeeper(tmp_path, Settings()).owner(KEY))
        assert seen is not None
        assert seen.position == FULL.end
        assert ended_at(tmp_path / name) == FULL.ends[2].flush_lsn


def ended_at(data_dir: Path) -> int:
    async def main() -> int:
        keeper = await Safekeeper.open(data_dir, Settings())
        async with keeper.use(KEY) as timeline:
            end = timeline.state.position.flush_lsn
        await keeper.close()
        return end

    return asyncio.run(main())


def test_a_cut_that_failed_first_is_no_damage_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The position fell in memory; whatever is written next must say so."""
    begins = FULL.start.flush_lsn

    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path, Settings())
        await keeper.create(KEY, FULL.start, 42, Member(1), THREE)
        async with keeper.use(KEY) as timeline:
            await timeline.vote(1)
            await timeline.elect(Elect(1, (TermSwitch(1, begins),), THREE))
        await write(keeper, FULL, 0, 5, KEY)
        history = (
            TermSwitch(1, begins),
            TermSwitch(2, FULL.ends[2].flush_lsn),
            TermSwitch(3, RIGHT),
        )
        async with keeper.use(KEY) as timeline:
            await timeline.vote(3)
            with monkeypatch.context() as patch:
                patch.setattr(control_file, "replace", refuse)
                with pytest.raises(PagestoreError):
                    await timeline.elect(Elect(3, history, THREE))
        await keeper.close()

    asyncio.run(main())
    assert ended_at(tmp_path) in (FULL.ends[2].flush_lsn, RIGHT)


def refuse(*arguments: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("version", [1, 3])
def test_old_directories_are_read_and_get_an_owner(tmp_path: Path, version: int) -> None:
    """Laid by hand as the versions before laid them: no owner, no witness."""
    there = directory(tmp_path)
    there.mkdir(parents=True)
    writer = WalWriter(str(there), START, START)
    writer.append(START, FULL.data)
    writer.close()
    head = struct.pack(
        "<8sIIQQQQQQQII", b"PSSKCTL\0", version, 1, 42, START, 0, 4, FULL.end.flush_lsn,
        FULL.end.prev_record_lsn, 0, 1, 0,
    )  # fmt: skip
    body = head + struct.pack("<QQ", 4, START)
    if version == 3:
        body += struct.pack("<QIIIQQ", 1, 1, 1, 0, 7, RIGHT) + struct.pack("<IQ", 1, 1)
    (there / "control").write_bytes(body + struct.pack("<I", crc32c(body)))
    (there / "horizon").write_bytes(old_horizon())
    assert outcome(tmp_path) == RIGHT

    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path, Settings())
        async with keeper.use(KEY) as timeline:
            expected = ALONE if version == 1 else Member(1)
            assert (timeline.state.member, timeline.state.term) == (expected, 4)
            assert (timeline.state.configuration == UNCONFIGURED) == (version == 1)
            await timeline.vote(5)
            await timeline.release("another", START)
        await keeper.close()
        control = control_file.read(there, keeper.owner(KEY))
        assert (control.state.term, control.revision) == (5, 1)
        assert control.record_crc != 0

    asyncio.run(main())
    moved = directory(tmp_path, OTHER)
    shutil.move(there, moved)
    assert outcome(tmp_path, OTHER) == "CONTROL_FOREIGN"


def old_horizon() -> bytes:
    body = struct.pack("<8sIIQ", b"PSSKHOR\0", 1, 1, 0) + struct.pack("<QI", START, 4) + b"page"
    return body + struct.pack("<I", crc32c(body))


def test_what_is_no_log_is_neither_removed_nor_in_the_way(tmp_path: Path) -> None:
    """An operator's copy beside a log kept the safekeeper from starting; other directories were
    removed."""

    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path, Settings())
        await keeper.create(KEY, FULL.start, 42)
        await write(keeper, FULL, 0, 5, KEY)
        await keeper.close()

    asyncio.run(main())
    tenant = directory(tmp_path).parent
    shutil.copytree(directory(tmp_path), tenant / f"{KEY.timeline}.bak")
    (tenant / "notes").mkdir()
    (tenant / "notes" / "precious").touch()
    (tenant / "file").touch()
    unfinished = tenant / ("a" * 32)
    unfinished.mkdir()
    (unfinished / "control.tmp").touch()
    assert outcome(tmp_path) == RIGHT
    assert (tenant / f"{KEY.timeline}.bak" / "control").exists()
    assert (tenant / "notes" / "precious").exists()
    assert not unfinished.exists(), "what a crash left of a creation"


def test_a_log_without_its_control_file_is_not_made_anew(tmp_path: Path) -> None:
    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path, Settings())
        await keeper.create(KEY, FULL.start, 42)
        await write(keeper, FULL, 0, 5, KEY)
        await keeper.close()
        (directory(tmp_path) / "control").unlink()
        keeper = await Safekeeper.open(tmp_path, Settings())
        with pytest.raises(DataLoss, match=str(directory(tmp_path))):
            await keeper.create(KEY, FULL.start, 42)
        await keeper.delete(KEY)
        with contextlib.suppress(NotFound):
            async with keeper.use(KEY):
                raise AssertionError("deleted by name, it is gone")
        await keeper.close()

    asyncio.run(main())


def test_the_witness_is_as_documented(tmp_path: Path) -> None:
    owner = Safekeeper(tmp_path, Settings(3)).owner(KEY)
    witness.write_revision(tmp_path, owner, 8)
    writer = WalWriter(str(tmp_path), START, START, 0, 5)
    writer.append(START, FULL.data)
    writer.close()
    raw = (tmp_path / "witness").read_bytes()
    head = struct.pack("<8sI", b"PSSKWIT\0", 1) + owner.encode() + struct.pack("<Q", 8)
    end = FULL.end
    record_crc = FULL.data[end.prev_record_lsn - START + 20 :][:4]
    told = struct.pack("<QQQ", 5, end.flush_lsn, end.prev_record_lsn) + record_crc
    assert raw[:60] == head + struct.pack("<I", crc32c(head))
    assert raw[512:544] == told + struct.pack("<I", crc32c(told))
    assert len(raw) == 1024
    expected = witness.Witness(8, 5, end, int.from_bytes(record_crc, "little"))
    assert witness.read(tmp_path, owner) == expected
