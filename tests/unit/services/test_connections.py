"""A client of a Unix socket is ended from outside of gRPC by its end's name, and no other one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pagestore.services.connections import end_connection, is_nameless


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[dict[str, socket.socket]]:
    """Clients of one Unix socket by the names of their ends; one has none."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        clients = {}
        for name in ("first", "second", ""):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            if name:
                client.bind(f"\0ps-{name}-{tmp_path.name}")
            client.connect(str(tmp_path / "s"))
            stack.enter_context(listener.accept()[0])
            client.settimeout(0.2)
            clients[name] = client
        yield clients


def ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False


def test_a_named_client_of_a_unix_socket_is_ended_alone(
    tmp_path: Path, unix: dict[str, socket.socket]
) -> None:
    assert end_connection(f"unix-abstract:ps-first-{tmp_path.name}")
    assert {name: ended(client) for name, client in unix.items()} == {
        "first": True,
        "second": False,
        "": False,
    }


@pytest.mark.parametrize("peer", ["unix:", "unix-abstract:nobody", "ipv4:127.0.0.1:1", "", "x"])
def test_who_is_not_named_so_goes_on(peer: str, unix: dict[str, socket.socket]) -> None:
    assert not end_connection(peer)
    assert not any(ended(client) for client in unix.values())
    assert is_nameless(peer) == (peer == "unix:")
