from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.objects.store import ObjectStore


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A directory's."""
    return ObjectStore.open(f"file://{tmp_path}/objects", {})
