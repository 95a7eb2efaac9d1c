"""How far a timeline is here, as others are told."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from pagestore.consensus.acceptor import Heard, State, position_of
from pagestore.consensus.members import Configuration


class PeerStatus(NamedTuple):
    """What a safekeeper tells its peers of a timeline, and which numbers those are."""

    heard: Heard
    peers: frozenset[int]

    @classmethod
    def of(cls, state: State) -> PeerStatus:
        return cls(position_of(state), _others(state.configuration, state.member.number))

    @property
    def withheld(self) -> PeerStatus:
        """Says nothing of the log, which may be an older copy."""
        return self._replace(heard=Heard(self.heard.member, 0, 0, 0, 0))

    def may_learn(self, heard: Heard) -> bool:
        """Whether that of a peer could let this one's commit LSN rise."""
        own = self.heard
        known = own.commit_lsn
        return own.term == heard.term and known < own.flush_lsn and known < heard.flush_lsn


@lru_cache(1000)
def _others(configuration: Configuration, number: int) -> frozenset[int]:
    """One set for all timelines that have the same members."""
    return frozenset(item.number for item in configuration.everyone if item.number != number)
