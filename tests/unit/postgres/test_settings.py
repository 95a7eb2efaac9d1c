from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.postgres.settings import (
    KEY_FILE,
    SYNCHRONOUS_FILE,
    ServerPlace,
    auto_conf,
    command_line,
    hba,
    ident,
    pages_settings,
    postgresql_conf,
    quorum_rule,
    synchronous_conf,
)
from pagestore.postgres.wal_role import WAL_ROLE
from pagestore.v1 import page_pb2 as pb

PLACE = ServerPlace(
    port=5433,
    socket_directory=Path("/run/x"),
    page_server="127.0.0.1:7440",
    shim_library=Path("/lib/shim.so"),
    files=Path("/c"),
)


def test_the_rule_is_in_a_file_of_its_own() -> None:
    rule = quorum_rule(2, ("sk1", "sk2_7", "sk3"))
    assert rule == "ANY 2 (sk1, sk2_7, sk3)"
    assert synchronous_conf(rule) == f"synchronous_standby_names = '{rule}'\n"


def test_whom_commits_wait_for_is_said_last() -> None:
    nobody = {"synchronous_standby_names": "nobody"}
    text = postgresql_conf(pb.ControlSettings(), nobody, Path("/c"))
    assert text.splitlines()[-1] == f"include '/c/{SYNCHRONOUS_FILE}'"


def test_nobody_enters_by_the_socket_without_a_password_but_pagestores_user() -> None:
    assert "trust" not in hba("postgres", "")
    first = next(line.split() for line in hba('the "boss"', "").splitlines() if line[0] != "#")
    assert first == ["local", "all", '"the', '""boss"""', "peer", "map=pagestore"]
    assert ident('the "boss"', ["root"]) == 'pagestore  "root"  "the ""boss"""\n'


def test_pagestores_user_enters_as_the_roles_that_are_named() -> None:
    lines = [line.split() for line in hba("postgres", "", ["web", "all"]).splitlines()]
    assert lines[-3:] == [
        ["local", "all", '"web"', "peer", "map=pagestore"],
        ["local", "all", '"all"', "peer", "map=pagestore"],
        ["local", "all", "all", "scram-sha-256"],
    ]
    assert ident("postgres", ["root"], ["web"]).splitlines() == [
        'pagestore  "root"  "postgres"',
        'pagestore  "root"  "web"',
    ]


def test_from_other_hosts_nobody_comes_but_safekeepers_and_they_by_tls_alone() -> None:
    local, there = hba("postgres", ""), hba("postgres", "10.0.0.1")
    assert there.startswith(local)
    [line] = [line for line in there[len(local) :].splitlines() if line[0] != "#"]
    assert line.split() == ["hostssl", "replication", WAL_ROLE, "all", "scram-sha-256"]
    told = command_line(replace(PLACE, host="10.0.0.1"))
    assert told["ssl"] == "on"
    assert told["ssl_key_file"] == str(PLACE.files / KEY_FILE)
    assert "ssl" not in command_line(PLACE)


def test_what_alter_system_left_says_nothing_of_the_quorum() -> None:
    kept = {"work_mem": "1MB", "Synchronous_Standby_Names": "", "wal_level": "minimal"}
    assert auto_conf(kept).splitlines()[1:] == ["work_mem = '1MB'"]


def test_the_shim_is_told_where_its_pages_are() -> None:
    assert command_line(PLACE)["pagestore.page_server"] == "127.0.0.1:7440"
    told = pages_settings(DEFAULT_TENANT, TimelineId(bytes(15) + b"\7"), 0x1_0000_0028)
    assert told["pagestore.timeline_id"] == "0" * 30 + "07"
    assert told["pagestore.lsn"] == "1/28"


def conf(settings: pb.ControlSettings, **overrides: str) -> dict[str, str]:
    lines = postgresql_conf(settings, overrides, Path("/c")).splitlines()
    return dict(line.split(" = ") for line in lines if " = " in line)


def test_settings_of_the_timeline_are_raised_to_what_a_compute_needs() -> None:
    low = conf(pb.ControlSettings(wal_level=0, max_connections=20, max_locks_per_xact=64))
    assert low["wal_level"] == "'replica'"
    assert low["max_connections"] == "'100'"
    assert low["max_prepared_transactions"] == "'64'"
    high = conf(pb.ControlSettings(wal_level=2, max_connections=500, max_prepared_xacts=99))
    assert high["wal_level"] == "'logical'"
    assert high["max_connections"] == "'500'"
    assert high["max_prepared_transactions"] == "'99'"
    assert conf(pb.ControlSettings(), max_connections="7")["max_connections"] == "'7'"
