"""Where the safekeepers are: a small file beside the timelines.

Who the members of a timeline are is each timeline's matter; this only says where a number is to
be reached. The newest word holds: what the command line gave at start, then what came with the
members in messages. A lost entry is told again with the next election.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from pagestore import durable

NAME = "peers"
_LINE = re.compile(r"(?P<number>[0-9]{1,10}) (?P<address>[!-~]+:[0-9]{1,5})")
_log = structlog.get_logger(__name__)


class AddressBook:
    """`host:port` by number. `on_change` is called with the numbers that moved."""

    def __init__(self, data_dir: Path) -> None:
        self.addresses: dict[int, str] = {}
        self._path = data_dir / NAME
        self._listeners: list[Callable[[set[int]], None]] = []
        self._lock = asyncio.Lock()

    async def load(self, given: Mapping[int, str]) -> None:
        """Reads what was remembered; `given` is newer."""
        try:
            raw = await asyncio.to_thread(self._path.read_bytes)
        except FileNotFoundError:
            raw = b""
        except OSError as error:
            _log.warning("addresses not read", path=str(self._path), error=str(error))
            raw = b""
        self.addresses = decode(raw.decode(errors="replace"))
        await self.learn(given)

    def on_change(self, listener: Callable[[set[int]], None]) -> None:
        self._listeners.append(listener)

    async def learn(self, told: Mapping[int, str]) -> None:
        """Remembers what is new; an empty address says nothing."""
        moved = {n for n, address in told.items() if address and self.addresses.get(n) != address}
        if not moved:
            return
        self.addresses.update((number, told[number]) for number in moved)
        for listener in self._listeners:
            listener(moved)
        async with self._lock:
            try:
                whole = encode(self.addresses).encode()
                await asyncio.to_thread(durable.replace, self._path, whole)
            except OSError as error:
                _log.warning("addresses not kept", path=str(self._path), error=str(error))


def encode(addresses: Mapping[int, str]) -> str:
    return "".join(f"{number} {address}\n" for number, address in sorted(addresses.items()))


def decode(text: str) -> dict[int, str]:
    """Lines of a number and an address; others are passed over, as they are of a damaged file."""
    lines = (_LINE.fullmatch(line) for line in text.split("\n"))
    return {int(line["number"]): line["address"] for line in lines if line is not None}
