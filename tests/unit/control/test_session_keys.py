"""The keys that seal sessions: the same for a database's life, whatever becomes of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.control.records import DatabaseRecord
from pagestore.control.session_keys import FILE_NAME, SessionKeys
from pagestore.ids import DEFAULT_TENANT, TimelineId


def record(name: str = "app", created: int = 1) -> DatabaseRecord:
    return DatabaseRecord(
        tenant=DEFAULT_TENANT,
        name=name,
        timeline=TimelineId.generate(),
        branch_lsn=0,
        created_micros=created,
        password="",
        postgres_database="app",
    )


def test_a_key_is_the_databases_whatever_its_name_and_timeline(tmp_path: Path) -> None:
    keys = SessionKeys.of_directory(tmp_path)
    assert keys.key(record()) == keys.key(record("renamed"))
    assert keys.key(record()) != keys.key(record(created=2))
    assert SessionKeys.of_directory(tmp_path).key(record()) == keys.key(record())
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("left", [b"", b"0123", b"\0" * 65])
def test_a_secret_that_is_damaged_is_made_anew(tmp_path: Path, left: bytes) -> None:
    before = SessionKeys.of_directory(tmp_path).key(record())
    (tmp_path / FILE_NAME).write_bytes(left)
    after = SessionKeys.of_directory(tmp_path).key(record())
    assert after != before
    assert SessionKeys.of_directory(tmp_path).key(record()) == after
