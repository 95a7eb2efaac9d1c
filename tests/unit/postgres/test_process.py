from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pagestore.errors import FailedPrecondition
from pagestore.postgres import process, server_log


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


def test_a_missing_log_has_an_empty_tail(tmp_path: Path) -> None:
    assert server_log.log_tail(tmp_path / "none.log") == ""


def test_a_log_ends_in_text_whatever_stands_in_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 1_000_000 + b"\nfirst\n\x1b]0;title\x07\xff last\n")
    tail = server_log.log_tail(log)
    assert tail.splitlines()[-2:] == ["first", "\ufffd]0;title\ufffd\ufffd last"]
    assert len(tail) < 300_000


def test_a_log_that_is_a_fifo_or_a_link_is_neither_read_nor_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    for name in ("fifo", "link"):
        assert server_log.log_tail(tmp_path / name) == ""
        with pytest.raises(OSError, match=name):
            server_log.open_log(tmp_path / name)
    assert not (tmp_path / "other").exists()


def test_a_process_may_be_called_anything() -> None:
    name = b") Z 1 \xff"
    child = subprocess.Popen(
        ["python3", "-c", f"open('/proc/self/comm', 'wb').write({name!r}); input()"],
        stdin=subprocess.PIPE,
    )
    try:
        comm = Path(f"/proc/{child.pid}/comm")
        while comm.read_bytes().strip() != name.strip():
            time.sleep(0.01)
        identity = process.Identity.of(child.pid)
        assert identity is not None
        assert identity.alive
        for other in (identity._replace(start_ticks=1), identity._replace(boot_id="earlier")):
            assert not other.alive
            other.send(signal.SIGKILL)
            assert other.open() is None
        assert child.poll() is None
        identity.send(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
        assert not identity.alive
    finally:
        child.kill()
        child.wait()


def test_a_process_that_never_was_is_not_there() -> None:
    """A record is written before its server is executed, and may be all that was written."""
    nobody = process.Identity(0, 0, "")
    assert not nobody.alive
    assert nobody.open() is None
    nobody.send(signal.SIGTERM)
