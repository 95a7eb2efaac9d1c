"""Where on this machine a server can listen."""

from __future__ import annotations

import secrets
import socket

from pagestore.errors import FailedPrecondition, ResourceExhausted

FIRST_PORT = 10_432
LAST_PORT = 32_000
"""Below the range from which Linux takes the ports of outgoing connections."""


def free_port(host: str = "127.0.0.1") -> int:
    """As :func:`free_ports`, one of them."""
    return free_ports(1, host)[0]


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """So many on which nobody listens. Each search begins somewhere else, so that two who ask at
    once seldom get the same.

    Raises:
        ResourceExhausted: NO_PORT_LEFT.
    """
    size = LAST_PORT - FIRST_PORT + 1
    begin = secrets.randbelow(size)
    found: list[int] = []
    for number in range(size):
        port = FIRST_PORT + (begin + number) % size
        if is_free(port, host):
            found.append(port)
        if len(found) == count:
            return found
    raise ResourceExhausted(
        "NO_PORT_LEFT",
        f"Too few ports of {host} are free from {FIRST_PORT} to {LAST_PORT}.",
        "End programs that listen there.",
    )


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether one could listen there; not, where `host` is no address of this machine."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError):
        return False
    return True


def check_compute_host(host: str) -> None:
    """Refuses what computes cannot listen on, or others cannot connect to.

    Raises:
        FailedPrecondition: COMPUTE_HOST_NOT_OURS.
    """
    if host in ("0.0.0.0", "::") or "," in host or not is_free(0, host):  # noqa: S104
        raise FailedPrecondition(
            "COMPUTE_HOST_NOT_OURS",
            f"{host!r} is not an address of this machine.",
            "Name one at which the safekeepers' hosts reach it (--compute-host, or `host` of "
            "[computes] in pagestore.toml).",
        )
