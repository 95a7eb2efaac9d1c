"""Computes reached over TCP: the role for safekeepers, its password, and who else may come."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pagestore.compute.certificate import make_certificate
from pagestore.compute.record import RECORD_FILE, ComputeRecord
from pagestore.compute.running import RunningCompute
from pagestore.errors import FailedPrecondition
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.postgres.listening import check_compute_host
from pagestore.postgres.settings import KEY_FILE
from pagestore.postgres.wal_role import WAL_ROLE
from tests import access
from tests.integration.stack import Compute, Stack, running_stack
from tests.plain_postgres import plain_postgres
from tests.waiting import wait_until

HOST = "localhost"
PASSWORD = "a password that nobody else has"
STANDBYS = (
    "SELECT usename, client_addr IS NOT NULL FROM pg_stat_replication WHERE state = 'streaming'"
)
ROLE = f"SELECT xmin, rolreplication, rolsuper FROM pg_authid WHERE rolname = '{WAL_ROLE}'"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as running:
        yield running


@pytest.fixture(scope="module")
def timeline(stack: Stack) -> TimelineId:
    with plain_postgres() as cluster:
        cluster.sql("CREATE TABLE t (id int)")
        cluster.sql("CREATE ROLE writer LOGIN PASSWORD 'his own'")
        cluster.stop()
        return stack.import_cluster(cluster.data)


@pytest.fixture
def compute(stack: Stack, timeline: TimelineId) -> Iterator[Compute]:
    running = stack.start(timeline, host=HOST, wal_password=PASSWORD)
    yield running
    if running.running.alive:
        running.stop()


def _over_tcp(compute: Compute, user: str, password: str, **more: str) -> psycopg.Connection[Any]:
    port = compute.running.port
    return psycopg.connect(
        host="127.0.0.1", port=port, user=user, password=password, connect_timeout=5, **more
    )


def _files_of(stack: Stack, timeline: TimelineId) -> list[Path]:
    wal = stack.safekeeper.data_dir / str(DEFAULT_TENANT) / str(timeline)
    return [path for path in wal.iterdir() if path.is_file()]


def test_a_safekeeper_streams_over_tcp_as_a_role_of_its_own(compute: Compute) -> None:
    assert compute.sql(STANDBYS) == [(WAL_ROLE, True)]
    compute.sql("INSERT INTO t VALUES (1)")
    assert compute.sql(ROLE)[0][1:] == (True, False)


def test_a_start_writes_nothing_when_the_role_is_there(stack: Stack, timeline: TimelineId) -> None:
    found = []
    for _ in range(2):
        compute = stack.start(timeline, host=HOST, wal_password=PASSWORD)
        found.append(compute.sql(ROLE))
        compute.stop()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "harm",
    [
        f"DROP ROLE {WAL_ROLE}",
        f"ALTER ROLE {WAL_ROLE} PASSWORD 'another'",
        f"ALTER ROLE {WAL_ROLE} PASSWORD NULL",
        f"ALTER ROLE {WAL_ROLE} NOLOGIN NOREPLICATION",
        f"ALTER ROLE {WAL_ROLE} VALID UNTIL '2001-01-01'",
    ],
)
def test_the_next_start_mends_what_a_user_did_to_the_role(
    stack: Stack, timeline: TimelineId, compute: Compute, harm: str
) -> None:
    compute.sql(harm)
    compute.stop()
    again = stack.start(timeline, host=HOST, wal_password=PASSWORD)
    assert again.sql(STANDBYS) == [(WAL_ROLE, True)]
    again.stop()


def test_nobody_else_comes_over_tcp_and_the_role_may_only_replicate(compute: Compute) -> None:
    for user, password, where in (
        ("writer", "his own", {"dbname": "postgres"}),
        (WAL_ROLE, PASSWORD, {"dbname": "postgres"}),
        (WAL_ROLE, "wrong", {"replication": "true"}),
    ):
        for mode in ("require", "disable"):
            with pytest.raises(psycopg.OperationalError):
                _over_tcp(compute, user, password, sslmode=mode, **where)
    with _over_tcp(compute, WAL_ROLE, PASSWORD, replication="true", sslmode="require") as session:
        assert session.pgconn.ssl_in_use


def test_what_comes_in_clear_is_refused_by_name(compute: Compute) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba.conf entry .* no encryption"):
        _over_tcp(compute, WAL_ROLE, PASSWORD, replication="true", sslmode="disable")


def test_wal_is_encrypted_whatever_a_superuser_sets(compute: Compute) -> None:
    compute.sql("ALTER SYSTEM SET ssl = off")
    compute.sql("SELECT pg_reload_conf()")
    pid = compute.sql("SELECT active_pid FROM pg_replication_slots WHERE active")[0][0]
    # The one that is ended is seen for a moment still.
    query = f"SELECT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE pid <> {pid}"
    compute.sql(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: compute.sql(query) != [])
    assert compute.sql(query) == [(True,)]
    compute.sql("INSERT INTO t VALUES (2)")


def test_the_key_is_the_servers_to_read_and_nobodys_to_write(compute: Compute) -> None:
    key = (compute.running.directory / KEY_FILE).stat()
    data = compute.running.data.stat()
    assert key.st_uid == os.geteuid()
    assert key.st_gid == data.st_gid
    assert stat.S_IMODE(key.st_mode) == (0o640 if os.geteuid() == 0 else 0o600)
    if os.geteuid() == 0:  # else the server's user is ours, and walls alone keep him from it
        with pytest.raises(psycopg.Error, match="Permission denied"):
            compute.sql(f"COPY (SELECT 1) TO '{compute.running.directory / KEY_FILE}'")


def test_a_compute_that_shows_another_certificate_is_refused_by_name(
    stack: Stack, timeline: TimelineId, compute: Compute, tmp_path: Path
) -> None:
    """And followed again, as soon as its own is told."""
    running = compute.running
    stranger = make_certificate(tmp_path, HOST, os.getegid())
    other = replace(running.record, certificate=stranger)
    assert "certificate verify failed" in _after(stack, timeline, running, other)
    _tell(stack, timeline, running, running.record)
    compute.sql("INSERT INTO t VALUES (3)")
    assert compute.sql(STANDBYS) == [(WAL_ROLE, True)]


def _tell(
    stack: Stack, timeline: TimelineId, running: RunningCompute, record: ComputeRecord
) -> None:
    address = record.signed_for_safekeepers(access.signer())
    attaching = stack.wal.attach_compute(DEFAULT_TENANT, timeline, running.term, address, 0)
    stack.wait(attaching)


def _after(
    stack: Stack, timeline: TimelineId, running: RunningCompute, record: ComputeRecord
) -> str:
    """What the safekeeper says, once it has been told that the compute is there."""
    _tell(stack, timeline, running, record)

    def said() -> str:
        status = stack.wait(stack.wal.get_status(DEFAULT_TENANT, timeline))
        return str(status.last_error)

    wait_until(said)
    return said()


def test_the_password_is_in_private_files_alone(
    stack: Stack, timeline: TimelineId, compute: Compute
) -> None:
    record = compute.running.directory / RECORD_FILE
    holding = [path for path in _files_of(stack, timeline) if PASSWORD in _text(path)]
    assert [path.name for path in holding] == ["control"]
    for path in (record, *holding):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PASSWORD not in repr(compute.running.record)
    compute.sql(f"ALTER ROLE {WAL_ROLE} PASSWORD 'another'")
    stack.safekeeper.stop()
    stack.safekeeper.start()
    for log in (compute.running.log, stack.safekeeper.log, stack.page_server.log):
        assert PASSWORD not in _text(log)


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "127.0.0.1,::1", "no.such.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        check_compute_host(host)
    assert caught.value.reason == "COMPUTE_HOST_NOT_OURS"
    check_compute_host("127.0.0.1")
