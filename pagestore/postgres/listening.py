"""Where on this machine a server can listen."""

from __future__ import annotations

import socket

from pagestore.errors import FailedPrecondition


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
