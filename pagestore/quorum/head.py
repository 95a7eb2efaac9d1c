"""Where the log ends, for those who ask several safekeepers and cannot wait for all.

What a client was told to be committed is on a majority. So whoever has heard a majority has
heard of it, as part of the best of their logs; but the end of that log may lie beyond it. Either
a safekeeper tells a commit LSN that goes so far, or the answers themselves show that a majority
has it, or it is not known yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pagestore.consensus.election import Ballot, rank, ruling
from pagestore.consensus.members import Configuration, Member
from pagestore.quorum import wire
from pagestore.v1 import wal_pb2 as pb


@dataclass(frozen=True)
class Said:
    """What one safekeeper says of a timeline."""

    ballot: Ballot
    status: pb.WalTimelineStatus

    @classmethod
    def by(cls, status: pb.WalTimelineStatus) -> Said:
        return cls(wire.status_ballot(status), status)

    @property
    def member(self) -> Member:
        return self.ballot.member

    @property
    def writing_term(self) -> int:
        return self.ballot.history[-1].term if self.ballot.history else 0


@dataclass(frozen=True)
class Head:
    """
    Args:
        committed: what is known to be committed.
        best: nothing that a client was told to be committed lies beyond it.
    """

    committed: int
    best: Said
    configuration: Configuration

    @property
    def known(self) -> bool:
        return self.committed >= self.best.status.flush_lsn


def judge(said: list[Said]) -> Head | None:
    """None while no majority has spoken."""
    if not said:
        return None
    configuration = ruling(item.ballot for item in said)
    members = [item for item in said if item.member in configuration.everyone]
    if not configuration.decided_by({item.member for item in members}):
        return None
    best = max(members, key=lambda item: rank(item.ballot))
    ends = {
        item.member: item.status.flush_lsn
        for item in members
        if item.writing_term == best.writing_term
    }
    begins = best.ballot.history[-1].start_lsn if best.ballot.history else 0
    counted = configuration.reached(ends)
    told = max(item.status.commit_lsn for item in members)
    return Head(max(told, counted if counted >= begins else 0), best, configuration)


def superseded(term: int, said: Iterable[Said], head: Head) -> bool:
    """Whether those who may still confirm something in `term` are no majority any more."""
    higher = {item.member for item in said if item.ballot.term > term}
    rest = {item for item in head.configuration.everyone if item not in higher}
    return not head.configuration.decided_by(rest)
