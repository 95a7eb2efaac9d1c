"""How far a timeline is here, as others are told."""

from __future__ import annotations

from typing import NamedTuple

from pagestore.walservice.acceptor import Heard, State, position_of


class Standing(NamedTuple):
    """What a safekeeper tells its peers of a timeline, and which numbers those are."""

    heard: Heard
    peers: frozenset[int]

    @classmethod
    def of(cls, state: State) -> Standing:
        numbers = {peer.number for peer in state.peers if peer.number != state.member.number}
        return cls(position_of(state), frozenset(numbers))

    def may_learn(self, heard: Heard) -> bool:
        """Whether that of a peer could let this one's commit LSN rise."""
        own = self.heard
        known = own.commit_lsn
        return own.term == heard.term and known < own.flush_lsn and known < heard.flush_lsn
