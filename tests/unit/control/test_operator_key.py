"""Passwords are sealed, those of old stores too, and nothing is left of them in clear."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.control import credentials
from pagestore.control.operator_key import KEY_BYTES, OperatorKey, settle
from pagestore.control.state import ControlState
from pagestore.control.storage import FILE
from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.ids import DEFAULT_TENANT as TENANT
from pagestore.ids import TenantId
from pagestore.lmdbfile import witness
from pagestore.lmdbfile.pages import unused
from tests.unit.control.fakes import Plane, play
from tests.unit.control.test_state import database

OLD = Path(__file__).parent / "clear_passwords.mdb"
"""Of a pagestore that kept passwords in clear: records that were changed, renamed and removed."""
KEY = OperatorKey(b"k" * KEY_BYTES)
SEALED = KEY.seal(TENANT, "a password of some length")


@given(st.text())
def test_what_is_sealed_is_opened_by_its_key_and_tenant_alone(clear: str) -> None:
    sealed = KEY.seal(TENANT, clear)
    assert KEY.open(TENANT, sealed) == clear
    assert sealed != KEY.seal(TENANT, clear)
    assert OperatorKey(b"l" * KEY_BYTES).open(TENANT, sealed) == ""
    with pytest.raises(DataLoss):
        KEY.open(TenantId(b"o" * 16), sealed)


@pytest.mark.parametrize("place", range(8, len(SEALED)))
def test_any_changed_letter_of_it_is_noticed(place: int) -> None:
    for other in "ABCDxyz019+/=":
        if other != SEALED[place]:
            with pytest.raises(DataLoss):
                KEY.open(TENANT, SEALED[:place] + other + SEALED[place + 1 :])


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "made" / "operator-key"
    for _ in range(2):
        with ControlState(tmp_path / "control") as state:
            key = settle(state, file)
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert state.view().key() is not None
    with ControlState(tmp_path / "control") as state:
        assert settle(state, file).id == key.id


def test_an_old_stores_passwords_are_sealed_and_nowhere_in_clear(tmp_path: Path) -> None:
    file = _old(tmp_path)
    assert b"clear-app3-password" in file.read_bytes()
    for _ in range(2):
        with ControlState(tmp_path) as state:
            key = settle(state, tmp_path / "operator-key")
            names = {item.name: item for item in state.view().databases()}
            assert len(names) == 10
            assert credentials.password(key, names["app3"]) == "clear-app3-password"
            assert credentials.password(key, names["other"]) == "clear-app5-password"
            assert not any(item.password for item in names.values())
            assert len(state.view().kept_files(names["app3"].timeline)) == 1
        assert b"clear-" not in file.read_bytes()


def test_a_crash_before_the_file_was_overwritten_leaves_that_to_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _old(tmp_path)

    def killed(state: ControlState) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, ControlState(tmp_path) as state:
        patch.setattr(ControlState, "overwrite_unused", killed)
        with pytest.raises(KeyboardInterrupt):
            settle(state, tmp_path / "operator-key")
    assert b"clear-" in file.read_bytes()
    with ControlState(tmp_path) as state:
        settle(state, tmp_path / "operator-key")
    assert b"clear-" not in file.read_bytes()


def test_what_is_in_use_is_not_overwritten(tmp_path: Path) -> None:
    file = _old(tmp_path)
    with ControlState(tmp_path) as state:
        before = [item.encode() for item in state.view().databases()]
        files = {item: state.view().kept_files(item) for item in state.view().timeline_ids()}
        state.overwrite_unused()
        assert [item.encode() for item in state.view().databases()] == before
    raw = file.read_bytes()
    assert all(not any(raw[begin:end]) for begin, end in unused(raw))
    with ControlState(tmp_path) as state:
        assert {item: state.view().kept_files(item) for item in files} == files
        with state.change() as change:
            for number in range(50):
                change.put_database(database(f"more{number}"))
    with ControlState(tmp_path) as state:
        assert len(state.view().databases()) == 60


@pytest.mark.parametrize("found", [None, b"00" * KEY_BYTES])
def test_a_lost_key_is_named_and_gone_on_without_only_when_told_to(
    tmp_path: Path, found: bytes | None
) -> None:
    file = tmp_path / "operator-key"
    with ControlState(tmp_path) as state:
        old = settle(state, file)
        with state.change() as change:
            sealed = old.seal(TENANT, "known")
            record = database("app").model_copy(update={"sealed_password": sealed, "password": ""})
            change.put_database(record)
        file.unlink()
        if found is not None:
            file.write_bytes(found)
            file.chmod(0o600)
        with pytest.raises(FailedPrecondition, match="operator-key") as caught:
            settle(state, file)
        assert caught.value.reason == "OPERATOR_KEY_LOST"
        assert file.exists() == (found is not None), "no key is made in its place"
        witness.acceptance_file(file).touch()
        new = settle(state, file)
        assert credentials.password(new, state.view().known_database(TENANT, "app")) == ""
        assert settle(state, file).id == new.id
        assert not witness.acceptance_file(file).exists()


def test_a_key_that_others_can_read_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "operator-key"
    with ControlState(tmp_path) as state:
        settle(state, file)
        file.chmod(0o640)
        with pytest.raises(FailedPrecondition) as caught:
            settle(state, file)
        assert caught.value.reason == "OPERATOR_KEY_EXPOSED"
        file.chmod(0o600)
        file.write_text("no key")
        with pytest.raises(DataLoss) as damaged:
            settle(state, file)
        assert damaged.value.reason == "FILE_CORRUPT"


async def _a_new_password_is_sealed_at_once(plane: Plane) -> None:
    await plane.plane.databases.create(TENANT, "app")
    told = plane.session("app").told
    raw = (plane.state.directory / FILE).read_bytes()
    assert len(told[0]) == 24
    assert told[0].encode() not in raw
    assert credentials.password(plane.key, plane.record("app")) == told[0]


def test_a_new_databases_password_is_not_in_the_file(tmp_path: Path) -> None:
    play(tmp_path, _a_new_password_is_sealed_at_once)


def test_safekeepers_log_in_with_what_tells_no_password() -> None:
    record = database("app").model_copy(update={"sealed_password": KEY.seal(TENANT, "a")})
    other = database("app").model_copy(update={"sealed_password": KEY.seal(TENANT, "a")})
    branch = record.model_copy(update={"name": "twig"})
    assert credentials.wal_password(KEY, record) == credentials.wal_password(KEY, branch)
    assert credentials.wal_password(KEY, record) != credentials.wal_password(KEY, other)


def _old(directory: Path) -> Path:
    file = directory / FILE
    file.write_bytes(OLD.read_bytes())
    return file
