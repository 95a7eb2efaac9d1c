"""A user of its own for each compute: never one that another still has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.agent.users import DEFAULT_UIDS, Users, range_of_uids
from pagestore.compute.record import ComputeRecord
from pagestore.errors import InvalidInput, ResourceExhausted
from pagestore.ids import DEFAULT_TENANT, TimelineId


def lives(directory: Path, uid: int, name: str = "0123456789-abcdef") -> Path:
    place = directory / name
    place.mkdir()
    ComputeRecord(DEFAULT_TENANT, TimelineId.generate(), 5432, "", "", uid=uid).save(place)
    return place


def test_each_has_another_until_all_were_had(tmp_path: Path) -> None:
    users = Users(range(2000, 2010), tmp_path)
    assert {users.take() for _ in range(10)} == set(range(2000, 2010))


def test_one_that_a_record_names_is_not_given_out(tmp_path: Path) -> None:
    """Nor is one whose directory is only being removed, whoever began that."""
    lives(tmp_path, 2001)
    lives(tmp_path, 2003, "0123456789-abcdee.removing")
    users = Users(range(2000, 2005), tmp_path)
    assert {users.take() for _ in range(9)} == {2000, 2002, 2004}


def test_one_is_free_again_with_its_directory(tmp_path: Path) -> None:
    place = lives(tmp_path, 2000)
    users = Users(range(2000, 2001), tmp_path)
    with pytest.raises(ResourceExhausted) as caught:
        users.take()
    assert caught.value.reason == "NO_UID_LEFT"
    (place / "compute.json").unlink()
    assert users.take() == 2000


def test_a_range_is_one_of_nobodys() -> None:
    assert range_of_uids(DEFAULT_UIDS) == range(1_900_000_000, 1_900_065_536)
    for text in ("", "5", "0-70000", "999-2000", "3000-2000", "a-b", "2000-4294967295", "2000-²"):
        with pytest.raises(InvalidInput) as caught:
            range_of_uids(text)
        assert caught.value.reason == "INVALID_UIDS"
