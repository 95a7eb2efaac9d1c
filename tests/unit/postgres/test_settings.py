from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.errors import InvalidInput
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.postgres.settings import (
    SYNCHRONOUS_FILE,
    ServerPlace,
    command_line,
    kept_auto_conf,
    postgresql_conf,
    quorum_rule,
    quoted_settings,
    synchronous_conf,
)
from pagestore.v1 import page_pb2 as pb

PLACE = ServerPlace(
    port=5433,
    socket_directory=Path("/run/x"),
    page_server="127.0.0.1:7440",
    tenant=DEFAULT_TENANT,
    timeline=TimelineId(bytes(15) + b"\7"),
    shim_library=Path("/lib/shim.so"),
)


def test_the_rule_is_in_a_file_of_its_own() -> None:
    rule = quorum_rule(2, ("sk1", "sk2_7", "sk3"))
    assert rule == "ANY 2 (sk1, sk2_7, sk3)"
    assert synchronous_conf(rule) == f"synchronous_standby_names = '{rule}'\n"


def test_whom_commits_wait_for_is_said_last() -> None:
    text = postgresql_conf(pb.ControlSettings(), {"synchronous_standby_names": "nobody"})
    assert text.splitlines()[-1] == f"include '{SYNCHRONOUS_FILE}'"


def test_what_alter_system_left_says_nothing_of_the_quorum() -> None:
    kept = b"# made by ALTER SYSTEM\nwork_mem = '1MB'\nSynchronous_Standby_Names = ''\n"
    assert kept_auto_conf(kept) == b"# made by ALTER SYSTEM\nwork_mem = '1MB'\n"


def test_the_shim_is_told_where_its_pages_are() -> None:
    values = command_line(PLACE)
    assert values["pagestore.timeline_id"] == "0" * 30 + "07"
    assert values["pagestore.page_server"] == "127.0.0.1:7440"


def conf(settings: pb.ControlSettings, **overrides: str) -> dict[str, str]:
    lines = postgresql_conf(settings, overrides).splitlines()
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


def test_values_are_quoted() -> None:
    assert quoted_settings({"a.b": "it's \\ fine"}) == "a.b = 'it''s \\\\ fine'\n"


@pytest.mark.parametrize(
    ("name", "value"), [("work_mem", "1\nfsync = on"), ("a b", "1"), ("x", "\0"), ("", "1")]
)
def test_nothing_breaks_out_of_its_line(name: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        quoted_settings({name: value})
