"""Three safekeepers that drop what nobody needs: held back by any, and still able to fill."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from pagestore.errors import OutOfRange
from pagestore.ids import TimelineId
from tests.safekeepers import ALL, Safekeepers, three_safekeepers

SEGMENT = 16 << 20
RECORD = 9 << 20


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Safekeepers]:
    with three_safekeepers(tmp_path_factory.mktemp("three"), keep_bytes=0) as safekeepers:
        yield safekeepers


@pytest.fixture
def three(running: Safekeepers) -> Safekeepers:
    running.run_all()
    running.forget()
    running.create()
    running.win()
    return running


def release(three: Safekeepers, numbers: tuple[int, ...] = ALL, consumer: str = "page") -> None:
    """What lies before the end of now; with a timeline that is not there among others."""
    for number in numbers:
        three.at[number].call(
            lambda client: client.release_wal(
                consumer,
                [
                    (three.tenant, TimelineId.generate(), three.end[0]),
                    (*three.key, three.end[0]),
                ],
            )
        )


def is_dropped(status: object) -> bool:
    return status.oldest_lsn == 2 * SEGMENT  # type: ignore[attr-defined]


def test_a_member_that_lags_holds_the_others_wal(three: Safekeepers) -> None:
    three.append((1, 2), RECORD)
    three.append((1, 2), RECORD)
    three.wait((1, 2), lambda status: status.commit_lsn == three.end[0])
    release(three)
    assert three.status(1).oldest_lsn == three.start_lsn
    three.fill(3, [1])
    three.wait((1, 2), is_dropped)
    with pytest.raises(OutOfRange, match="it is kept from 0/2000000 on") as old:
        three.at[1].call(lambda client: client.align_lsn(*three.key, three.start_lsn))
    assert old.value.reason == "LSN_TOO_OLD"
    assert three.status(1).wal_bytes == three.end[0] - 2 * SEGMENT
    three.wait((3,), is_dropped)


def test_who_lost_its_disk_begins_where_the_others_do(three: Safekeepers) -> None:
    """Filled from where they keep WAL on; then it is a member like any other, and a donor."""
    three.append(ALL, RECORD)
    three.append(ALL, RECORD)
    three.wait(ALL, lambda status: status.commit_lsn == three.end[0])
    release(three)
    three.wait(ALL, is_dropped)
    three.append(ALL, 5000)
    three.wipe(3)
    learner = three.admit(3)
    three.fill(3, [1, 2])
    oldest = three.status(3).oldest_lsn
    assert 2 * SEGMENT < oldest < three.end[0], "a record's end, behind the segment's start"
    assert three.wal(3) == three.wal(1)[oldest - 2 * SEGMENT :]
    three.change([*three.configuration.members[:2], learner], ALL)
    three.append(ALL, 300)
    three.at[3].stop(signal.SIGKILL)
    three.at[3].start()
    three.wait(ALL, lambda status: status.commit_lsn == three.end[0])
    three.win((1, 3))
    three.append((1, 3))
    assert three.vote(2).granted
    three.elect(2)
    three.fill(2, [3])
    assert three.wal(2) == three.wal(1)
    assert three.wal(3) == three.wal(1)[oldest - 2 * SEGMENT :]
