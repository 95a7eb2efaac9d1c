"""Which majors there are, and what is said of others."""

from __future__ import annotations

import pytest

from pagestore.errors import FailedPrecondition
from pagestore.pgformat import versions


@pytest.mark.parametrize("version", versions.ALL, ids=lambda version: str(version.major))
def test_a_major_is_found_by_its_number_and_by_its_catalogs(version: versions.Version) -> None:
    assert versions.of_major(version.major) is version
    assert versions.of_catalog(version.catalog_version) is version


def test_of_a_major_that_was_asked_for_it_is_said_which_there_are() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        versions.of_major(16)
    assert caught.value.message == "Postgres 16 is none that pagestore knows: 15, 17, 18."
    assert "pagestore status" in caught.value.hint


def test_of_a_cluster_it_is_said_how_to_bring_it() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        versions.of_major(14, "/there")
    assert caught.value.message == "/there is of Postgres 14. pagestore knows Postgres 15, 17, 18."
    assert "pg_upgrade" in caught.value.hint
