"""Restore, undo, redo and reset on real Postgres: who may still commit, and where a name is when
its new compute does not start. What they do is tested without processes: tests/unit/control.

The control plane's clock is a day behind that of the computes, all the time: none of this goes by
a clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from pagestore.client.control import ControlClient
from pagestore.client.urls import without_password
from pagestore.errors import AlreadyExists, FailedPrecondition, PagestoreError
from pagestore.v1 import control_pb2 as pb
from tests.integration.installation import Whole, patiently, sql, whole_pagestore

DAY_MICROS = 86_400_000_000
BEHIND = f"""
import sys, time
if "control" in sys.orig_argv:
    right = time.time_ns
    time.time_ns = lambda: right() - {DAY_MICROS} * 1000
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    site: Path = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(BEHIND)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with whole_pagestore(environment={"PYTHONPATH": path}) as running:
        yield running


@pytest.fixture
def control(whole: Whole) -> Iterator[ControlClient]:
    with whole.control() as client:
        yield client


def base(control: ControlClient, name: str) -> str:
    """A database with a row 1 and a checkpoint `base`; its URL."""
    url = control.create(name).url
    sql(url, "CREATE TABLE t AS SELECT 1 AS a")
    control.checkpoint(name, "base")
    return url


def rows(url: str) -> list[int]:
    return [row[0] for row in sql(url, "SELECT a FROM t ORDER BY a")]


def test_the_clocks_are_apart(control: ControlClient) -> None:
    url = base(control, "clocks")
    (now,) = sql(url, "SELECT extract(epoch FROM clock_timestamp()) * 1000000")
    apart = int(now[0]) - control.get("clocks").created_unix_micros
    assert DAY_MICROS <= apart < DAY_MICROS + 60_000_000


def test_undo_undoes_once_and_redo_takes_it_back(control: ControlClient) -> None:
    url = base(control, "mended")
    for damage in (2, 3):
        sql(url, f"INSERT INTO t VALUES ({damage})")
        assert control.undo("mended").changed
        assert not control.undo("mended").changed
        assert rows(url) == [1]
    assert control.redo("mended").changed
    assert rows(url) == [1, 3]
    assert control.undo("mended", to="base").changed
    assert not control.undo("mended", to="base").changed
    sql(url, "INSERT INTO t VALUES (4)")
    control.checkpoint("mended", "c2")
    assert not control.undo("mended").changed
    with pytest.raises(FailedPrecondition):
        control.undo("mended", to="base")
    assert rows(url) == [1, 4]


def test_two_undos_at_once_are_one(whole: Whole, control: ControlClient) -> None:
    url = base(control, "contended")
    sql(url, "INSERT INTO t VALUES (2)")

    def undo(_: int) -> bool:
        with whole.control() as client:
            return client.undo("contended").changed

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(undo, range(3))) == [False, False, True]
    assert rows(url) == [1]


def test_a_repeated_restore_ends_the_transaction_that_is_open(control: ControlClient) -> None:
    url = base(control, "resent")
    sql(url, "INSERT INTO t VALUES (2)")
    first = control.restore("resent", pb.Point(checkpoint="base"))
    with psycopg.connect(url) as open_one:
        open_one.execute("INSERT INTO t VALUES (3)")
        again = control.restore("resent", pb.Point(checkpoint="base"))
        with pytest.raises(psycopg.OperationalError):
            open_one.commit()
    assert (first.changed, again.changed) == (True, False)
    assert again.database.timeline_id == first.database.timeline_id
    assert rows(url) == [1]
    control.undo("resent")
    assert rows(url) == [1, 2]


def test_an_undo_whose_compute_does_not_start_moves_nothing(
    whole: Whole, control: ControlClient
) -> None:
    url = base(control, "unmoved")
    sql(url, "INSERT INTO t VALUES (2)")
    here = control.get("unmoved").timeline_id
    (library,) = (whole.installation.compute_dir / "lib").glob("pagestore_shim-*.so")
    aside = library.with_suffix(".aside")
    library.rename(aside)
    library.mkdir()  # where the next start lays its library
    try:
        for _ in range(2):
            with pytest.raises(PagestoreError, match="unmoved stays where it was"):
                control.undo("unmoved", request_id="one")
            assert control.get("unmoved", brief=True).timeline_id == here
    finally:
        library.rmdir()
        aside.rename(library)
    assert patiently(lambda: rows(url)) == [1, 2]
    assert control.undo("unmoved", request_id="one").changed
    assert control.undo("unmoved", request_id="one").changed
    assert rows(url) == [1]
    sql(url, "INSERT INTO t VALUES (3)")
    assert control.undo("unmoved", request_id="one").changed
    assert rows(url) == [1, 3]


def test_a_branch_goes_to_its_parent_s_checkpoint_and_its_head(control: ControlClient) -> None:
    parent = base(control, "parent")
    sql(parent, "INSERT INTO t VALUES (2)")
    url = control.branch("parent", "try-2").url
    sql(url, "INSERT INTO t VALUES (3)")
    assert control.restore("try-2", pb.Point(checkpoint="base")).changed
    assert rows(url) == [1]
    at_base = control.branch("parent", "at-base", pb.Point(checkpoint="base"))
    again = control.branch("parent", "at-base", pb.Point(checkpoint="base"), if_not_exists=True)
    assert (again.timeline_id, again.created) == (at_base.timeline_id, False)
    with pytest.raises(AlreadyExists, match="a branch of parent"):
        control.branch("try-2", "at-base", if_not_exists=True)
    sql(parent, "INSERT INTO t VALUES (4)")
    assert control.reset("try-2").changed
    assert rows(url) == [1, 2, 4]


def test_a_renamed_database_keeps_its_sessions_and_is_had_by_its_new_name(
    control: ControlClient,
) -> None:
    old = base(control, "before")
    with psycopg.connect(old, autocommit=True) as session:
        done = control.rename("before", "after")
        session.execute("INSERT INTO t VALUES (2)")
    url = control.get("after", reveal=True).url
    assert (done.changed, done.database.url) == (True, without_password(url)[0])
    assert url == old.replace("/before", "/after")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(old)
    assert control.undo("after").changed
    assert rows(url) == [1]
    control.stop("after")
    assert rows(control.wake("after", reveal=True).url) == [1]
