"""Which databases' catalogs travel with a base backup."""

from __future__ import annotations

import pytest

from pagestore.reader.hotpages import entered_databases

TEMPLATES = [0, 1, 4]


@pytest.mark.parametrize(
    ("databases", "entered"),
    [
        ([5, 13573], {13573}),
        ([5, 13573, 16384, 16390], {13573}),
        ([5], {5}),
        ([5, 16384, 16390], {5, 16384}),
        ([16390], {5, 16390}),
    ],
    ids=["ours", "ours with more", "nothing else", "imported", "imported without postgres"],
)
def test_the_database_that_sessions_are_for_is_found_by_its_number(
    databases: list[int], entered: set[int]
) -> None:
    assert entered_databases(TEMPLATES + databases) == entered
