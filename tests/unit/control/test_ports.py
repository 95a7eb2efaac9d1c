"""Ports of databases."""

from __future__ import annotations

import socket

import pytest

from pagestore.control.ports import Ports
from pagestore.errors import ResourceExhausted
from pagestore.postgres.listening import is_free


def free_run(length: int) -> int:
    """The first of `length` ports in a row on which nobody listens."""
    first = 21_000
    while not all(is_free(port) for port in range(first, first + length)):
        first += length
    return first


def test_each_gets_its_own_and_a_listening_stranger_is_avoided() -> None:
    first = free_run(4)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", first + 1))
        stranger.listen()
        ports = Ports([first + 2], first, first + 3)
        assert {ports.choose(), ports.choose()} == {first, first + 3}
        with pytest.raises(ResourceExhausted) as caught:
            ports.choose()
        assert caught.value.reason == "NO_PORT_LEFT"
        ports.release(first)
        assert ports.choose() == first
