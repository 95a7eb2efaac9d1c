"""Where what the clients' package managers fetch is kept, and how a test says that it did not run.

Nothing is fetched unless ``--clients=all`` asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

_CACHE = Path(__file__).parents[2] / "build/clients"


def cache() -> Path:
    """Kept between runs, and no part of the repository."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    return _CACHE


def missing(what: str) -> NoReturn:
    pytest.skip(f"did NOT run: {what}")
