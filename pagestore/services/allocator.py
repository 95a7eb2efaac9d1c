"""How a service's process takes memory from the system, and gives it back.

WAL and pages pass through in buffers of up to a megabyte. By default malloc would map most of
them, fault them in and unmap them each time, which took half of the CPU that a safekeeper needs
to send WAL.
"""

from __future__ import annotations

from pagestore import _native

ARENAS = 4
"""Threads that come and go would else leave free memory in an arena each."""
MAPPED_BYTES = 4 << 20
"""From here on a buffer goes back to the system when it is freed."""
TOP_BYTES = 8 << 20


def set_limits() -> None:
    """For this process."""
    _native.limit_malloc(ARENAS, MAPPED_BYTES, TOP_BYTES)
