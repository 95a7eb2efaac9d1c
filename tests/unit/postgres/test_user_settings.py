from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.errors import InvalidInput
from pagestore.postgres.user_settings import (
    FIXED,
    allowed,
    check,
    fault,
    for_the_shim,
    includes,
    joined,
    listed,
    parse,
    preloaded,
    render,
)

SHIM = Path("/lib/pagestore_shim-12ab.so")


def test_a_file_is_read_as_postgres_reads_it() -> None:
    text = b"""
# a comment
Work_Mem = '1MB'   # behind
port 5433
listen_addresses='*'
it.s = 'it''s \\'fine\\' \\101\\n'
work_mem = 2MB
broken = 'no end
include 'other.conf'
include_dir conf.d
also broken = two words
"""
    assert parse(text) == {
        "work_mem": "2MB",
        "port": "5433",
        "listen_addresses": "*",
        "it.s": "it's 'fine' A\n",
    }
    assert includes(text) == ["other.conf", "conf.d"]


def test_what_is_written_is_read_again() -> None:
    values = {"a.b": "it's \\ fine", "x": "", "y": "'", "z": 'a, "b c" # d'}
    assert render({"a.b": "it's \\ fine"}) == "a.b = 'it''s \\\\ fine'\n"
    assert parse(render(values).encode()) == values


@pytest.mark.parametrize(
    ("name", "value"),
    [("work_mem", "1\nfsync = on"), ("a b", "1"), ("x", "\0"), ("", "1"), ("x", "1\rfsync = on")],
)
def test_nothing_breaks_out_of_its_line(name: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        render({name: value})


def test_what_a_compute_needs_is_not_the_users() -> None:
    wanted = {
        "work_mem": "1MB",
        "FSYNC": "on",
        "wal_level": "Minimal",
        "max_wal_senders": "3",
        "max_replication_slots": "10",
        "pagestore.lsn": "0/1",
        "shared_preload_libraries": "nope",
    }
    kept = {"work_mem": "1MB", "max_replication_slots": "10", "shared_preload_libraries": "nope"}
    assert allowed(wanted) == kept
    assert allowed({"wal_level": "logical"}) == {"wal_level": "logical"}
    with pytest.raises(InvalidInput, match="hba_file cannot be set") as caught:
        check({"hba_file": "/x"})
    assert caught.value.reason == "SETTING_FIXED"


def test_libraries_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "there.so").touch()
    name = "session_preload_libraries"
    assert not fault(name, f"there, $libdir/there.so, {tmp_path}/there", tmp_path)
    assert "'nope'" in fault(name, "there, nope", tmp_path)
    assert not fault(name, "nope")


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("", []),
        ("a", ["a"]),
        ('a, "b, c" ,d', ["a", "b, c", "d"]),
        ('"with ""quotes"""', ['with "quotes"']),
    ],
)
def test_lists_of_libraries(value: str, items: list[str]) -> None:
    assert listed(value) == items
    assert listed(joined(items)) == items


def test_the_users_libraries_come_behind_ours_which_is_there_once() -> None:
    ours = [SHIM, Path("/lib/pagestore_session.so")]
    assert listed(preloaded(ours, "pg_cron")) == [*map(str, ours), "pg_cron"]
    old = [Path("/old/pagestore_shim-0.so"), Path("/old/pagestore_session-0.so")]
    assert listed(preloaded(ours, preloaded(old, "pg_cron"))) == [*map(str, ours), "pg_cron"]


def test_the_shim_is_told_all_of_it_in_lines() -> None:
    lines = [line.split("\t") for line in for_the_shim().split("\n")]
    assert [line[0] for line in lines] == list(FIXED)
    rules = {name: rule for name, rule, _ in lines}
    assert rules["fsync"] == ""
    assert rules["wal_level"] == "!minimal"
    assert rules["max_wal_senders"] == ">=10"
    assert rules["local_preload_libraries"] == "libraries"
    assert all(why for _, _, why in lines)
