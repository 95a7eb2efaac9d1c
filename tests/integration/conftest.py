"""Fixtures that several modules want alike; what they are made from is the module's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.page_source import PageSource, serving
from tests.plain_postgres import PlainPostgres


@pytest.fixture
def pages(source: PlainPostgres) -> Iterator[PageSource]:
    """A server of the pages of the module's `source`."""
    with serving(source) as server:
        yield server
