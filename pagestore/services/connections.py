"""Ends a connection of a gRPC server from outside of gRPC.

grpc.aio can neither take back a message that flow control holds nor reset its stream: to cancel
the handler leaves both where they are. What is left is the socket. It is found by its peer's
address among our descriptors, as a duplicate, so that no other socket of the same number is met.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from urllib.parse import unquote


def end_connection(peer: str) -> bool:
    """Shuts down the connection to `peer`, as ``context.peer()`` names it.

    Every call on it ends as it does when a client is gone. False when there is none; of Unix
    sockets only those are found whose client has a name (:func:`is_nameless`).
    """
    ended = False
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), _duplicate(int(entry.name)) as found:
            if not is_nameless(peer) and _name(found) == _as_named(peer):
                found.shutdown(socket.SHUT_RDWR)
                ended = True
    return ended


def is_nameless(peer: str) -> bool:
    """Whether it is a client of a Unix socket like any other; the shim gives its end a name."""
    return peer == "unix:"


def _as_named(peer: str) -> tuple[str, str]:
    """Host and port, or "" and the name in the abstract space."""
    family, _, address = unquote(peer).partition(":")
    if family == "unix-abstract":
        return "", address
    host, _, port = address.rpartition(":")
    return _plain(host.strip("[]")), port


def _name(connection: socket.socket) -> tuple[str, str] | None:
    theirs = connection.getpeername()
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        return _plain(theirs[0]), str(theirs[1])
    if isinstance(theirs, bytes):
        return "", theirs[1:].decode(errors="replace")
    return None


def _duplicate(descriptor: int) -> socket.socket:
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:  # not a socket
        os.close(copy)
        raise


def _plain(host: str) -> str:
    """An IPv4 address is one, whether or not it came in by an IPv6 socket."""
    return host.removeprefix("::ffff:")
