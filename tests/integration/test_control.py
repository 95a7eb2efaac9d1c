"""The control plane on real parts: isolation of branches, points of the past, kills."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import grpc
import psycopg
import pytest

from pagestore.client.channels import open_blocking_channel
from pagestore.client.control import ControlClient
from pagestore.client.sync import PageClient
from pagestore.control.state import now_micros
from pagestore.errors import AlreadyExists, InvalidInput, NotFound, OutOfRange, PagestoreError
from pagestore.ids import DEFAULT_TENANT, TenantId, parse_lsn
from pagestore.v1 import control_pb2 as pb
from tests import access
from tests.integration.installation import Whole, patiently, sql, whole_pagestore
from tests.waiting import wait_until

RUNNING = pb.COMPUTE_STATE_RUNNING


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        yield running


@pytest.fixture
def control(whole: Whole) -> Iterator[ControlClient]:
    with whole.control() as client:
        yield client


def flush_lsn(url: str) -> int:
    return parse_lsn(str(sql(url, "SELECT pg_current_wal_flush_lsn()")[0][0]))


def test_branches_do_not_see_each_other(control: ControlClient) -> None:
    parent = control.create("family")
    sql(parent.url, "CREATE TABLE t AS SELECT g FROM generate_series(1, 100) g")
    children = [control.branch("family", f"child-{number}") for number in range(3)]
    for number, child in enumerate(children):
        sql(child.url, f"INSERT INTO t VALUES ({1000 + number}); DELETE FROM t WHERE g <= {number}")
    sql(parent.url, "INSERT INTO t VALUES (-1)")
    for number, child in enumerate(children):
        seen = sql(child.url, "SELECT count(*), max(g), min(g) FROM t")
        assert seen == [(101 - number, 1000 + number, number + 1)]
    assert sql(parent.url, "SELECT count(*), max(g), min(g) FROM t") == [(101, 100, -1)]
    assert len({child.url for child in children}) == 3
    for child in children:
        control.stop(child.name)


def test_a_branch_of_a_branch_survives_both_parents(control: ControlClient) -> None:
    grandparent = control.create("old")
    sql(grandparent.url, "CREATE TABLE t AS SELECT 1 AS a")
    parent = control.branch("old", "middle")
    sql(parent.url, "INSERT INTO t VALUES (2)")
    child = control.branch("middle", "young")
    assert control.delete("old")
    assert control.delete("middle")
    sql(child.url, "INSERT INTO t VALUES (3)")
    assert sql(child.url, "SELECT a FROM t ORDER BY a") == [(1,), (2,), (3,)]
    control.stop("young")
    assert sql(control.wake("young", reveal=True).url, "SELECT sum(a) FROM t") == [(6,)]
    with pytest.raises(NotFound):
        control.get("old")


def test_removing_the_last_branch_frees_the_ancestors(whole: Whole, control: ControlClient) -> None:
    before = _timelines(whole)
    control.create("freed")
    control.branch("freed", "freed-2")
    control.delete("freed")
    control.delete("freed-2")

    def gone() -> None:
        assert _timelines(whole) <= before

    patiently(gone)


def test_points_of_the_past(control: ControlClient) -> None:
    url = control.create("past").url
    sql(url, "CREATE TABLE t (a int)")
    moments: list[tuple[int, int]] = []
    for number in range(3):
        sql(url, f"INSERT INTO t VALUES ({number})")
        moments.append((flush_lsn(url), now_micros()))
    for number, (lsn, micros) in enumerate(moments):
        for form, point in (("lsn", pb.Point(lsn=lsn)), ("time", pb.Point(unix_micros=micros))):
            branch = control.branch("past", f"past-{form}-{number}", point)
            assert sql(branch.url, "SELECT max(a) FROM t") == [(number,)], form
            control.delete(branch.name)


def test_a_time_before_a_restore_is_what_one_saw_then(control: ControlClient) -> None:
    url = control.create("seen").url
    sql(url, "CREATE TABLE t AS SELECT 1 AS a")
    control.checkpoint("seen", "one")
    sql(url, "UPDATE t SET a = 2")
    then = now_micros()
    control.restore("seen", pb.Point(checkpoint="one"))
    assert sql(url, "SELECT a FROM t") == [(1,)]
    control.restore("seen", pb.Point(unix_micros=then))
    assert sql(url, "SELECT a FROM t") == [(2,)]


def test_an_lsn_of_the_parent_is_found_through_the_branch(control: ControlClient) -> None:
    url = control.create("line").url
    sql(url, "CREATE TABLE t AS SELECT 1 AS a")
    old = flush_lsn(url)
    sql(url, "UPDATE t SET a = 2")
    control.branch("line", "line-2")
    found = control.resolve("line-2", pb.Point(lsn=old))
    assert found.timeline_id == control.get("line").timeline_id
    older = control.branch("line-2", "line-3", pb.Point(lsn=old))
    assert sql(older.url, "SELECT a FROM t") == [(1,)]


def test_two_creates_of_one_name_make_one(whole: Whole) -> None:
    def create(number: int) -> str:
        with whole.control() as control:
            try:
                return control.create("contended").url
            except AlreadyExists as error:
                return error.reason

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(create, range(4)))
    assert sorted(answer == "DATABASE_EXISTS" for answer in answers) == [False, True, True, True]


def test_bad_requests_are_refused_and_nothing_else_suffers(
    whole: Whole, control: ControlClient
) -> None:
    control.create("family", if_not_exists=True)
    with pytest.raises(InvalidInput) as caught:
        control.call(
            "GetDatabase", pb.GetDatabaseRequest(tenant_id=b"short", name="x"), pb.Database
        )
    assert caught.value.reason == "INVALID_ID"
    with pytest.raises(InvalidInput):
        control.create("x" * 65_536)
    with pytest.raises(NotFound):
        control.restore("family", pb.Point(checkpoint="x" * 65_536))
    with pytest.raises(InvalidInput) as caught:
        control.restore("family", pb.Point())
    assert caught.value.reason == "POINT_REQUIRED"
    with pytest.raises(OutOfRange):
        control.resolve("family", pb.Point(lsn=2**64 - 1))
    with pytest.raises(InvalidInput):
        control.resolve("family", pb.Point(unix_micros=-(2**62)))
    with ControlClient(control.address, tenant=TenantId(b"s" * 16)) as stranger:
        for refused in (stranger.databases, lambda: stranger.create("x")):
            with pytest.raises(NotFound) as answer:
                refused()
            assert answer.value.reason == "TENANT_NOT_FOUND"
    channel = open_blocking_channel(control.address, access.operator())
    garbage = channel.unary_unary("/pagestore.v1.ControlService/CreateDatabase")
    with pytest.raises(grpc.RpcError) as answered:
        garbage(b"\xff\xff\xff", timeout=10)
    assert answered.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert control.get("family").name == "family"


def test_a_tenants_databases_are_its_own(whole: Whole, control: ControlClient) -> None:
    control.create("shared")
    acme = "--tenant", "acme"
    assert whole.json("tenant", "add", "acme", "--databases", "1", "--bytes", "1T")["created"]
    url = whole.run("create", "shared", *acme).stdout.strip()
    assert sql(url, "SELECT current_database()") == [("shared",)]
    assert url != whole.run("url", "shared").stdout.strip()
    assert [item["name"] for item in whole.json("ls", *acme)["databases"]] == ["shared"]
    refused = whole.run("branch", "shared", "more", "--json", *acme, check=False)
    assert (refused.returncode, json.loads(refused.stderr)["error"]["reason"]) == (
        6,
        "TENANT_DATABASES",
    )
    whole.run("stop", "shared", *acme)
    assert whole.run("psql", "shared", *acme, "-Atc", "SELECT 1").stdout == "1\n"
    listed = {item["name"]: item["used"] for item in whole.json("tenant", "ls")["tenants"]}
    assert listed["acme"]["databases"] == listed["acme"]["awake"] == 1
    assert listed["acme"]["own_bytes"] < 1 << 20, "the template is nobody's own"
    assert whole.error("tenant", "rm", "acme")["reason"] == "TENANT_NOT_EMPTY"
    whole.run("rm", "shared", *acme)
    whole.run("tenant", "rm", "acme")
    assert whole.error("ls", *acme)["reason"] == "TENANT_NOT_FOUND"
    assert control.get("shared").name == "shared"


def test_a_list_comes_in_pages_and_is_watched(control: ControlClient) -> None:
    control.create("listed", if_not_exists=True)
    for number in range(3):
        control.branch("listed", f"listed-{number}")
    whole = [database.name for database in control.databases()]
    with ControlClient(control.address) as other:
        other.page_size = 2
        assert [database.name for database in other.databases()] == whole == sorted(whole)
        events = [(entry.event.verb, entry.checkpoint.name) for entry in control.log("listed")]
        assert [(e.event.verb, e.checkpoint.name) for e in other.log("listed")] == events
        watch = other.watch()
        seen = list(itertools.takewhile(lambda change: not change.whole, watch))
        assert [change.database.name for change in seen] == whole
        assert not any(urlsplit(change.database.url).password for change in seen)
        control.delete("listed-1")
        assert next(watch).gone == "listed-1"
        control.wake("listed-2")
        running = next(change for change in watch if change.database.compute == RUNNING)
        assert running.database.name == "listed-2"
    for number in (0, 2):
        control.delete(f"listed-{number}")


def test_apps_that_share_a_database_do_not_see_each_other(
    whole: Whole, control: ControlClient
) -> None:
    control.create("house")
    control.stop("house")
    urls = {app: whole.run("role", "add", "house", app).stdout.strip() for app in ("web", "Mail 2")}
    for app, url in urls.items():
        sql(url, "CREATE TABLE t AS SELECT current_user::text AS who; CREATE FUNCTION f() RETURNS"
            " int LANGUAGE sql AS 'SELECT 1'")  # fmt: skip
        assert sql(url, "SELECT who, current_schema() FROM t") == [(app, app)]
    for forbidden in ('SELECT * FROM "Mail 2".t', 'CREATE TABLE "Mail 2".u (a int)',
                      'SELECT "Mail 2".f()', "CREATE DATABASE d", "CREATE ROLE r",
                      "CREATE TABLE public.u (a int)", "COPY t TO PROGRAM 'true'"):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sql(urls["web"], forbidden)
    assert whole.error("role", "add", "house", "web")["reason"] == "ROLE_EXISTS"
    assert whole.error("role", "add", "house", "public")["reason"] in (
        "ROLE_REFUSED",
        "SCHEMA_EXISTS",
    )
    assert whole.error("role", "rm", "house", "postgres")["reason"] == "ROLE_NOT_FOUND"
    assert whole.error("role", "rm", "house", "web")["reason"] == "ROLE_NOT_EMPTY"
    listed = {item["role"]: item["tables"] for item in whole.json("role", "ls", "house")["roles"]}
    assert listed == {"web": 1, "Mail 2": 1}
    other = whole.run("role", "password", "house", "web").stdout.strip()
    assert sql(other, "SELECT who FROM t") == [("web",)]
    with pytest.raises(psycopg.OperationalError, match="password"):
        sql(urls["web"], "SELECT 1")
    whole.run("role", "rm", "house", "web", "--with-data")
    assert [item["role"] for item in whole.json("role", "ls", "house")["roles"]] == ["Mail 2"]
    assert sql(urls["Mail 2"], "SELECT count(*) FROM t") == [(1,)]


def test_a_killed_compute_comes_back_at_the_same_url(control: ControlClient) -> None:
    database = control.create("struck")
    sql(database.url, "CREATE TABLE t AS SELECT 1 AS a")
    os.kill(database.compute_pid, signal.SIGKILL)
    assert patiently(lambda: sql(database.url, "SELECT a FROM t")) == [(1,)]
    assert control.get("struck").compute_pid != database.compute_pid


def _compute_pid(whole: Whole, name: str) -> int:
    try:
        with whole.control() as control:
            pid = int(control.get(name).compute_pid)
    except PagestoreError as error:
        raise AssertionError(str(error)) from error
    assert pid
    return pid


def test_a_new_control_plane_adopts_running_computes(whole: Whole) -> None:
    with whole.control() as control:
        database = control.create("adopted")
    killed = whole.kill("control")
    pid = patiently(lambda: _compute_pid(whole, "adopted"))
    assert pid == database.compute_pid
    assert whole.installation.parts()["control"].pid != killed
    with whole.control() as control:
        control.stop("adopted")
        assert sql(control.wake("adopted", reveal=True).url, "SELECT 1") == [(1,)]


def test_a_database_goes_on_without_its_agent_and_is_adopted_by_the_next(whole: Whole) -> None:
    with whole.control() as control:
        database = control.create("alone")
    sql(database.url, "CREATE TABLE t AS SELECT 1 AS a")
    with psycopg.connect(database.url, autocommit=True) as session:
        killed = whole.kill("compute")
        session.execute("INSERT INTO t VALUES (2)")
        session.execute("ALTER SYSTEM SET work_mem = '6MB'")
        patiently(lambda: _is_another(whole, "compute", killed))
        assert session.execute("SELECT sum(a) FROM t").fetchone() == (3,)
    with whole.control() as control:
        assert control.get("alone").compute_pid == database.compute_pid
        control.stop("alone")
        control.wake("alone")
    assert sql(database.url, "SELECT sum(a), current_setting('work_mem') FROM t") == [(3, "6MB")]


def test_what_dies_while_its_agent_is_away_comes_back_with_its_settings(whole: Whole) -> None:
    with whole.control() as control:
        database = control.create("orphan")
    sql(database.url, "ALTER SYSTEM SET work_mem = '5MB'")
    whole.kill("compute", signal.SIGSTOP)
    os.kill(database.compute_pid, signal.SIGKILL)
    whole.kill("compute")
    read = "SELECT current_setting('work_mem')"
    assert patiently(lambda: sql(database.url, read)) == [("5MB",)]


def _is_another(whole: Whole, part: str, before: int) -> None:
    assert whole.installation.parts()[part].pid != before
    assert whole.run("status", check=False).returncode == 0


def test_a_verb_killed_midway_leaves_nothing(whole: Whole) -> None:
    def create() -> None:
        with whole.control() as control:
            try:
                control.create("halfway")
            except PagestoreError:
                return

    before = _timelines(whole)
    directories = set(whole.installation.compute_dir.iterdir())
    moments: list[Callable[[], object]] = [
        lambda: True,
        lambda: _timelines(whole) - before,
        lambda: set(whole.installation.compute_dir.iterdir()) - directories,
    ]
    for moment in moments:
        caller = threading.Thread(target=create)
        caller.start()
        wait_until(moment)
        whole.kill("control")
        caller.join()
        patiently(lambda: _listed(whole))
        with whole.control() as control:
            database = control.create("halfway", if_not_exists=True)
            assert sql(database.url, "SELECT current_database()") == [("halfway",)]
            control.delete("halfway")

    def nothing_new() -> None:
        assert _timelines(whole) <= before

    patiently(nothing_new)


def _timelines(whole: Whole) -> set[bytes]:
    with PageClient(whole.installation.address("pageserver")) as pages:
        return {info.timeline_id for info in pages.list_timelines(DEFAULT_TENANT)}


def _listed(whole: Whole) -> list[str]:
    try:
        with whole.control() as control:
            return [database.name for database in control.databases()]
    except PagestoreError as error:
        raise AssertionError(str(error)) from error


def test_a_killed_supervisor_leaves_a_store_that_comes_up(whole: Whole) -> None:
    with whole.control() as control:
        url = control.create("survivor").url
    sql(url, "CREATE TABLE t AS SELECT 1 AS a")
    pid = whole.installation.running_supervisor()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    patiently(lambda: _free(whole))
    whole.up()
    whole.json("start", "survivor")
    assert sql(url, "SELECT a FROM t") == [(1,)]


def _free(whole: Whole) -> None:
    assert whole.installation.running_supervisor() is None


def test_a_branch_made_for_a_time_goes_by_itself_with_its_sessions(whole: Whole) -> None:
    whole.json("create", "lasting")
    made = whole.json("branch", "lasting", "fleeting", "--ttl", "1h")
    assert made["expires_at"]
    with psycopg.connect(made["url"], autocommit=True) as session:
        session.execute("CREATE TABLE t (a int)")
        assert whole.json("keep", "fleeting", "--ttl", "0.5s")["expires_at"]
        patiently(lambda: _is_gone(whole, "fleeting"))
        with pytest.raises(psycopg.OperationalError, match="the time of fleeting was over"):
            session.execute("SELECT 1")
    assert whole.error("branch", "lasting", "x", "--ttl", "soon")["reason"] == "INVALID_TTL"
    whole.json("branch", "lasting", "fleeting", "--ttl", "1h")
    assert whole.json("keep", "fleeting")["expires_at"] is None
    whole.run("rm", "fleeting", "lasting")


def _is_gone(whole: Whole, name: str) -> None:
    assert name not in {row["name"] for row in whole.json("ls")["databases"]}
