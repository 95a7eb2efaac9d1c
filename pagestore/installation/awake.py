"""Who is awake in an installation, and why, as its proxy says."""

from __future__ import annotations

import math
from typing import Any

from pagestore.client.proxy import ProxyClient
from pagestore.errors import PagestoreError
from pagestore.installation.layout import Installation
from pagestore.v1 import proxy_pb2 as pb

ANSWER_SECONDS = 3.0


def awake(installation: Installation) -> list[dict[str, Any]]:
    """Databases that are awake, or that sessions stay at; nothing where no proxy answers."""
    try:
        with ProxyClient(installation.address("proxy"), timeout=ANSWER_SECONDS) as proxy:
            found = proxy.status()
    except PagestoreError:
        return []
    return [
        {
            "name": _named(item.place),
            "state": item.state,
            "sessions": item.sessions,
            "waiting": item.waiting,
            "idle_seconds": round(item.idle_seconds, 1),
            "sleeps_after": item.idle_limit if item.idle_limit != math.inf else "never",
            "why": item.why or None,
            "queries": item.queries,
            "wake_seconds": round(item.wake_seconds, 4) or None,
        }
        for item in found.places
    ]


def _named(place: pb.Place) -> str:
    """As one connects to it: a moment also says whose history it is of, which no name needs."""
    lsn = place.point.partition(" ")[0]
    return f"{place.name}@{lsn}" if lsn else place.name
