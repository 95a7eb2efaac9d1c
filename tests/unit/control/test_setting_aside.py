from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.control.records import UserSettings
from pagestore.control.setting_aside import (
    MOST_SUSPECTS,
    after_start,
    attempts,
    changed,
    is_worth_another,
    words,
)
from pagestore.postgres.server_log import ServerFailed, ServerLog

OLD, NEW = {"a": "1"}, {"a": "2", "b": "3"}


@pytest.mark.parametrize(
    ("wanted", "good", "tried"),
    [
        ({}, {}, [{}]),
        ({}, OLD, [{}]),
        ({"a": "2"}, {}, [{"a": "2"}, {}]),
        ({"a": "2"}, OLD, [{"a": "2"}, OLD, {}]),
        (NEW, {}, [NEW, {"b": "3"}, {"a": "2"}, {}]),
        (NEW, OLD, [NEW, {"a": "1", "b": "3"}, {"a": "2"}, OLD, {}]),
        ({"b": "3"}, OLD, [{"b": "3"}, {"b": "3", "a": "1"}, OLD, {}]),
        (OLD, OLD, [OLD, OLD, {}]),
    ],
)
def test_what_a_start_tries(
    wanted: dict[str, str], good: dict[str, str], tried: list[dict[str, str]]
) -> None:
    assert [*attempts(UserSettings(wanted=wanted, good=good))] == tried


def test_what_worked_is_good_from_then_on() -> None:
    before = UserSettings(wanted=NEW, good=OLD)
    assert after_start(before, NEW, "") == UserSettings(wanted=NEW, good=NEW)


def test_what_did_not_is_set_aside_until_settings_change() -> None:
    after = after_start(UserSettings(wanted=NEW, good=OLD), OLD, "no memory")
    assert after.wanted == after.good == OLD
    assert after.set_aside == NEW
    assert "a = 2, b = 3 (no memory)" in words(after)
    assert after_start(after, OLD, "") == after
    assert changed(after, OLD) is after
    assert changed(after, NEW) == UserSettings(wanted=NEW, good=OLD)
    assert words(changed(after, NEW)) == ""


def test_what_was_set_with_the_guilty_one_stays() -> None:
    wanted = {"work_mem": "8MB", "shared_buffers": "900GB", "log_statement": "ddl"}
    tries = attempts(UserSettings(wanted=wanted))
    used = next(item for item in tries if "shared_buffers" not in item)
    after = after_start(UserSettings(wanted=wanted), used, "no memory")
    assert after.set_aside == {"shared_buffers": "900GB"}
    assert after.wanted == {"work_mem": "8MB", "log_statement": "ddl"}


def test_of_many_new_ones_none_is_looked_for() -> None:
    many = {f"x.{number}": "1" for number in range(MOST_SUSPECTS + 1)}
    assert [*attempts(UserSettings(wanted=many, good=OLD))] == [many, OLD, {}]


@pytest.mark.parametrize(
    ("code", "said", "worth"),
    [
        (1, "FATAL:  could not map anonymous shared memory", True),
        (1, "", False),
        (-9, "FATAL:  anything", False),
        (None, "FATAL:  anything", False),
        (1, "FATAL:  could not create any TCP/IP sockets", False),
        (1, "FATAL:  could not bind IPv4 address: Address already in use", False),
        (1, "FATAL:  pagestore: the page server is away", False),
        (1, 'FATAL:  could not write file "x": No space left on device', False),
    ],
)
def test_not_every_end_is_a_settings_fault(
    code: int | None, said: str, worth: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text(f"10:00 [7] {said}\n" if said else "")
    assert is_worth_another(ServerFailed(ServerLog(log), code)) is worth
