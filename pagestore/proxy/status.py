"""Who is awake, and why, in words for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pagestore.proxy.fleet import Fleet, State
from pagestore.proxy.places import Address, Place
from pagestore.proxy.session import REPLICATES, WORKS, Session


@dataclass(frozen=True, slots=True)
class PlaceStatus:
    place: Place
    state: State
    sessions: int
    """Clients, with a backend or without."""
    waiting: int
    idle_seconds: float
    idle_limit: float
    """Seconds until it sleeps; infinity for never."""
    why: str
    """What keeps it awake, beyond that it was used a moment ago."""


def describe(
    fleet: Fleet[Place, Session, Address],
    sessions: Collection[Session],
    hindrances: Mapping[Place, str],
    now: float,
) -> list[PlaceStatus]:
    """Places that are not just asleep, or that somebody has a session at.

    Args:
        hindrances: why a place was kept awake when it was last to sleep.
    """
    counts = Counter(item.destination.place for item in sessions)
    replicated = {item.destination.place for item in sessions if item.replicates}
    return [
        PlaceStatus(
            place,
            fleet.state(place),
            counts[place],
            fleet.waiting(place),
            fleet.idle_seconds(place, now),
            fleet.idle_limit(place),
            _why(fleet, place, hindrances.get(place, ""), replicated=place in replicated),
        )
        for place in dict.fromkeys([*fleet.places(), *counts])
    ]


def _why(
    fleet: Fleet[Place, Session, Address], place: Place, hindrance: str, *, replicated: bool
) -> str:
    """
    Args:
        hindrance: when it was last to sleep.
        replicated: whether one of its sessions, which keeps it awake whether it is at work or not.
    """
    if fleet.state(place) is not State.AWAKE:
        return ""
    if replicated:
        return REPLICATES
    if hindrance or fleet.is_busy(place):
        return hindrance or WORKS
    return "it never sleeps" if fleet.idle_limit(place) == math.inf else ""
