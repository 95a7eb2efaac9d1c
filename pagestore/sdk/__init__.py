"""pagestore for programs: databases, branches, checkpoints, undo.

::

    import pagestore

    with pagestore.connect() as client:
        client.checkpoint("app", "before-migration")
        with client.branch("app", ttl="1h") as db:      # removed at the end
            with db.psycopg() as session:
                session.execute("ALTER TABLE ...")
        client.undo("app")

:func:`connect` finds the installation of this machine, and starts one where there is none;
:func:`aconnect` gives the same for an event loop, and :func:`ephemeral` a store of its own that is
gone afterwards. Whatever a call raises is a :class:`pagestore.errors.PagestoreError`, with a stable
``reason`` and a ``hint``.
"""

from __future__ import annotations

from pagestore.sdk.blocking import Client, Database
from pagestore.sdk.client import AsyncClient, AsyncDatabase
from pagestore.sdk.opening import aconnect, connect, ephemeral
from pagestore.sdk.values import Checkpoint, Event, Move, Retention

__all__ = [
    "AsyncClient",
    "AsyncDatabase",
    "Checkpoint",
    "Client",
    "Database",
    "Event",
    "Move",
    "Retention",
    "aconnect",
    "connect",
    "ephemeral",
]
