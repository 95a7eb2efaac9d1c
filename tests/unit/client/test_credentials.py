"""Which token a client shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.client import credentials
from pagestore.client.credentials import Credentials, TokenFile


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PAGESTORE_TOKEN", "PAGESTORE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PAGESTORE_DATA", str(tmp_path))
    monkeypatch.setattr(credentials, "_ours", [])
    monkeypatch.setattr(credentials, "_home", [])


def shown() -> list[str]:
    return [value for _, value in credentials.default().metadata]


def test_the_owner_has_the_operators_from_the_data_directory(tmp_path: Path) -> None:
    assert shown() == []
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens/operator").write_text("pst1_o\n")
    assert shown() == ["Bearer pst1_o"]


def test_the_environment_goes_before_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("pst1_file")
    monkeypatch.setenv("PAGESTORE_TOKEN_FILE", str(tmp_path / "mine"))
    assert shown() == ["Bearer pst1_file"]
    monkeypatch.setenv("PAGESTORE_TOKEN", "pst1_text")
    assert shown() == ["Bearer pst1_text"]


def test_a_part_shows_its_own() -> None:
    credentials.use(Credentials.of_token("pst1_part"))
    assert shown() == ["Bearer pst1_part"]


def test_a_renewed_file_is_read_again_and_a_lost_one_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = TokenFile(path)
    assert token() == ""
    for text in ("one", "two"):
        (tmp_path / "next").write_text(text)
        (tmp_path / "next").rename(path)
        assert token() == text
    path.unlink()
    assert token() == ""


@pytest.mark.parametrize("token", ["a\nb", "é", "\0", "a\r\nx: y"])
def test_what_cannot_stand_in_a_header_is_not_sent(token: str) -> None:
    assert Credentials.of_token(token).metadata == ()


def test_a_token_is_not_printed() -> None:
    assert "secret" not in repr(Credentials.of_token("secret"))
