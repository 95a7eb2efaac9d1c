"""What databases are called, for lines of logs: NameService, which every GrpcServer has.

Most parts know timelines, and users know names. The control plane, which knows both, tells each
part (control/naming.py). What is told is kept in memory, bounded, and put beside the timeline in a
line of a log (`named`, a processor of structlog's), whether that has it as such or in the path of
a file: nothing is decided by it, and a part that was
not told, or not yet, writes the timeline alone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, MutableMapping
from typing import Any

from pagestore.ids import TimelineId
from pagestore.v1 import names_pb2 as pb

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
MOST = 100_000
"""Of which names are kept; those that were told longest ago go."""
LONGEST = 200
"""Characters of a name; two of 63 bytes and a slash are less."""


class Names:
    def __init__(self, most: int = MOST) -> None:
        self.run = 1 + secrets.randbits(63)
        self._most = most
        self._names: dict[str, str] = {}

    def learn(self, told: Mapping[TimelineId, str]) -> None:
        """
        Args:
            told: empty for what is to be forgotten.
        """
        for timeline, name in told.items():
            self._names.pop(str(timeline), None)
            if name:
                self._names[str(timeline)] = name[:LONGEST]
        while len(self._names) > self._most:
            del self._names[next(iter(self._names))]

    def named(self, _: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """A line that says a timeline, as such or in a path or a message, gets its database."""
        said = (found for text in line.values() for found in _ID.findall(str(text)))
        name = next((self._names[item] for item in said if item in self._names), None)
        if name is not None:
            line.setdefault("database", name)
        return line


NAMES = Names()
"""Of this process, as its log is."""


class NameService:
    """The methods of NameService, for GrpcServer.add_service."""

    def __init__(self, names: Names = NAMES) -> None:
        self._names = names

    async def tell_names(self, request: pb.TellNamesRequest, _: Any) -> pb.TellNamesResponse:
        self._names.learn({TimelineId(item.timeline_id): item.name for item in request.names})
        return pb.TellNamesResponse(run=self._names.run)
