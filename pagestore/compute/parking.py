"""The line to a postmaster that was executed before its directory was made.

Executing Postgres and making its shared memory takes as long as a base backup and hardly needs
it, so both happen at once: the server starts on a directory with next to nothing in it, and the
shim lets it wait, first for its settings, then for its files (native/postgres/shim/start.c has
the messages). Over the same line it tells when commits work. One that was executed before it was
known for which database (parked.py) is told its log there, too.

A line that closes ends a server that still waits, so a starter that dies leaves none behind.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path

from pagestore.errors import InvalidInput
from pagestore.postgres.server_log import open_log

SETTINGS = {"pagestore.start_fd": "0"}
"""Of the server that is given :attr:`Line.theirs` as its standard input."""
_LONGEST = 65_536


class Line:
    """Both ends of a line; use it on one event loop, and close it at the end."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)

    def close(self) -> None:
        self._ours.close()
        self.theirs.close()

    def settings(self, values: Mapping[str, str], log: Path | None = None) -> None:
        """Lets the server read its configuration, and makes its shared memory.

        Args:
            log: to which it writes from now on; None for the one that it has.

        Raises:
            InvalidInput: INVALID_SETTING.
        """
        message = b"".join(f"{name}={value}".encode() + b"\0" for name, value in values.items())
        if message.count(b"\0") != len(values) or not 0 < len(message) <= _LONGEST:
            raise InvalidInput("INVALID_SETTING", "A setting has a NUL in it, or is too long.")
        if log is None:
            self._send(message)
            return
        with open_log(log) as opened:
            self._send(message, opened.fileno())

    def go(self) -> None:
        """Lets the server start on its directory, which is finished."""
        self._send(b"go")

    async def attached(self) -> None:
        """Until commits work. Waits for ever when the server dies: watch it too."""
        if not await asyncio.get_running_loop().sock_recv(self._ours, _LONGEST):
            await asyncio.Event().wait()

    def _send(self, message: bytes, *descriptors: int) -> None:
        try:
            socket.send_fds(self._ours, [message], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            return  # it is dead: whoever waits for it finds out why
