"""Checks a catalog file before LMDB maps it."""

from __future__ import annotations

from pathlib import Path


def check_catalog(path: Path) -> None:
    """Nothing yet."""
