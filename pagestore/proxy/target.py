"""What a client's ``database`` names: a database, perhaps an inner one, perhaps a moment.

::

    app                   the default inner database of app, now
    app/other             another inner database of the same Postgres
    app@before-migration  the past, read-only: a checkpoint, an LSN or a time, as --at has it
    app/other@0/16B3748   both
    /acme/app             a database of the tenant acme; the others are the default tenant's

A name has no slash, so the first one ends it. A name that was given before ``@`` was reserved may
have one: whoever looks names up tries the whole text first.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagestore.client.names import qualified, split_tenant
from pagestore.ids import DEFAULT_TENANT_NAME


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    inner: str = ""
    """The database inside Postgres; empty for the default one."""
    point: str | None = None
    """As a user writes it for ``--at``; None for now. What ends with an ``@`` names a point all the
    same, an empty one, which is refused: it may be a variable that was not set, and whoever asks
    for the past must not be let into what can be written."""
    tenant: str = DEFAULT_TENANT_NAME

    @classmethod
    def parse(cls, text: str) -> Target:
        """Any text reads as a target; whether there is such a database is asked elsewhere."""
        tenant, rest = split_tenant(text)
        place, at, point = rest.partition("@")
        name, _, inner = place.partition("/")
        return cls(name, inner, point if at else None, tenant)

    def __str__(self) -> str:
        inner = f"/{self.inner}" if self.inner else ""
        point = "" if self.point is None else f"@{self.point}"
        return f"{qualified(self.tenant, self.name)}{inner}{point}"
