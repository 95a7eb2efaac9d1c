"""Computes on real Postgres and a real safekeeper: start, stop, die, be found again."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pagestore.client.page import AsyncPageClient
from pagestore.compute.leftovers import adopt, clear
from pagestore.compute.record import RECORD_FILE
from pagestore.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    PagestoreError,
    ResourceExhausted,
    Unavailable,
)
from pagestore.ids import TenantId, TimelineId
from pagestore.v1 import wal_pb2
from tests.integration.launching import sql, starter_of, world
from tests.plain_postgres import PlainPostgres, plain_postgres
from tests.safekeeper_process import SafekeeperProcess
from tests.waiting import stays_on_loop, until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def source() -> Iterator[PlainPostgres]:
    with plain_postgres() as cluster:
        cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
        cluster.sql("CREATE UNLOGGED TABLE u (id int PRIMARY KEY)")
        cluster.sql("INSERT INTO u VALUES (1)")
        cluster.stop()
        yield cluster


def test_a_life(source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            ids = (w.spec.tenant, w.spec.timeline)
            assert sql(compute, "SELECT count(*) FROM t") == [(1000,)]
            assert sql(compute, "SELECT count(*) FROM u") == [(0,)]
            assert sql(compute, "INSERT INTO u VALUES (1), (2) RETURNING id") == [(1,), (2,)]
            sql(compute, "INSERT INTO t SELECT generate_series(1, 1000)")
            (position,) = sql(compute, "SELECT pg_current_wal_flush_lsn() - '0/0'")[0]
            assert (await w.wal.get_status(*ids)).commit_lsn >= int(str(position))
            # Nobody reaches it but by its socket, whose directory is its own.
            assert sql(compute, "SHOW listen_addresses") == [("",)]
            sockets = Path(compute.record.socket_directory)
            assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
            assert {path.suffix for path in sockets.iterdir()} == {".5432", ".lock"}
            stopped = await compute.stop(w.wal)
            assert stopped.clean
            assert stopped.files["pg_stat/pgstat.stat"]
            assert not w.spec.directory.exists()
            assert not compute.alive
            # The log ends in the shutdown checkpoint.
            vote = await w.wal.vote_next(*ids)
            assert vote.end_lsn == stopped.flush_lsn
            assert vote.prev_record_lsn > compute.start_lsn
            assert not (await w.wal.get_status(*ids)).receiving
            log = w.spec.log_path.read_text()
            assert "redo" not in log
            assert "ERROR" not in log

    asyncio.run(main())


def test_blocks_come_through_the_shim(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root, hot=False) as w:
            compute = await w.start(page_server=w.pages.address)
            counted = await asyncio.to_thread(sql, compute, "SELECT count(*), sum(id) FROM t")
            assert counted == [(1000, 500500)]
            assert await asyncio.to_thread(sql, compute, "SELECT count(*) FROM u") == [(0,)]
            await asyncio.to_thread(sql, compute, "INSERT INTO t VALUES (1)")
            await asyncio.to_thread(sql, compute, "VACUUM FULL")
            assert (await compute.stop(w.wal)).clean

    asyncio.run(main())


def test_settings_that_keep_commits_safe_cannot_be_changed(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            kept = {"deadlock_timeout": "7s", "synchronous_standby_names": ""}
            compute = await w.start(settings={"work_mem": "7MB"}, user_settings=kept)
            with pytest.raises(psycopg.errors.CantChangeRuntimeParam, match="restart_after_crash"):
                sql(compute, "ALTER SYSTEM SET restart_after_crash = on")
            for name, value in {
                "synchronous_standby_names": "ANY 1 (sk1)",
                "restart_after_crash": "off",
                "work_mem": "7MB",
                "deadlock_timeout": "7s",
                "fsync": "off",
                "full_page_writes": "off",
                "wal_level": "replica",
                "max_prepared_transactions": "64",
            }.items():
                assert sql(compute, f"SHOW {name}") == [(value,)]
            stopped = await compute.stop(w.wal)
            assert "deadlock_timeout" in (stopped.user_settings or {})

    asyncio.run(main())


def test_whom_commits_wait_for_changes_while_it_runs(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            await compute.set_rule("ANY 2 (sk1, sk2)")
            waiting = asyncio.create_task(asyncio.to_thread(sql, compute, "CREATE TABLE w ()"))
            await until(lambda: sql(compute, WAITING) == [(1,)])
            await compute.set_rule("ANY 1 (sk1, sk2)")
            await waiting
            assert (await compute.stop(w.wal)).clean

    asyncio.run(main())


def test_a_cluster_without_the_usual_names(safekeeper: SafekeeperProcess, root: Path) -> None:
    async def main(source: PlainPostgres) -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            assert (compute.superuser, compute.record.database) == ("the boss", "shop")
            assert sql(compute, "SELECT current_user, current_database()") == [("the boss", "shop")]
            await compute.stop(w.wal)

    with plain_postgres() as cluster:
        cluster.sql("CREATE ROLE helper SUPERUSER LOGIN")
        cluster.sql("CREATE DATABASE shop")
        with psycopg.connect(
            cluster.conninfo("shop").replace("user=postgres", "user=helper"), autocommit=True
        ) as session:
            session.execute("DROP DATABASE postgres")
            session.execute('ALTER ROLE postgres RENAME TO "the boss"')
        cluster.stop()
        asyncio.run(main(cluster))


def test_it_is_found_again_and_can_be_stopped(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            compute.release()
            found = adopt(w.spec.directory)
            assert found is not None
            assert found.record == compute.record
            sql(found, "INSERT INTO t VALUES (-1)")
            stopped = await found.stop(w.wal)
            assert stopped.clean
            assert adopt(w.spec.directory) is None

    asyncio.run(main())


def test_it_outlives_the_process_that_started_it(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            spec = w.spec
            starter = starter_of(
                spec,
                f"""
    async with AsyncPageClient("{w.pages.address}") as pages, WalClient("{w.wal.address}") as wal:
        await start_compute(spec, pages, wal)
        os.kill(os.getpid(), 9)
""",
            )
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", starter)
            assert await process.wait() == -signal.SIGKILL
            found = adopt(spec.directory)
            assert found is not None
            sql(found, "INSERT INTO t VALUES (-1)")
            assert (await found.stop(w.wal)).clean

    asyncio.run(main())


def test_a_killed_compute_is_noticed_and_cleared(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            gone = asyncio.create_task(compute.wait_exit())
            assert await stays_on_loop(lambda: not gone.done(), 0.05)
            os.kill(compute.pid, signal.SIGKILL)
            assert await asyncio.wait_for(gone, 10) == -signal.SIGKILL
            assert adopt(w.spec.directory) is None
            await clear(w.spec.directory)
            assert not w.spec.directory.exists()

    asyncio.run(main())


def test_a_server_whose_starter_died_before_it_was_ready_is_cleared(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            replace(compute.record, ready=False, term=0, superuser="").save(w.spec.directory)
            assert adopt(w.spec.directory) is None
            await clear(w.spec.directory)
            assert not compute.alive or await compute.wait_exit() is not None
            assert not w.spec.directory.exists()

    asyncio.run(main())


def test_what_has_no_record_is_left_alone(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            (w.spec.directory / RECORD_FILE).unlink()
            assert adopt(w.spec.directory) is None
            await clear(w.spec.directory)
            assert compute.alive
            assert w.spec.directory.exists()
            await compute.kill()
            compute.remove()

    asyncio.run(main())


def test_a_record_of_another_boot_names_no_process(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            earlier = compute.record.process._replace(boot_id="an earlier one")
            replace(compute.record, process=earlier).save(w.spec.directory)
            assert adopt(w.spec.directory) is None
            await clear(w.spec.directory)
            assert compute.alive
            await compute.kill()
            compute.remove()

    asyncio.run(main())


def test_kill_ends_every_backend(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            backends = Path(f"/proc/{compute.pid}/task/{compute.pid}/children").read_text().split()
            assert len(backends) > 3
            await compute.kill()
            await until(lambda: not [pid for pid in backends if Path(f"/proc/{pid}").exists()])
            compute.remove()
            assert not w.spec.directory.exists()

    asyncio.run(main())


FAILURES: dict[str, dict[str, Any]] = {
    "a setting that is none": {"settings": {"shared_buffers": "plenty"}},
    "a library that is not there": {"shim_library": Path("/nowhere/pagestore_shim.so")},
}
FAILURES_SAY = {
    "a setting that is none": 'invalid value for parameter "shared_buffers": "plenty"',
    "a library that is not there": 'could not access file "/nowhere/pagestore_shim.so"',
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failed_start_leaves_only_its_log(
    case: str, source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            with pytest.raises(Unavailable) as caught:
                await w.start(**FAILURES[case])
            assert caught.value.reason == "COMPUTE_FAILED"
            assert FAILURES_SAY[case] in caught.value.message
            assert "\n" not in caught.value.message
            assert str(w.spec.log_path) in (caught.value.hint or "")
            assert not w.spec.directory.exists()
            assert w.spec.log_path.exists()
            # The next start, with what was wrong put right, succeeds.
            compute = await w.start()
            assert (await compute.stop(w.wal)).clean

    asyncio.run(main())


def test_a_full_disk_is_named(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts a file system")
    small = root / "small"
    small.mkdir()
    small.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], check=True)

    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            with pytest.raises(ResourceExhausted) as caught:
                await w.start(directory=small / "c1")
            assert caught.value.reason == "NO_SPACE_FOR_COMPUTE"
            assert not (small / "c1").exists()
            assert (await (await w.start()).stop(w.wal)).clean

    try:
        asyncio.run(main())
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_absent_page_server_is_named(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            async with AsyncPageClient("127.0.0.1:1") as nobody:
                w.pages, pages = nobody, w.pages
                with pytest.raises(DeadlineExceeded) as caught:
                    await w.start(start_timeout=1.0)
            assert caught.value.reason == "COMPUTE_START_TIMEOUT"
            assert "page server" in caught.value.message
            assert not w.spec.directory.exists()
            w.pages = pages
            assert (await (await w.start()).stop(w.wal)).clean

    asyncio.run(main())


def test_a_stale_term_is_an_error_of_ours(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    """Somebody else wins a term while the directory is laid."""

    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            vote = w.wal.vote_next

            async def beaten(tenant: TenantId, timeline: TimelineId) -> wal_pb2.VoteResponse:
                ours = await vote(tenant, timeline)
                await vote(tenant, timeline)
                return ours

            w.wal.vote_next = beaten  # type: ignore[method-assign, assignment]
            with pytest.raises(Aborted) as caught:
                await w.start()
            assert caught.value.reason == "STALE_TERM"
            assert not w.spec.directory.exists()

    asyncio.run(main())


def test_a_taken_port_is_named(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            with socket.socket() as other:
                other.bind(("127.0.0.1", 0))
                other.listen()
                with pytest.raises(Unavailable, match="Address already in use"):
                    await w.start(host="127.0.0.1", wal_password="x", port=other.getsockname()[1])

    asyncio.run(main())


def test_a_directory_that_exists_is_never_touched(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            w.spec.directory.mkdir()
            (w.spec.directory / "precious").touch()
            with pytest.raises(FailedPrecondition, match="exists"):
                await w.start()
            assert (w.spec.directory / "precious").exists()

    asyncio.run(main())


def test_a_long_path_moves_the_sockets(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start(directory=root / ("x" * 100))
            sockets = Path(compute.record.socket_directory)
            assert sockets.stat().st_uid != 0 or os.geteuid() != 0
            assert sockets.parent.stat().st_uid == os.geteuid()
            assert sockets.stat().st_mode & 0o777 == 0o700
            assert (await compute.stop(w.wal)).clean
            await until(lambda: not sockets.parent.exists())

    asyncio.run(main())


def test_an_unreachable_directory_is_refused(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("runs as the server's own user")

    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            closed = root / "closed"
            closed.mkdir(mode=0o700)
            with pytest.raises(FailedPrecondition, match=r"cannot enter .*closed"):
                await w.start(directory=closed / "c1")

    asyncio.run(main())


def test_a_fenced_compute_cannot_commit(
    source: PlainPostgres, safekeeper: SafekeeperProcess, root: Path
) -> None:
    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            ids = (w.spec.tenant, w.spec.timeline)
            vote = await w.wal.vote_next(*ids)
            client = await asyncio.create_subprocess_exec(
                "psql",
                compute.conninfo(),
                "-c",
                "INSERT INTO t VALUES (-5)",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.wait(), 1)
            stopped = await compute.stop(w.wal)
            assert not stopped.clean
            assert not w.spec.directory.exists()
            await client.wait()
            assert (await w.wal.get_status(*ids)).commit_lsn == vote.end_lsn

    asyncio.run(main())


def test_a_stop_without_safekeeper_hands_the_rest_over_later(
    source: PlainPostgres, root: Path
) -> None:
    safekeeper = SafekeeperProcess(root / "sk")
    safekeeper.start()

    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            sql(compute, "INSERT INTO t VALUES (-6)")
            safekeeper.stop(signal.SIGKILL)
            stopping = asyncio.create_task(compute.stop(w.wal))
            await compute.wait_exit()
            assert await stays_on_loop(lambda: not stopping.done(), 0.2)
            await asyncio.to_thread(safekeeper.start)
            stopped = await stopping
            assert stopped.clean
            vote = await w.wal.vote_next(w.spec.tenant, w.spec.timeline)
            assert vote.end_lsn == stopped.flush_lsn

    try:
        asyncio.run(main())
    finally:
        safekeeper.stop()


def test_a_stop_that_cannot_reach_the_wal_service_keeps_the_directory(
    source: PlainPostgres, root: Path
) -> None:
    safekeeper = SafekeeperProcess(root / "sk")
    safekeeper.start()

    async def main() -> None:
        async with world(source, safekeeper, root) as w:
            compute = await w.start()
            safekeeper.stop(signal.SIGKILL)
            w.wal.timeout = 0.5
            with pytest.raises(PagestoreError):
                await compute.stop(w.wal)
            assert w.spec.directory.exists()
            await asyncio.to_thread(safekeeper.start)
            w.wal.timeout = 20
            assert (await compute.stop(w.wal)).clean
            assert not w.spec.directory.exists()

    try:
        asyncio.run(main())
    finally:
        safekeeper.stop()
