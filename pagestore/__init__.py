"""pagestore: databases as cheap as files, on stock Postgres.

What programs call is in :mod:`pagestore.sdk`: ``pagestore.connect()``.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagestore.sdk import aconnect, connect, ephemeral

__all__ = ["aconnect", "connect", "ephemeral"]

# gRPC's fork handlers run in the child between fork and exec, and now and then break it (seen
# as programs that fail at once with "epoll_wait error"). We fork only to exec another program.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def __getattr__(name: str) -> Any:
    """Imported when first used: a part that never calls it need not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("pagestore.sdk"), name)
