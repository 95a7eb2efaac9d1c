"""Hosts of a test's own: network namespaces, each with a cable to a router that forwards.

::

    host A ──veth── router ──veth── host B

A *cut* is a rule of the router that drops what one address sends to another, both ways and
without a word, as a failing network does: nobody is told, connections stay open, and what was
under way is sent again once the cut is mended. Only root may make namespaces; nothing of them
reaches the machine's own network, and all of them go at the end.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_ROUTER = "10.87.0.254"
_networks = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """One namespace, with an address of its own."""

    def __init__(self, name: str, namespace: str, address: str) -> None:
        self.name = name
        self.namespace = namespace
        self.address = address

    def at(self, port: int) -> str:
        return f"{self.address}:{port}"

    def command(self, *words: str) -> list[str]:
        """`words`, to be run on this host. It stays one process."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *words]

    def enter(self) -> None:
        """From now on the calling thread's new sockets are this host's."""
        with Path(f"/run/netns/{self.namespace}").open("rb") as file:
            if _libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns to {self.namespace}")

    def run(self, work: Callable[[], _T]) -> _T:
        """`work` on this host, as far as its sockets go: in a thread that has entered it."""
        with ThreadPoolExecutor(1, initializer=self.enter) as thread:
            return thread.submit(work).result()


class Network:
    def __init__(self) -> None:
        self._prefix = f"ps{os.getpid()}n{next(_networks)}"
        self._router = f"{self._prefix}-router"
        self._namespaces: list[str] = []
        self._cuts: set[tuple[str, str]] = set()

    def begin(self) -> None:
        self._add_namespace(self._router)
        router = Host("router", self._router, _ROUTER)
        _run(router.command("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"))

    def add(self, name: str) -> Host:
        """A new host that reaches all others."""
        number = len(self._namespaces)
        host = Host(name, f"{self._prefix}-{name}", f"10.87.0.{number}")
        cable = f"v{number}"
        self._add_namespace(host.namespace)
        _ip("link", "add", cable, "netns", self._router, "type", "veth", "peer", "name", "eth0",
            "netns", host.namespace)  # fmt: skip
        inside, router = ("-n", host.namespace), ("-n", self._router)
        _ip(*router, "addr", "add", f"{_ROUTER}/32", "dev", cable)
        _ip(*router, "link", "set", cable, "up")
        _ip(*router, "route", "add", host.address, "dev", cable)
        _ip(*inside, "addr", "add", f"{host.address}/32", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "route", "add", _ROUTER, "dev", "eth0")
        _ip(*inside, "route", "add", "default", "via", _ROUTER)
        return host

    @contextmanager
    def cut(self, host: Host, others: Iterable[Host]) -> Iterator[None]:
        """Within, nothing passes between `host` and any of `others`."""
        pairs = [(host.address, other.address) for other in others if other is not host]
        both = [*pairs, *((there, here) for here, there in pairs)]
        for pair in both:
            self._drop("add", *pair)
        try:
            yield
        finally:
            for pair in both:
                self._drop("del", *pair)

    def end(self) -> None:
        for namespace in self._namespaces:
            _ip("netns", "del", namespace)

    def _add_namespace(self, name: str) -> None:
        _ip("netns", "add", name)
        self._namespaces.append(name)
        _ip("-n", name, "link", "set", "lo", "up")

    def _drop(self, verb: str, sender: str, receiver: str) -> None:
        _ip("-n", self._router, "rule", verb, "from", sender, "to", receiver, "blackhole")


@contextmanager
def network_or_skip() -> Iterator[Network]:
    """A network; skips the test where we may not make one."""
    network = Network()
    try:
        network.begin()
    except (OSError, subprocess.CalledProcessError) as error:
        network.end()
        said = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"no network namespaces here: {said.strip()}")
    try:
        yield network
    finally:
        network.end()


def _ip(*words: str) -> None:
    _run(["ip", *words])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
