"""Who decides over a log: members, and configurations of them.

A *member* is a safekeeper by its number and *incarnation*. Who has lost its disk is somebody
else: it comes back under an incarnation that nobody ever had, by a change of members. A
*configuration* is a set of members with a generation, which names it: no two configurations of
a timeline have the same. While one set of members is followed by another, the configuration is
*joint*: it has both sets, and a majority of each has to agree.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Member(NamedTuple):
    number: int
    incarnation: int = 1

    @property
    def standby_name(self) -> str:
        """What it calls itself to a compute; never the name of a lost one."""
        suffix = f"_{self.incarnation}" if self.incarnation > 1 else ""
        return f"sk{self.number}{suffix}"


ALONE = Member(0)
"""Of a timeline that has never had more than one safekeeper, nor a configuration."""


def majority(members: int) -> int:
    return members // 2 + 1


@dataclass(frozen=True)
class Configuration:
    """Generation 0 without members: one safekeeper alone."""

    generation: int = 0
    members: tuple[Member, ...] = ()
    joining: tuple[Member, ...] = ()

    @cached_property
    def sets(self) -> tuple[tuple[Member, ...], ...]:
        return (self.members, self.joining) if self.joining else (self.members,)

    @cached_property
    def everyone(self) -> tuple[Member, ...]:
        return tuple(sorted({*self.members, *self.joining}))

    @property
    def joint(self) -> bool:
        return bool(self.joining)

    def decided_by(self, who: Collection[Member]) -> bool:
        """Whether these are a majority of each set."""
        return all(sum(item in who for item in one) >= majority(len(one)) for one in self.sets)

    def reached(self, ends: Mapping[Member, int]) -> int:
        """The highest position that a majority of each set has come to; 0 without one."""
        return min(_reached(one, ends) for one in self.sets)

    @property
    def any_of(self) -> int:
        """The smallest number such that any so many of everyone are a majority of each set."""
        union = len(self.everyone)
        return max(majority(len(one)) + union - len(one) for one in self.sets)

    @property
    def standby_names(self) -> str:
        """As a compute's synchronous_standby_names."""
        return f"ANY {self.any_of} ({', '.join(item.standby_name for item in self.everyone)})"

    def followed_by(self, generation: int, joining: tuple[Member, ...]) -> Configuration:
        """The joint one on the way to other members."""
        return Configuration(generation, self.members, tuple(sorted(joining)))

    def final(self, generation: int) -> Configuration:
        """What a joint one leads to."""
        return Configuration(generation, self.joining)


UNCONFIGURED = Configuration()


def _reached(members: tuple[Member, ...], ends: Mapping[Member, int]) -> int:
    there = sorted([ends[item] for item in members if item in ends])
    needed = majority(len(members))
    return there[-needed] if len(there) >= needed else 0
