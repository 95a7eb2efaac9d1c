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
    """Shuts down the TCP connection to `peer`, as ``context.peer()`` names it.

    Every call on it ends as it does when a client is gone. False when there is none; peers on
    Unix sockets have no names.
    """
    family, _, address = unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return False
    host, _, port = address.rpartition(":")
    ended = False
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), _duplicate(int(entry.name)) as found:
            if found.family in (socket.AF_INET, socket.AF_INET6):
                theirs = found.getpeername()
                if (_plain(theirs[0]), str(theirs[1])) == (_plain(host.strip("[]")), port):
                    found.shutdown(socket.SHUT_RDWR)
                    ended = True
    return ended


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
