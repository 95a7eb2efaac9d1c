"""Who is awake, and why, in words for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pagestore.proxy.fleet import Fleet, State
from pagestore.proxy.places import Address, Place
from pagestore.proxy.session import Session


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
    return [
        PlaceStatus(
            place,
            fleet.state(place),
            counts[place],
            fleet.waiting(place),
            fleet.idle_seconds(place, now),
            fleet.idle_limit(place),
            _why(fleet, hindrances, place),
        )
        for place in dict.fromkeys([*fleet.places(), *counts])
    ]


def _why(
    fleet: Fleet[Place, Session, Address], hindrances: Mapping[Place, str], place: Place
) -> str:
    if fleet.state(place) is not State.AWAKE:
        return ""
    found = hindrances.get(place, "")
    return found or ("a query or a transaction" if fleet.is_busy(place) else "")
