"""Ports of servers that other hosts reach."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from pagestore.agent.ports import TRIES, at_a_port
from pagestore.postgres.server_log import ServerFailed, ServerLog
from pagestore.postgres.settings import SOCKET_PORT

HOST = "127.0.0.1"


class Machine:
    """On which another program takes the ports of the first so many starts before their servers
    do; `broken` servers end for another reason."""

    def __init__(self, taken: int, *, broken: bool = False) -> None:
        self.ports: list[int] = []
        self._left, self._broken = taken, broken
        self._others: list[socket.socket] = []

    async def start(self, port: int) -> int:
        self.ports.append(port)
        if self._left:
            self._left -= 1
            self._others.append(socket.create_server((HOST, port)))
            raise ServerFailed(ServerLog(Path("/nowhere")), 1)
        if self._broken:
            raise ServerFailed(ServerLog(Path("/nowhere")), 1)
        return port

    def close(self) -> None:
        for other in self._others:
            other.close()


def ports(machine: Machine, host: str = HOST) -> list[int]:
    try:
        asyncio.run(at_a_port(host, machine.start))
        return machine.ports
    finally:
        machine.close()


def test_one_whose_port_another_program_takes_first_has_another_port() -> None:
    tried = ports(Machine(taken=1))
    assert len(set(tried)) == 2


def test_it_is_not_tried_for_ever_nor_for_what_no_port_mends() -> None:
    for machine, tries in ((Machine(taken=TRIES), TRIES), (Machine(0, broken=True), 1)):
        with pytest.raises(ServerFailed):
            ports(machine)
        assert len(machine.ports) == tries


def test_one_that_only_its_own_host_reaches_needs_none() -> None:
    assert ports(Machine(0), host="") == [SOCKET_PORT]
