"""Where a service is: "host:port", or "unix:/path"."""

from __future__ import annotations

import ipaddress

from pagestore.errors import FailedPrecondition

_ANYWHERE = ("0.0.0.0", "[::]")  # noqa: S104


def is_near(address: str) -> bool:
    """Whether only this machine is meant: loopback or a Unix socket. What goes elsewhere is
    encrypted, and names are taken to lead elsewhere."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_anywhere(address: str) -> bool:
    """Whether it is every address of this machine, which leads nobody here."""
    return address.rpartition(":")[0] in _ANYWHERE


def tls_required(listen: str) -> FailedPrecondition:
    return FailedPrecondition(
        "TLS_REQUIRED",
        f"{listen} can be reached from other machines, and there is no certificate: tokens and "
        "data would go there in clear.",
        "`pagestore certificate HOST` makes one; or name your own in [tls] of "
        "pagestore.toml (--tls-certificate, --tls-key). Or listen on 127.0.0.1.",
    )
