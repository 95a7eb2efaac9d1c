"""Whose a file of a log is: each says so itself, and is refused where it does not belong."""

from __future__ import annotations

import struct
from typing import NamedTuple, Self

from pagestore.errors import DataLoss
from pagestore.ids import TenantId, TimelineId

_LAYOUT = struct.Struct("<16s16sI")
OWNER_BYTES = _LAYOUT.size


class Owner(NamedTuple):
    """A timeline's log at one safekeeper, by its number."""

    tenant: TenantId
    timeline: TimelineId
    number: int

    def encode(self) -> bytes:
        return _LAYOUT.pack(self.tenant.raw, self.timeline.raw, self.number)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        tenant, timeline, number = _LAYOUT.unpack(raw)
        return cls(TenantId(tenant), TimelineId(timeline), number)

    def check(self, raw: bytes, reason: str, where: str) -> None:
        """
        Raises:
            DataLoss: `reason`; the file `where` says in `raw` that it is another's.
        """
        said = self.decode(raw)
        if said != self:
            raise DataLoss(
                reason,
                f"{where} is of {said}; here belongs that of {self}.",
                "Put the right file there, or start the safekeeper with the --id that it had.",
            )

    def __str__(self) -> str:
        return f"timeline {self.timeline} of tenant {self.tenant} at safekeeper {self.number}"
