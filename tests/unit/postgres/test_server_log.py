from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.postgres.server_log import ServerFailed, ServerLog, complaint, log_tail

AT = "2026-11-29 10:00:00.000 UTC [7] "


@pytest.mark.parametrize(
    ("lines", "matters"),
    [
        ([], ""),
        (
            [
                f"{AT}LOG:  starting PostgreSQL 15.8",
                f"{AT}FATAL:  could not map anonymous shared memory: Cannot allocate memory",
                f"{AT}HINT:  This error usually means that ...",
                f"{AT}LOG:  database system is shut down",
            ],
            "could not map anonymous shared memory: Cannot allocate memory",
        ),
        (
            [
                f"{AT}FATAL:  the database system is starting up",
                f"{AT}PANIC:  could not locate a valid checkpoint record",
            ],
            "could not locate a valid checkpoint record",
        ),
        (
            [
                f'{AT}LOG:  invalid value for parameter "work_mem": "lots"',
                f'{AT}FATAL:  configuration file "/x/postgresql.auto.conf" contains errors',
            ],
            'invalid value for parameter "work_mem": "lots"',
        ),
        (
            [
                f'{AT}LOG:  could not bind IPv4 address "127.0.0.1": Address already in use',
                f'{AT}WARNING:  could not create listen socket for "127.0.0.1"',
                f"{AT}FATAL:  could not create any TCP/IP sockets",
            ],
            'could not bind IPv4 address "127.0.0.1": Address already in use',
        ),
        (["postgres: command line fault", ""], "postgres: command line fault"),
        (["db=x FATAL:  53200: out of memory"], "53200: out of memory"),
    ],
)
def test_the_line_that_matters(lines: list[str], matters: str) -> None:
    assert complaint(lines) == matters


def test_only_this_start_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("FATAL:  of yesterday\n")
    log = ServerLog.from_now(path)
    assert log.complaint == ""
    with path.open("a") as file:
        file.write("FATAL:  of today\n")
    error = ServerFailed(log, 1)
    assert error.message == "Postgres exited with status 1: of today"
    assert str(path) in (error.hint or "")
    assert log_tail(path).splitlines() == ["FATAL:  of yesterday", "FATAL:  of today"]


def test_a_missing_log_says_nothing(tmp_path: Path) -> None:
    assert ServerLog.from_now(tmp_path / "none").complaint == ""
    assert log_tail(tmp_path / "none") == ""
