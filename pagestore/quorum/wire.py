"""Safekeepers' answers, as what the election and the change of members know.

The other way is pagestore.walservice.messages.
"""

from __future__ import annotations

from collections.abc import Iterable

from pagestore.consensus.acceptor import TermSwitch, WalPosition
from pagestore.consensus.election import Ballot
from pagestore.consensus.members import Member
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice.messages import configuration_of


def member(item: pb.Member) -> Member:
    return Member(item.number, item.incarnation)


def history(items: Iterable[pb.TermSwitch]) -> tuple[TermSwitch, ...]:
    return tuple(TermSwitch(item.term, item.start_lsn) for item in items)


def ballot(answer: pb.VoteResponse) -> Ballot:
    """Of a promise, and of its refusal, which tells all the same."""
    return Ballot(
        member(answer.member),
        configuration_of(answer.configuration),
        answer.term,
        history(answer.term_history),
        WalPosition(answer.start_lsn, answer.start_prev_record_lsn),
        WalPosition(answer.end_lsn, answer.prev_record_lsn),
        answer.system_id,
    )


def status_ballot(answer: pb.WalTimelineStatus) -> Ballot:
    """A status, as far as it is a ballot: it does not tell the record before the start."""
    return Ballot(
        Member(answer.number, answer.incarnation),
        configuration_of(answer.configuration),
        answer.term,
        history(answer.term_history),
        WalPosition(answer.start_lsn, 0),
        WalPosition(answer.flush_lsn, answer.prev_record_lsn),
        answer.system_id,
    )
