"""The load generators in C, which are built with the native module."""

from __future__ import annotations

from pathlib import Path

from pagestore import _native
from pagestore.errors import FailedPrecondition


def generator(name: str, hint: str) -> Path:
    """
    Args:
        hint: how it comes about where it is missing.

    Raises:
        FailedPrecondition: LOAD_GENERATOR_MISSING.
    """
    installed = _native.__file__
    assert installed is not None
    path = Path(installed).parent / "_lib" / name
    if not path.exists():
        raise FailedPrecondition("LOAD_GENERATOR_MISSING", f"There is no {path}.", hint)
    return path


def page_load() -> Path:
    return generator("getpage_load", "Install libnghttp2-dev and build pagestore again.")


def session_load() -> Path:
    return generator("session_load", "Build pagestore again.")
