from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.compute.config import ServerPlace, command_line, postgresql_conf, quoted_settings
from pagestore.errors import InvalidInput
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.v1 import page_pb2 as pb

PLACE = ServerPlace(
    port=5433,
    socket_directory=Path("/run/x"),
    page_server="127.0.0.1:7440",
    tenant=DEFAULT_TENANT,
    timeline=TimelineId(bytes(15) + b"\7"),
    lsn=0x1_0000_0028,
    shim_library=Path("/lib/shim.so"),
)


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        ((), ""),
        ((1,), "ANY 1 (sk1)"),
        ((1, 2, 3), "ANY 2 (sk1, sk2, sk3)"),
        ((4, 7, 8, 9, 12), "ANY 3 (sk4, sk7, sk8, sk9, sk12)"),
    ],
)
def test_commits_wait_for_a_majority(ids: tuple[int, ...], names: str) -> None:
    assert command_line(PLACE, ids)["synchronous_standby_names"] == names


def test_the_shim_is_told_where_its_pages_are() -> None:
    values = command_line(PLACE, (1,))
    assert values["pagestore.lsn"] == "1/28"
    assert values["pagestore.timeline_id"] == "0" * 30 + "07"
    assert values["pagestore.page_server"] == "127.0.0.1:7440"


def conf(settings: pb.ControlSettings, **overrides: str) -> dict[str, str]:
    lines = postgresql_conf(settings, overrides).splitlines()
    return dict(line.split(" = ") for line in lines)


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
