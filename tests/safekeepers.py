"""Three safekeepers in processes of their own, and a plain driver of elections for them.

It does by hand, one call after another, what the control plane does: so that a test can leave
out any step, or any safekeeper.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.pgformat.wal import lay_out, record_bytes
from pagestore.v1 import wal_pb2 as pb
from tests import access
from tests.safekeeper_process import SafekeeperProcess

ALL = (1, 2, 3)
START_LSN = 0x1000028


class Safekeepers:
    """One timeline at a time on all of them. Make it with :func:`three_safekeepers`."""

    def __init__(self, root: Path, keep_bytes: int) -> None:
        self.at = {
            number: SafekeeperProcess(root / f"sk{number}", number, keep_bytes) for number in ALL
        }
        self.forget()

    def forget(self) -> None:
        """Another timeline from now on."""
        self.tenant, self.timeline = DEFAULT_TENANT, TimelineId.generate()
        self.start_lsn, self.system_id = START_LSN, 1
        self.configuration = pb.Configuration()
        self.history: list[pb.TermSwitch] = []
        self.term = 0
        self.end: tuple[int, int] = (0, 0)

    def run_all(self) -> None:
        for process in self.at.values():
            if not process.running:
                process.start()
            process.send(signal.SIGCONT)

    @property
    def key(self) -> tuple:
        return self.tenant, self.timeline

    def directory(self, number: int) -> Path:
        return self.at[number].data_dir / str(self.tenant) / str(self.timeline)

    def begin_at(self, start_lsn: int, system_id: int) -> None:
        """The log of a cluster that is there already."""
        self.start_lsn, self.system_id = start_lsn, system_id

    def create(self, numbers: Sequence[int] = ALL) -> None:
        self.configuration = pb.Configuration(
            generation=1,
            members=[pb.Member(number=n, incarnation=1, address=self.at[n].listen) for n in ALL],
        )
        for number in numbers:
            self.at[number].call(
                lambda client: client.create_timeline(
                    *self.key,
                    self.start_lsn,
                    system_id=self.system_id,
                    configuration=self.configuration,
                )
            )

    # Terms

    def vote(self, number: int) -> pb.VoteResponse:
        return self.at[number].call(lambda client: client.vote(*self.key, self.term))

    def elect(self, number: int) -> pb.ElectResponse:
        return self.at[number].call(
            lambda client: client.elect(*self.key, self.term, self.history, self.configuration)
        )

    def fill(self, number: int, donors: Sequence[int]) -> pb.FillResponse:
        return self.at[number].call(
            lambda client: client.fill(
                *self.key,
                self.term,
                self.end[0],
                [pb.Member(number=n, address=self.at[n].listen) for n in donors],
            )
        )

    def admit(self, number: int) -> pb.Member:
        answer = self.at[number].call(
            lambda client: client.admit(
                *self.key,
                self.term,
                self.history,
                self.configuration,
                start_lsn=self.start_lsn,
                prev_record_lsn=0,
                system_id=self.system_id,
            )
        )
        return answer.member

    def win(self, numbers: Sequence[int] = ALL) -> None:
        """The next term, by the votes of these; they are brought to the start of it."""
        self.term += 1
        ballots = {number: self.vote(number) for number in numbers}
        assert all(ballot.granted for ballot in ballots.values())
        donor = max(ballots, key=lambda n: (ballots[n].last_log_term, ballots[n].end_lsn))
        best = ballots[donor]
        self.end = best.end_lsn, best.prev_record_lsn
        written = [item for item in best.term_history if item.start_lsn < best.end_lsn]
        self.history = [*written, pb.TermSwitch(term=self.term, start_lsn=best.end_lsn)]
        behind = [n for n in numbers if self.elect(n).flush_lsn < best.end_lsn]
        for number in behind:
            self.fill(number, [donor])

    def change(self, members: Sequence[pb.Member], numbers: Sequence[int]) -> None:
        """To other members, by way of a joint configuration, told to these safekeepers."""
        before = self.configuration
        steps = (
            pb.Configuration(
                generation=before.generation + 1, members=before.members, joining=members
            ),
            pb.Configuration(generation=before.generation + 2, members=members),
        )
        for self.configuration in steps:
            for number in numbers:
                self.at[number].call(
                    lambda client: client.change_members(*self.key, self.term, self.configuration)
                )

    def attach(self, numbers: Sequence[int], conninfo: str) -> None:
        """At the end of each one's log."""
        address = access.address(*self.key, self.term, conninfo)
        for number in numbers:
            at = self.status(number).flush_lsn
            self.at[number].call(
                lambda client, at=at: client.attach_compute(*self.key, self.term, address, at)
            )

    # WAL without a compute

    def record(self, size: int = 100) -> bytes:
        """The next record; `end` is behind it."""
        at, prev = self.end
        record = record_bytes(0, 0x20, 0, prev, bytes(1 + i % 250 for i in range(size)))
        data, record_lsn, end = lay_out(at, record, system_id=self.system_id)
        self.end = end, record_lsn
        return data

    def append(self, numbers: Sequence[int], size: int = 100) -> None:
        at = self.end[0]
        data = self.record(size)
        for number in numbers:
            self.at[number].call(lambda client: client.append_wal(*self.key, self.term, at, data))

    # Looking

    def status(self, number: int) -> pb.WalTimelineStatus:
        return self.at[number].call(lambda client: client.get_status(*self.key))

    def wait(
        self,
        numbers: Sequence[int],
        what: Callable[[pb.WalTimelineStatus], bool],
        seconds: float = 20,
    ) -> None:
        deadline = time.monotonic() + seconds
        for number in numbers:
            while not what(status := self.status(number)):
                assert time.monotonic() < deadline, status
                time.sleep(0.02)

    def wal(self, number: int) -> bytes:
        """The log's bytes on its disk, from the first kept segment on."""
        status = self.status(number)
        first = status.oldest_lsn >> 24
        names = sorted(p for p in self.directory(number).iterdir() if len(p.name) == 24)
        data = b"".join(path.read_bytes() for path in names)
        return data[status.oldest_lsn - (first << 24) : status.flush_lsn - (first << 24)]

    def wipe(self, number: int) -> None:
        """Kills it, and starts it again with an empty disk."""
        self.at[number].stop(signal.SIGKILL)
        shutil.rmtree(self.at[number].data_dir)
        self.at[number].start()


@contextmanager
def three_safekeepers(root: Path, keep_bytes: int = 64 << 20) -> Iterator[Safekeepers]:
    safekeepers = Safekeepers(root, keep_bytes)
    try:
        safekeepers.run_all()
        yield safekeepers
    finally:
        for process in safekeepers.at.values():
            process.stop()
