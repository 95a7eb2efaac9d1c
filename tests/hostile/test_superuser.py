"""A database's superuser against the host: what he wrote is data, and decides nothing.

Each test replaces what pagestore reads, writes or removes by links, FIFOs and lies, then makes
pagestore come by: at a stop, a start, after its own death. Everything that is not his stays as it
was, everybody else goes on, and his own database starts again.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from pagestore.installation import config
from pagestore.installation.layout import Installation
from pagestore.installation.supervisor import Supervisor
from tests.hostile.tenant import Tenant, Victims, shared_memory_of, victims
from tests.integration.installation import Whole, patiently, whole_pagestore
from tests.waiting import stays

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="walls between users need root")

PAGESTORE = (sys.executable, "-m", "pagestore.cli.main")
GO_ON = 10.0
"""Seconds within which everybody else is served."""


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        Tenant.moves_in(running, "neighbour")
        yield running


@pytest.fixture(scope="module")
def neighbour(whole: Whole) -> Tenant:
    return Tenant(whole, "neighbour")


@pytest.fixture
def victim() -> Iterator[Victims]:
    with victims() as made:
        yield made
        made.check()


@pytest.fixture
def tenant(whole: Whole, request: pytest.FixtureRequest) -> Iterator[Tenant]:
    name = f"tenant{abs(hash(request.node.name)) % 10_000}"
    yield Tenant.moves_in(whole, name)
    whole.run("rm", name)


def restart(whole: Whole) -> None:
    """Who reads what tenants could write, and who decides: killed, and serving again."""
    before = {part: whole.kill(part) for part in ("compute", "control")}
    patiently(lambda: _serves_anew(whole, before), 30)


def _serves_anew(whole: Whole, before: Mapping[str, int]) -> None:
    parts = whole.installation.parts()
    assert all(parts[part].pid != pid for part, pid in before.items())
    told = {part["part"]: part["serving"] for part in whole.json("status")["parts"]}
    assert all(told[part] for part in before)


def within(seconds: float, action: Callable[[], object]) -> None:
    began = time.monotonic()
    action()
    assert time.monotonic() - began < seconds


LIE = """
import json, os
facts = json.load(open("../compute.json"))
lie = {"pid": PID, "start_ticks": TICKS, "socket_directory": "TREE/below", "ready": READY,
       "log": "SECRET", "process": [PID, TICKS, "BOOT"], "outside": ["TREE"]}
facts |= {name: value for name, value in lie.items() if name in facts}
facts["timeline"] = "0" * 32
os.unlink("../compute.json")
json.dump(facts, open("../compute.json", "w"))
"""
PLANT = (
    "mv ../data ../was; ln -s {victim.shared} ../data;"
    " printf '{victim.bystander.pid}\\n' > {victim.shared}/postmaster.pid"
)
"""As if the bystander were the server of this directory."""


@pytest.mark.parametrize("ready", [True, False])
def test_a_record_that_lies_ends_no_process_and_removes_no_tree(
    whole: Whole, tenant: Tenant, neighbour: Tenant, victim: Victims, ready: bool
) -> None:
    words = {
        "PID": str(victim.bystander.pid),
        "TICKS": str(victim.start_ticks),
        "TREE": str(victim.tree),
        "SECRET": str(victim.secret),
        "BOOT": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "READY": str(ready),
    }
    program = LIE
    for word, value in words.items():
        program = program.replace(word, value)
    lie = victim.root / "lie.py"
    lie.write_text(program)
    tenant.shell(f"python3 {lie}; {PLANT.format(victim=victim)}")
    restart(whole)
    victim.check()
    neighbour.works()
    tenant.works()


def test_a_pid_file_that_lies_ends_no_process(
    whole: Whole, tenant: Tenant, victim: Victims
) -> None:
    """Without a record there was only the pid file to go by."""
    tenant.shell(f"rm -f ../compute.json; {PLANT.format(victim=victim)}")
    restart(whole)
    victim.check()
    tenant.works()


def test_a_supervisor_without_a_control_plane_signals_no_stranger(
    tmp_path: Path, victim: Victims
) -> None:
    (tmp_path / "c/data").mkdir(parents=True)
    (tmp_path / "c/data/postmaster.pid").write_text(f"{victim.bystander.pid}\n")
    config.write_first(tmp_path / "pagestore.toml")
    with (tmp_path / "pagestore.toml").open("a") as file:
        file.write(f'directory = "{tmp_path}"\n')
    Supervisor(Installation(tmp_path))._stop_computes()
    assert stays(lambda: victim.bystander.poll() is None, 0.1)
    victim.check()


FILES = {
    "what is kept": ("pg_stat/pgstat.stat", "postgresql.auto.conf"),
    "the control file": ("global/pg_control",),
}
KINDS = {
    "a link": "ln -s {secret} {file}",
    "a FIFO": "mkfifo -m 666 {file}",
    "a file without end": "truncate -s 8T {file}",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", FILES)
def test_what_is_read_at_a_stop_may_be_anything(
    whole: Whole, neighbour: Tenant, victim: Victims, what: str, kind: str
) -> None:
    tenant = Tenant.moves_in(whole, "replacer")
    for file in FILES[what]:
        command = KINDS[kind].format(secret=victim.secret, file=file)
        tenant.shell(f"rm -rf {file}; {command}")
    # What the server itself would replace at its end lies where it cannot.
    tenant.shell("chmod 555 pg_stat")
    stopping = subprocess.Popen(
        [*PAGESTORE, "stop", "replacer"],
        env=whole.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        within(GO_ON, lambda: neighbour.sql("SELECT 1"))
        within(GO_ON, lambda: whole.run("show", "neighbour"))
        stopping.wait(60)
    finally:
        stopping.kill()
    victim.check()
    tenant.works()
    for name in ("pg_stat/pgstat.stat", "postgresql.auto.conf"):
        read = f"SELECT encode(pg_read_binary_file('{name}', 0, 4000, true), 'escape')"
        assert "secret" not in str(tenant.sql(read))
    assert whole.sql("replacer", "SHOW work_mem") != [("66MB",)]


def test_a_directory_is_removed_and_nothing_behind_its_links(
    whole: Whole, tenant: Tenant, victim: Victims
) -> None:
    deep = "; ".join(["mkdir -p d; cd d"] * 400)
    tenant.shell(
        f"ln -s {victim.tree} base/away; ln -s {victim.tree} pg_wal/away; mkfifo base/fifo;"
        f" mv pg_stat_tmp was; ln -s {victim.tree} pg_stat_tmp;"
        f" rm -rf ../run; ln -s {victim.tree} ../run; {deep}"
    )
    directory = tenant.directory
    whole.run("stop", tenant.name)
    assert not directory.exists()
    gone = directory.with_name(f"{directory.name}.removing")
    patiently(lambda: _gone(gone), 30)
    victim.check()
    tenant.works()


def _gone(path: Path) -> None:
    assert not path.exists()


def test_one_database_does_not_read_anothers_tables(
    whole: Whole, tenant: Tenant, neighbour: Tenant
) -> None:
    neighbour.sql("CREATE TABLE IF NOT EXISTS secrets AS SELECT 'hunter2' AS word")
    words = Path(f"/proc/{neighbour.pid}/cmdline").read_text().split("\0")
    sockets = next(word.partition("=")[2] for word in words if "unix_socket_directories" in word)
    port = next(word.partition("=")[2] for word in words if word.startswith("port="))
    for host in (sockets, "127.0.0.1"):
        for user in ("postgres", "root", "all", "pagestore"):
            said = tenant.told(
                f"psql -w -h {host} -p {port} -U {user} -d neighbour -c 'TABLE secrets'"
            )
            assert "hunter2" not in said
            refused = "No such file" if host == sockets else "Connection refused"
            assert refused in said


def test_roots_own_sessions_need_no_password(whole: Whole, tenant: Tenant) -> None:
    words = Path(f"/proc/{tenant.pid}/cmdline").read_text().split("\0")
    sockets = next(word.partition("=")[2] for word in words if "unix_socket_directories" in word)
    port = next(word.partition("=")[2] for word in words if word.startswith("port="))
    with psycopg.connect(host=sockets, port=port, user="postgres", dbname="postgres") as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_psql_shows_no_password(whole: Whole, tenant: Tenant) -> None:
    password = psycopg.conninfo.conninfo_to_dict(whole.json("url", tenant.name)["url"])["password"]
    process = subprocess.Popen(
        [*PAGESTORE, "psql", tenant.name, "--", "-c", "SELECT pg_sleep(1000)"],
        env=whole.environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        patiently(lambda: _sleeps(tenant))
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
        assert shown.startswith("psql\0")
        assert str(password) not in shown
    finally:
        process.kill()
        process.wait()


def _sleeps(tenant: Tenant) -> None:
    rows = tenant.sql("SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'")
    assert rows


def test_nothing_in_the_data_directory_is_for_others_eyes(whole: Whole) -> None:
    """But the modules, which servers load, and what says whose the directory is."""
    whole.run("status")
    seen = []
    for folder, _, names in os.walk(whole.data):
        for name in names:
            path = Path(folder, name)
            found = path.lstat()
            if path.suffix == ".so" or "redo" in folder or stat.S_ISSOCK(found.st_mode):
                continue
            seen.append(path.name)
            mode = stat.S_IMODE(found.st_mode)
            parents = [p for p in path.parents if p.is_relative_to(whole.data)]
            closed = any(not p.stat().st_mode & 0o077 for p in parents)
            assert closed or not mode & 0o007, f"{path} {mode:o}"
    assert {"pagestore.toml", "parts.json", "supervisor.log", "compute.json"} <= set(seen)


def test_a_killed_server_leaves_nothing_in_shared_memory(tenant: Tenant) -> None:
    for _ in range(2):
        pid = tenant.pid
        assert shared_memory_of(pid)
        os.kill(pid, 9)
        tenant.works()
        assert tenant.pid != pid
        assert not shared_memory_of(pid)


def test_a_stop_does_not_wait_for_ten_thousand_files(whole: Whole, tenant: Tenant) -> None:
    directory = tenant.directory
    tenant.shell("mkdir many; cd many; seq 10000 | xargs touch")
    whole.run("stop", tenant.name)
    assert not directory.exists()
    aside = directory.with_name(f"{directory.name}.removing")
    patiently(lambda: _gone(aside), 60)


def test_a_removal_that_was_broken_off_goes_on(whole: Whole, tenant: Tenant) -> None:
    directory = tenant.directory
    record = (directory / "compute.json").read_text()
    whole.run("stop", tenant.name)
    aside = directory.with_name(f"{directory.name}.removing")
    patiently(lambda: _gone(aside), 60)
    aside.mkdir()
    (aside / "data").mkdir()
    (aside / "data/left").touch()
    (aside / "compute.json").write_text(record)
    restart(whole)
    patiently(lambda: _gone(aside), 60)


def test_what_has_no_mark_of_ours_stays(whole: Whole, tenant: Tenant, victim: Victims) -> None:
    computes = tenant.directory.parent
    marked = json.loads((tenant.directory / "compute.json").read_text())
    strangers = {
        computes / "precious": "file",
        computes / "0123456789-abcdef": "file",
        computes / "0123456789-abcdee.removing": "file",
        computes / "holiday pictures": "compute.json",
    }
    for directory, name in strangers.items():
        directory.mkdir()
        (directory / name).write_text(json.dumps(marked | {"process": [0, 0, ""]}))
    link = computes / "0123456789-abcded"
    link.symlink_to(victim.tree)
    restart(whole)
    tenant.works()
    for directory, name in strangers.items():
        assert (directory / name).exists()
        (directory / name).unlink()
        directory.rmdir()
    link.unlink()


def test_a_compute_of_an_earlier_version_is_ended_and_removed(whole: Whole) -> None:
    """Its record lay in a directory of its server's."""
    computes = Tenant.moves_in(whole, "neighbour").directory.parent
    directory = computes / "0123456789-abcdef"
    (directory / "data").mkdir(parents=True)
    process = subprocess.Popen(["sleep", "1000"], user="postgres")
    stat_line = Path(f"/proc/{process.pid}/stat").read_text()
    facts = {"version": 1, "pid": process.pid, "start_ticks": int(stat_line.split()[21])}
    (directory / "compute.json").write_text(json.dumps(facts))
    for path in (directory, directory / "data", directory / "compute.json"):
        subprocess.run(["chown", "postgres", path], check=True)
    try:
        restart(whole)
        assert process.wait(20) < 0
        patiently(lambda: _gone(directory), 30)
        patiently(lambda: _gone(computes / "0123456789-abcdef.removing"), 30)
    finally:
        process.kill()
