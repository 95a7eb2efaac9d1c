"""A database's superuser against the walls: what he runs as programs and libraries of his own.

He gets no further than his own directory; everybody else goes on, and his database starts again.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pagestore.compute import syscalls
from pagestore.compute.record import ComputeRecord
from pagestore.postgres.process import start_ticks
from tests.hostile.tenant import Tenant, Victims, victims
from tests.integration.installation import Whole, patiently, whole_pagestore
from tests.plain_postgres import BINDIR, MAJOR
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.walls,
    pytest.mark.skipif(os.geteuid() != 0, reason="a user for each compute needs root"),
]


LIMITS = {
    "PAGESTORE_COMPUTES__MEMORY_BYTES": str(512 << 20),
    "PAGESTORE_COMPUTES__PROCESSES": "100",
    "PAGESTORE_COMPUTES__DISK_BYTES": str(400 << 20),
}
GO_ON = 30.0
"""Seconds within which a neighbour is served on a machine that others work on, too."""


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore(environment=LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def neighbour(whole: Whole) -> Tenant:
    return Tenant.moves_in(whole, "neighbour")


@pytest.fixture(scope="module")
def tenant(whole: Whole, neighbour: Tenant) -> Tenant:
    return Tenant.moves_in(whole, "hostile")


@pytest.fixture
def victim(tenant: Tenant, neighbour: Tenant) -> Iterator[Victims]:
    """And at the end both databases work, without a start of the neighbour's."""
    before = neighbour.pid
    with victims() as made:
        yield made
        made.check()
    assert neighbour.sql("SELECT x FROM t") == [(1,)]
    assert neighbour.pid == before
    tenant.works()


def user_of(tenant: Tenant) -> int:
    return Path(f"/proc/{tenant.pid}").stat().st_uid


def processes_of(user: int) -> list[int]:
    found = (path for path in Path("/proc").iterdir() if path.name.isdigit())
    return [int(path.name) for path in found if _is_of(path, user)]


def _is_of(process: Path, user: int) -> bool:
    try:
        return process.stat().st_uid == user and start_ticks(int(process.name)) is not None
    except OSError:
        return False


def test_each_database_has_a_user_of_its_own(tenant: Tenant, neighbour: Tenant) -> None:
    assert user_of(tenant) != user_of(neighbour)
    assert min(user_of(tenant), user_of(neighbour)) >= 1_900_000_000
    assert (tenant.directory / "data").stat().st_uid == user_of(tenant)


def test_status_says_which_walls_stand(whole: Whole) -> None:
    walls = whole.json("status")["walls"]
    assert {"files", "processes", "shared memory", "rank", "system calls", "user"} <= set(walls)
    assert f"walls around each database: {', '.join(walls)}\n" in whole.run("status").stdout


def test_he_finds_no_file_but_his_own_and_the_systems(
    whole: Whole, tenant: Tenant, neighbour: Tenant, victim: Victims
) -> None:
    computes = tenant.directory.parent
    there = set(tenant.told(f"ls -A {computes} {computes.parent}").split())
    assert tenant.directory.name in there
    assert not {neighbour.directory.name, "logs", "control", "keys", "tokens", "log"} & there
    for path in (neighbour.directory, victim.secret, whole.data / "keys", Path("/root")):
        assert "No such file" in tenant.told(f"ls {path}")
    assert "Permission denied" in tenant.told(f"cat {tenant.directory}/compute.json")
    for path in (tenant.directory, Path("/"), Path("/usr/bin"), Path("/etc")):
        assert "Read-only" in tenant.told(f"touch {path}/planted")


def test_his_programs_see_and_signal_nobody_else(
    tenant: Tenant, neighbour: Tenant, victim: Victims
) -> None:
    seen = tenant.told("ps axww -o args")
    assert str(tenant.directory) in seen
    assert neighbour.directory.name not in seen
    assert "pagestore.cli" not in seen
    for pid in (victim.bystander.pid, neighbour.pid):
        assert "No such process" in tenant.told(f"kill -9 {pid}")
    user = user_of(tenant)
    before = tenant.pid
    tenant.kill_all()
    patiently(lambda: _has_ended(tenant, before), 60)
    wait_until(lambda: not processes_of(user))


def _has_ended(tenant: Tenant, before: int) -> None:
    assert tenant.whole.json("show", tenant.name)["compute_pid"] != before


def test_his_programs_end_with_his_database(whole: Whole, tenant: Tenant, victim: Victims) -> None:
    user = user_of(tenant)
    tenant.shell("setsid sleep 987 </dev/null & setsid sh -c 'sleep 988 & exec sleep 989' &")
    assert len(processes_of(user)) > 3
    whole.run("stop", tenant.name)
    wait_until(lambda: not processes_of(user))


CALLING = (
    "/usr/bin/python3 -c 'import ctypes; c = ctypes.CDLL(None, use_errno=True);"
    " print(c.{}, ctypes.get_errno())'"
)
ATTEMPTS = {
    "unshare --user --map-root-user true": "not permitted",
    "unshare --net true": "not permitted",
    "nsenter --target 1 --mount true": "not permitted|denied",
    "mount -t tmpfs none /tmp": "permi|must be superuser",
    "dmesg": "not permitted",
    CALLING.format("ptrace(16, 1, 0, 0)"): "^-1 1$",
}
if MAJOR < syscalls.FIRST_WITH_IO_URING:
    ATTEMPTS[CALLING.format("syscall(425, 8, 0)")] = "^-1 1$"


@pytest.mark.parametrize("script", ATTEMPTS)
def test_the_kernel_answers_him_less_than_others(
    tenant: Tenant, victim: Victims, script: str
) -> None:
    if not syscalls.is_known():
        pytest.skip("there is no filter for this machine")
    assert re.search(ATTEMPTS[script], tenant.told(script).strip())


def test_his_ordinary_programs_work(tenant: Tenant, victim: Victims) -> None:
    script = (
        "tar -cf - PG_VERSION | gzip | gunzip | tar -tf - && cp PG_VERSION v && rm v"
        " && seq 1000 | sort -R | wc -l && id -u && df . | wc -l"
        ' && /usr/bin/python3 -c "import threading as t; a = t.Thread(target=print, args=(7,));'
        ' a.start(); a.join()" && psql --version | cut -c1-4'
    )
    said = tenant.told(script).splitlines()
    assert said == ["PG_VERSION", "1000", str(user_of(tenant)), "2", "7", "psql"]
    assert tenant.sql("SELECT sum(x) FROM generate_series(1, 100000) AS x") == [(5000050000,)]


def test_his_own_library_gets_no_further(
    tmp_path: Path, tenant: Tenant, neighbour: Tenant, victim: Victims
) -> None:
    library = tmp_path / "intruder.so"
    headers = subprocess.run(
        [BINDIR / "pg_config", "--includedir-server"], capture_output=True, text=True, check=True
    ).stdout.strip()
    source = Path(__file__).with_name("intruder.c")
    subprocess.run(
        ["cc", "-shared", "-fPIC", f"-I{headers}", "-o", library, source], check=True, timeout=120
    )
    tenant.sql("SELECT lo_from_bytea(4711, decode('" + library.read_bytes().hex() + "', 'hex'));")
    place = f"{tenant.directory}/data/intruder.so"
    tenant.sql(f"SELECT lo_export(4711, '{place}'); SELECT lo_unlink(4711)")
    tenant.sql(f"CREATE FUNCTION intrude(int) RETURNS int AS '{place}' LANGUAGE C STRICT")
    for pid in (victim.bystander.pid, neighbour.pid):
        assert tenant.sql(f"SELECT intrude({pid})") == [(0,)]
    tenant.sql("DROP FUNCTION intrude(int)")


def test_his_shared_memory_is_his_alone(tenant: Tenant, neighbour: Tenant, victim: Victims) -> None:
    made = "ipcmk -M 4096 >/dev/null && ipcs -m | grep -c 0x; echo x > /dev/shm/planted"
    count = int(tenant.told(made))
    assert count == 2
    assert not Path("/dev/shm/planted").exists()
    assert int(neighbour.told("ipcs -m | grep -c 0x")) == 1
    assert "planted" not in neighbour.told("ls /dev/shm")


def test_he_reaches_no_port_and_no_socket_but_his_own(
    whole: Whole, tenant: Tenant, neighbour: Tenant, victim: Victims
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ports = [listening.getsockname()[1]]
        parts = whole.installation.part_names
        addresses = [address for part in parts for address in whole.installation.listens(part)]
        ports += [address.rpartition(":")[2] for address in addresses if address[:4] != "unix"]
        assert len(ports) >= 6
        for port in ports:
            said = tenant.told(f"bash -c 'echo < /dev/tcp/127.0.0.1/{port} && echo reached'")
            assert "reached" not in said
            assert "refused" in said
    assert "unreachable" in tenant.told("bash -c 'echo < /dev/tcp/192.0.2.1/80'").lower()
    theirs = neighbour.directory / "run"
    assert "No such file" in tenant.told(f"psql -h {theirs} -U postgres -c 'SELECT 1'")
    whole.kill("pageserver")
    patiently(lambda: neighbour.sql("SELECT count(*) FROM pg_class"), 60)
    tenant.sql("CREATE TABLE IF NOT EXISTS u AS SELECT generate_series(1, 1000) AS x")
    assert tenant.sql("SELECT count(*) FROM u") == [(1000,)]


def test_an_agent_that_comes_back_finds_him_behind_his_walls(
    whole: Whole, tenant: Tenant, victim: Victims
) -> None:
    before, user = tenant.pid, user_of(tenant)
    tenant.shell("setsid sleep 986 </dev/null &")
    killed = whole.kill("compute")
    wait_until(lambda: whole.installation.parts()["compute"].pid != killed)
    patiently(lambda: whole.run("show", tenant.name), 30)
    assert tenant.pid == before
    assert tenant.sql("SELECT 1") == [(1,)]
    whole.run("stop", tenant.name)
    wait_until(lambda: not processes_of(user))


BOMB = 'exec("import os\\nwhile 1:\\n try: os.fork()\\n except OSError: pass")'


def test_a_fork_bomb_is_bounded_and_ends_with_his_database(
    whole: Whole, tenant: Tenant, neighbour: Tenant, victim: Victims
) -> None:
    user, url = user_of(tenant), whole.json("url", neighbour.name)["url"]
    tenant.shell(f"setsid python3 -c '{BOMB}' </dev/null &")
    wait_until(lambda: len(processes_of(user)) > 50)
    for _ in range(3):
        began = time.monotonic()
        with psycopg.connect(url) as session:
            assert session.execute("SELECT x FROM t").fetchall() == [(1,)]
        assert time.monotonic() - began < GO_ON
        assert len(processes_of(user)) <= 100
    whole.run("stop", tenant.name)
    wait_until(lambda: not processes_of(user))


def test_memory_is_bounded_and_what_is_too_much_ends_his_own(
    whole: Whole, tenant: Tenant, victim: Victims
) -> None:
    if "memory (cgroup)" not in whole.json("status")["walls"]:
        pytest.skip("no control group can be made here")
    tenant.shell("python3 -c 'x = bytearray(3 << 30); print(len(x))' > done")
    patiently(lambda: tenant.sql("SELECT 1"), 60)
    assert tenant.told("cat done") == "" or "No such file" in tenant.told("cat done")
    assert "No space left" in tenant.told("head -c 300M /dev/zero > /tmp/full")


FILLERS = {
    "by a file": "head -c 450M /dev/zero > full; sleep 1000",
    "by one that was deleted": "exec 5>full; rm full; head -c 450M /dev/zero >&5; sleep 1000",
}


@pytest.mark.parametrize("how", FILLERS)
def test_he_fills_no_disk(whole: Whole, tenant: Tenant, victim: Victims, how: str) -> None:
    before, user = tenant.pid, user_of(tenant)
    tenant.shell(f"setsid sh -c '{FILLERS[how]}' </dev/null &")
    patiently(lambda: _has_ended(tenant, before), 120)
    wait_until(lambda: not processes_of(user))
    log = whole.installation.log_tail("compute", 40)
    assert "MiB of local disk, and a database may take 400" in log


def test_what_is_left_of_a_compute_has_no_group(whole: Whole, tenant: Tenant) -> None:
    record = ComputeRecord.load(tenant.directory)
    assert record is not None
    groups = [Path(group) for group in record.groups]
    assert all(group.exists() for group in groups)
    whole.run("stop", tenant.name)
    wait_until(lambda: not any(group.exists() for group in groups))


def test_no_walls_no_databases_unless_told_so(whole: Whole) -> None:
    """`up` refuses by name where they cannot be built, before it starts anything."""
    other = Whole(whole.data.with_name(whole.data.name + "-other"), {"PATH": "/nowhere"})
    try:
        assert other.error("up")["reason"] == "WALLS_FORBIDDEN"
        assert not other.installation.parts_file.exists()
    finally:
        subprocess.run(["rm", "-rf", other.data], check=True)
