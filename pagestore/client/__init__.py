"""What a program imports to talk to pagestore's services."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagestore.client.control import ControlClient
    from pagestore.client.page import AsyncPageClient, PageStream, ReadLsn, Rel
    from pagestore.client.sync import PageClient

__all__ = ["AsyncPageClient", "ControlClient", "PageClient", "PageStream", "ReadLsn", "Rel"]


def __getattr__(name: str) -> Any:
    """Imported when first used: a command that only needs a name need not wait for numpy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = {"PageClient": "sync", "ControlClient": "control"}.get(name, "page")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
