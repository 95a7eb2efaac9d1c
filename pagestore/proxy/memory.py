"""What the control plane said last, for when it does not answer.

A database that is awake needs nobody but its own server to take a session in, so those who have
come before come in also while the control plane starts anew, or cannot. Nothing is decided by
what may be old: the backend judges the proof again by the verifier it has itself, and a place
that is not awake has to be asked for. What was learned of a name goes when the name is seen to
mean another database.

Only roles with a verifier are learned, and only within a bound; the longest unused go first. A
role is known only together with the place that it is a role of.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeVar

from pagestore.pgwire.scram import Verifier
from pagestore.proxy.places import Destination, Place
from pagestore.proxy.target import Target
from pagestore.v1 import proxy_pb2 as pb

REMEMBERED = 10_000
"""Roles, and targets."""

_K = TypeVar("_K")
_V = TypeVar("_V")


class Memory:
    def __init__(self, bound: int = REMEMBERED) -> None:
        self._bound = bound
        self._roles: OrderedDict[tuple[Target, str], pb.LookUpRoleResponse] = OrderedDict()
        self._destinations: OrderedDict[Target, Destination] = OrderedDict()

    def learn_role(self, target: Target, user: str, found: pb.LookUpRoleResponse) -> None:
        key = (target, user)
        if Verifier.parse(found.password) is None:
            self._roles.pop(key, None)
        else:
            self._keep(self._roles, key, found)

    def role(self, target: Target, user: str) -> pb.LookUpRoleResponse | None:
        if target not in self._destinations:
            return None
        return self._roles.get((target, user))

    def learn_destination(self, target: Target, destination: Destination) -> None:
        self._keep(self._destinations, target, destination)

    def forget_destination(self, target: Target) -> None:
        self._destinations.pop(target, None)

    def forget(self, place: Place) -> None:
        """It was removed: a database of its name is another one from now on."""
        self._keep_only(lambda known: known.database != place.database)

    def destination(self, target: Target) -> Destination | None:
        return self._destinations.get(target)

    def seen(self, awake: Iterable[Place]) -> None:
        """What is awake, by its present name: a name may have moved to another database, and a
        database to another name."""
        places = list(awake)
        names = {place.database: place.name for place in places}
        databases = {_slot(place): place.database for place in places}

        def means_the_same(place: Place) -> bool:
            same_name = names.get(place.database, place.name) == place.name
            return same_name and databases.get(_slot(place), place.database) == place.database

        self._keep_only(means_the_same)

    def _keep_only(self, fits: Callable[[Place], bool]) -> None:
        for target, known in list(self._destinations.items()):
            if not fits(known.place):
                del self._destinations[target]

    def _keep(self, where: OrderedDict[_K, _V], key: _K, value: _V) -> None:
        where[key] = value
        where.move_to_end(key)
        if len(where) > self._bound:
            where.popitem(last=False)


def _slot(place: Place) -> tuple[str, str]:
    """Names are a tenant's, by whose id a database's begins."""
    return place.database.partition("/")[0], place.name
