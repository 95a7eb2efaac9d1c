from __future__ import annotations

import os

import pytest

from pagestore.errors import FailedPrecondition
from pagestore.postgres import process


@pytest.mark.parametrize(
    ("euid", "run_as", "reason"),
    [
        (0, None, "RUNS_AS_ROOT"),
        (0, "root", "RUNS_AS_ROOT"),
        (0, "no-such-user", "USER_MISSING"),
        (65534, "daemon", "CANNOT_CHANGE_USER"),
    ],
)
def test_users_that_a_server_cannot_run_as(
    euid: int, run_as: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    with pytest.raises(FailedPrecondition) as caught:
        process.account(run_as)
    assert caught.value.reason == reason


def test_our_own_user_needs_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    assert process.account(None) is None
    assert process.account("daemon") is None


def test_start_times_tell_processes_apart() -> None:
    ticks = process.start_ticks(os.getpid())
    assert ticks is not None
    assert ticks > 0
    assert process.start_ticks(2**22 + 1) is None
