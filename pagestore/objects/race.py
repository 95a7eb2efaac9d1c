"""Whether a store creates conditionally: not asked, but raced.

Everything here stands on one promise, that of many who create one name exactly one succeeds, and
nobody once it is there. Stores claim it and break it (proxies drop the header, some know no
conditions), so each is put to the test before it is used.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from pagestore.errors import AlreadyExists, FailedPrecondition
from pagestore.objects.backends import RACES
from pagestore.objects.store import ObjectStore

RACERS = 4


def prove_conditional(store: ObjectStore) -> None:
    """
    Raises:
        FailedPrecondition: OBJECT_STORE_UNCONDITIONAL. Unavailable: OBJECT_STORE_UNAVAILABLE.
    """
    name = RACES + secrets.token_hex(8)
    try:
        won = _round(store, name)
        again = _round(store, name)
    finally:
        store.delete([name])
    if (won, again) != (1, 0):
        raise FailedPrecondition(
            "OBJECT_STORE_UNCONDITIONAL",
            f"{store.url} is no place for databases: of {RACERS} who created one name at once "
            f"{won} succeeded, and {again} once it was there.",
            "Use a store that knows conditional writes (If-None-Match), without a proxy that "
            "drops them.",
        )


def _round(store: ObjectStore, name: str) -> int:
    """How many of those who begin together have created it."""
    together = Barrier(RACERS)

    def create(_: int) -> bool:
        mine = secrets.token_bytes(16)
        together.wait()
        try:
            store.create(name, mine)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(RACERS) as racers:
        return sum(racers.map(create, range(RACERS)))
