"""What every client here can do, whatever language and driver it is.

A client is a pool of sessions, or one session where its driver has no pool. A test gives it an
address and then says, one after the other, with anything happening to the database in between:

``exercise``    use everything that the driver has, once
``settle``      make the sessions something of their own (settings, prepared statements, LISTEN),
                and leave them idle
``check``       find every session what it was made
``heard``       tell what was notified, without saying anything first where the driver can wait
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

SESSIONS = 3
"""Of a client that has a pool."""
CHANNEL = "news"
WORK_MEM = "7MB"
ROWS = 20_000
"""That are copied in and out."""
LARGE = 12_000_000
"""Bytes of one value, and about as much of many rows."""


@dataclass(frozen=True)
class Door:
    """Where a client connects, and how."""

    port: int
    host: str = "localhost"
    user: str = "ann"
    password: str = "pass word"
    database: str = "app"
    certificate: Path | None = None
    """What it trusts; with it TLS is asked for, with full verification and channel binding."""
    direct: bool = False
    """Whether TLS comes without being asked for."""

    def libpq(self, **more: object) -> str:
        facts: dict[str, object] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
            **more,
        }
        if self.certificate is not None:
            facts |= {"sslmode": "verify-full", "sslrootcert": self.certificate}
            facts |= {"channel_binding": "require"}
        if self.direct:
            facts["sslnegotiation"] = "direct"
        return " ".join(f"{name}='{value}'" for name, value in facts.items())

    def over_tls(self, certificate: Path, *, direct: bool = False) -> Door:
        return replace(self, certificate=certificate, direct=direct)


class Client(Protocol):
    def exercise(self) -> None: ...

    def settle(self) -> None: ...

    def check(self) -> None: ...

    def heard(self) -> list[str]:
        """The payloads, once there is one; raises after some seconds without any."""
        ...

    def close(self) -> None: ...
