"""Where a service is: "host:port", or "unix:/path"."""

from __future__ import annotations

import ipaddress


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
