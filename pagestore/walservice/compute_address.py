"""Where a compute's walsender is: the few words of a conninfo that a safekeeper takes.

A conninfo comes over the wire, and libpq does with it whatever it says: read a password file, a
service file or a private key, follow a list of hosts, send options. So none reaches libpq. It is
read here, strictly; what libpq is given are five values under names of our own choosing
(native/core/receiver). Any other keyword is refused by name, though libpq may know it.

One word is no conninfo's: `certificate`, the one that the compute's server shows, as base64url of
DER. Nothing else is believed of it, and an address beyond this machine has to have one. What comes
over the wire has a signature behind it (:meth:`pagestore.tokens.Signer.sign_address`), so that who
may attach computes cannot make a safekeeper connect where he likes, nor tell the address of one
timeline, or of a term before, for another.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
import socket
import ssl
from typing import NamedTuple

from pagestore.client.addresses import is_near
from pagestore.errors import FailedPrecondition, InvalidInput

MAX_CONNINFO = 8192
MAX_SOCKET_DIRECTORY = 100
"""Bytes; a Unix socket's path has 107, and a name follows."""
MAX_VALUE = 255
MAX_CERTIFICATE = 4096
ALLOWED = ("host", "port", "user", "password", "dbname", "certificate")
"""`dbname` means nothing to a walsender of whole clusters: it may stand there, and goes nowhere."""

_WORD = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,252})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ComputeAddress(NamedTuple):
    """`host` is a socket's directory, an IP address or a host's name; `password` may be empty;
    `certificate` is in PEM, and empty where nothing is encrypted."""

    host: str
    port: int
    user: str
    password: str
    certificate: str = ""

    def __repr__(self) -> str:
        return f"ComputeAddress({self.host!r}, {self.port}, {self.user!r})"


def parse(conninfo: str) -> ComputeAddress:
    """Reads keywords and values as libpq quotes them.

    Raises:
        InvalidInput: INVALID_CONNINFO.
        FailedPrecondition: TLS_REQUIRED.
    """
    words = _words(conninfo)
    for name in ("host", "port", "user"):
        if not words.get(name):
            raise _refused(f"it has no {name}")
    for name, value in words.items():
        longest = MAX_CERTIFICATE if name == "certificate" else MAX_VALUE
        if len(value.encode()) > longest or _CONTROL.search(value):
            raise _refused(f"its {name} is too long, or has control characters")
    host, port = words["host"], words["port"]
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _refused("its port is none")
    if not _is_socket_directory(host) and not _is_host(host):
        raise _refused("its host is neither an absolute socket directory nor one host")
    if "certificate" not in words and not _is_socket_directory(host) and not is_near(f"{host}:1"):
        raise FailedPrecondition(
            "TLS_REQUIRED",
            f"The compute is at {host}, which other machines reach, and no certificate is told: "
            "its WAL would go there in clear.",
            "Its host, `pagestore compute`, makes one; is it of an older version?",
        )
    certificate = _pem(words["certificate"]) if "certificate" in words else ""
    return ComputeAddress(host, int(port), words["user"], words.get("password", ""), certificate)


def check_near(address: ComputeAddress) -> None:
    """For a safekeeper that listens on this machine alone: so are its computes. Looks names up.

    Raises:
        InvalidInput: INVALID_CONNINFO.
    """
    host = address.host
    if not _is_socket_directory(host) and not _is_ours(host):
        raise _refused(
            f"{host} is no address of this machine, and this safekeeper serves this machine alone"
        )


def forget_environment() -> None:
    """Takes from this process what libpq would read there (PGSERVICE, PGHOSTADDR, PGOPTIONS, ...).
    Before there are threads."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def _pem(text: str) -> str:
    try:
        der = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        der = b""
    if not der:
        raise _refused("its certificate is none")
    return ssl.DER_cert_to_PEM_cert(der)


def _words(conninfo: str) -> dict[str, str]:
    if len(conninfo) > MAX_CONNINFO:
        raise _refused(f"it has more than {MAX_CONNINFO} characters")
    words: dict[str, str] = {}
    at = 0
    while conninfo[at:].strip():
        match = _WORD.match(conninfo, at)
        if match is None:
            raise _refused("it is not keyword=value, ...")
        name, quoted, plain = match.groups()
        if name not in ALLOWED:
            raise _refused(f"{name[:40]!r} is none of {', '.join(ALLOWED)}")
        if name in words:
            raise _refused(f"it has {name} twice")
        words[name] = _ESCAPED.sub(r"\1", quoted if quoted is not None else plain)
        at = match.end()
    return words


def _is_socket_directory(host: str) -> bool:
    """One, for libpq takes commas for lists."""
    strange = "," in host or ".." in host.split("/")
    return host.startswith("/") and not strange and len(host.encode()) <= MAX_SOCKET_DIRECTORY


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST_NAME.fullmatch(host) is not None
    return True


def _is_ours(host: str) -> bool:
    """Whether a socket can be bound there."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
        for family, kind, _, _, place in found:
            with socket.socket(family, kind) as probe:
                probe.bind(place)
    except (OSError, UnicodeError):
        return False
    return bool(found)


def _refused(why: str) -> InvalidInput:
    return InvalidInput(
        "INVALID_CONNINFO",
        f"The conninfo is refused: {why}.",
        "A safekeeper takes host, port, user, password and certificate of a compute, and nothing "
        "else.",
    )
