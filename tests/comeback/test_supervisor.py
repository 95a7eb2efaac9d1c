"""A supervisor that was killed, and one that cannot write: everything comes back, or ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.comeback.disks import inside, mount_namespace
from tests.integration.installation import Whole, patiently, whole_pagestore

PARTS = (
    *("pageserver", "safekeeper-1", "safekeeper-2", "safekeeper-3"),
    *("compute", "control", "proxy"),
)


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    """In a mount namespace of its own, where it may be: the last test makes it read-only."""
    with contextlib.ExitStack() as stack:
        within = inside(stack.enter_context(mount_namespace())) if os.geteuid() == 0 else []
        running = stack.enter_context(whole_pagestore(safekeepers=3, within=within))
        running.run("create", "app")
        running.sql("app", "CREATE TABLE t (a int)")
        yield running


def pids(whole: Whole) -> dict[str, int]:
    return {part: process.pid for part, process in whole.installation.parts().items()}


def kill_supervisor(whole: Whole, number: signal.Signals = signal.SIGKILL) -> None:
    pid = whole.installation.running_supervisor()
    assert pid is not None
    os.kill(pid, number)
    deadline = time.monotonic() + 10
    while whole.installation.running_supervisor() == pid:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_computes_and_parts_go_on_over_a_killed_supervisor_and_up_takes_them_over(
    whole: Whole,
) -> None:
    before = pids(whole)
    assert set(before) == set(PARTS)
    with whole.connect("app") as session:
        session.execute("INSERT INTO t VALUES (1)")
        kill_supervisor(whole)
        session.execute("INSERT INTO t VALUES (2)")
        status = whole.run("status", "--json", check=False)
        assert status.returncode == 5
        assert whole.json("up")["already_running"] is False
        session.execute("INSERT INTO t VALUES (3)")
        assert pids(whole) == before
        assert session.execute("SELECT count(*) FROM t").fetchone() == (3,)
    # What was taken over is kept like what was started.
    whole.kill("safekeeper-2")
    patiently(lambda: _serves(whole))
    assert pids(whole)["safekeeper-2"] != before["safekeeper-2"]


def _serves(whole: Whole) -> None:
    done = whole.run("status", "--json", check=False)
    assert done.returncode == 0, done.stdout


def test_what_was_left_is_started_anew_when_it_does_not_answer_or_is_another(
    whole: Whole,
) -> None:
    before = pids(whole)
    kill_supervisor(whole)
    os.kill(before["safekeeper-1"], signal.SIGSTOP)
    whole.environment["PAGESTORE_PAGESERVER__REDO_HELPERS"] = "1"
    whole.up()
    after = pids(whole)
    assert {part for part in PARTS if before[part] != after[part]} == {
        "safekeeper-1",
        # It has another command, and the others another environment.
        "pageserver",
        "safekeeper-2",
        "safekeeper-3",
        "compute",
        "control",
        "proxy",
    }
    assert not any(alive(pid) for pid in before.values())
    whole.sql("app", "INSERT INTO t VALUES (4)")
    del whole.environment["PAGESTORE_PAGESERVER__REDO_HELPERS"]


def test_down_ends_what_a_killed_supervisor_left(whole: Whole) -> None:
    before = pids(whole)
    computes = [compute.pid for compute in whole.installation.running_computes()]
    assert computes
    kill_supervisor(whole)
    # Nor does it need a note of them: a supervisor may be killed before it writes one.
    whole.installation.parts_file.unlink()
    assert whole.json("down")["was_running"] is True
    assert not any(alive(pid) for pid in [*before.values(), *computes])
    assert whole.json("down")["was_running"] is False
    whole.up()
    assert patiently(lambda: whole.sql("app", "SELECT count(*) > 0 FROM t")) == [(True,)]


def test_a_part_that_is_frozen_is_seen_in_status_within_its_deadline(whole: Whole) -> None:
    pid = pids(whole)["pageserver"]
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        done = whole.run("status", check=False)
        assert time.monotonic() - began < 8
        assert done.returncode == 5
        row = next(line for line in done.stdout.splitlines() if line.startswith("pageserver"))
        assert "not serving" in row
    finally:
        os.kill(pid, signal.SIGCONT)
    patiently(lambda: _serves(whole))


def test_a_taken_port_is_said_at_once_with_part_port_and_holder(tmp_path: Path) -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        other = Whole(tmp_path, {"PAGESTORE_PAGESERVER__LISTEN": f"127.0.0.1:{port}"})
        began = time.monotonic()
        error = other.error("up")
        assert time.monotonic() - began < 10
        assert error["reason"] == "ADDRESS_IN_USE"
        assert "pageserver" in error["message"]
        assert f"127.0.0.1:{port}" in error["message"]
        assert f"process {os.getpid()} " in error["message"]
        assert other.json("down")["was_running"] is False


def test_an_unwritable_disk_does_not_keep_the_supervisor_from_keeping(whole: Whole) -> None:
    """A full one, with a part dead: its notes cannot be written, yet the part is started."""
    blocked = whole.installation.parts_file.with_name("parts.json.tmp")
    blocked.mkdir()
    try:
        killed = whole.kill("control")
        patiently(lambda: _another(whole, killed))
    finally:
        blocked.rmdir()
    patiently(lambda: _noted(whole, killed))


def _another(whole: Whole, killed: int) -> None:
    assert whole.run("ls", check=False).returncode == 0
    assert not alive(killed)


def _noted(whole: Whole, killed: int) -> None:
    assert pids(whole)["control"] != killed
    _serves(whole)


def test_psycopg_sees_every_row_at_the_end(whole: Whole) -> None:
    def rows() -> list[tuple[int]]:
        return whole.sql("app", "SELECT a FROM t ORDER BY a")

    assert patiently(rows) == [(1,), (2,), (3,), (4,)]
    with pytest.raises(psycopg.errors.UndefinedTable):
        whole.sql("app", "SELECT 1 FROM nowhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_down_on_a_read_only_file_system_ends_everything(whole: Whole) -> None:
    for mount in (["--bind", str(whole.data)], ["-o", "remount,bind,ro"]):
        subprocess.run([*whole.within, "mount", *mount, str(whole.data)], check=True)
    said = [whole.run(*verb, check=False) for verb in (("create", "b"), ("down",), ("down",))]
    words = "\n".join(done.stdout + done.stderr for done in said)
    assert [done.returncode == 0 for done in said] == [False, True, True], words
    assert "class" not in words, words
    assert "Traceback" not in words, words
    assert "pagestore is down" in words, words
    assert "pagestore was not running" in words, words
    directory = os.fsencode(whole.data)
    running = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    left = [line for entry in running if directory in (line := _command_line(entry))]
    assert left == [], words


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
