"""Telling a service manager how far we are: the datagram of sd_notify(3), where one listens."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Says `state` ("READY=1") to the manager named by NOTIFY_SOCKET; nothing without one."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return
    address = "\0" + place[1:] if place.startswith("@") else place
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as said:
        said.sendto(state.encode(), address)
