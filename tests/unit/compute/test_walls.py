"""Walls by themselves: what a program sees within them, and how its processes end."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pagestore.compute import syscalls, walls
from pagestore.compute.record import ComputeRecord
from pagestore.compute.sandbox import Sandbox, WalledServer, entered
from pagestore.compute.walls import Room, descriptors, walled
from pagestore.errors import FailedPrecondition
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.postgres.datadir import Owner
from tests.waiting import until

UID = 1_900_070_000
OWNER = Owner(UID, UID) if os.geteuid() == 0 else None

pytestmark = pytest.mark.walls


@pytest.fixture
def room(tmp_path: Path) -> Room:
    for name in ("own/data", "own/run", "another"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "own/secret").write_text("secret")
    (tmp_path / "own/secret").chmod(0o600)
    (tmp_path / "another/file").touch()
    if OWNER is not None:
        for name in ("own/data", "own/run"):
            os.chown(tmp_path / name, *OWNER)
        (tmp_path / "own").chmod(0o711)
    return Room((tmp_path / "own/data", tmp_path / "own/run"), (tmp_path / "own",))


def said(room: Room, script: str, *, io_uring: bool = False) -> str:
    with syscalls.opened(io_uring=io_uring) as denying:
        command = walled(["sh", "-c", f"( {script} ) 2>&1"], room, OWNER, denying=denying)
        kept = descriptors(denying)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, pass_fds=kept)
    return done.stdout


def test_only_what_is_its_own_is_there_and_only_that_can_be_written(room: Room) -> None:
    data, outer = room.writable[0], room.readable[0]
    assert said(room, f"ls {outer.parent}") == "own\n"
    assert said(room, f"touch {data}/x && echo done") == "done\n"
    # Whoever is no root owns what leads to his directories, too: it is in memory, and his own.
    leads_there = () if OWNER is None else (outer.parent,)
    for place in (outer, *leads_there, "/", "/dev", "/usr", "/etc", "/proc"):
        assert "done" not in said(room, f"touch {place}/x && echo done"), place
    assert not (outer.parent / "x").exists()
    assert said(room, "ls -A /dev/shm") == ""
    assert set(said(room, "ls -A /tmp").split()) <= {outer.parts[2]}
    for place in ("/var", "/home", "/root", "/run", "/sys", "/boot"):
        assert "No such file" in said(room, f"ls {place}")
    if OWNER is not None:
        assert "Permission denied" in said(room, f"cat {outer}/secret")


def test_memory_that_is_its_own_is_bounded(room: Room) -> None:
    assert said(room, "df --output=size -B1M /tmp /dev/shm").split()[1:] == ["256", "1024"]


def test_nobody_else_can_be_seen_or_signalled(room: Room) -> None:
    assert len(said(room, "ls -d /proc/[0-9]*").split()) <= 4
    assert "No such process" in said(room, f"kill -9 {os.getpid()}")
    assert "none\n" in said(room, "ipcs -m | grep -q 0x || echo none")


def test_a_network_of_its_own_has_nobody_in_it(room: Room) -> None:
    alone = replace(room, network=False)
    assert (
        said(alone, "ls /sys/class/net; tail -n +3 /proc/net/dev | cut -d: -f1").split()[-1] == "lo"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        knock = f"bash -c 'echo < /dev/tcp/127.0.0.1/{port}' && echo done"
        assert "done" in said(room, knock)
        assert "refused" in said(alone, knock)


def test_it_has_no_rank_and_gets_none(room: Room) -> None:
    status = said(room, "cat /proc/self/status")
    assert "NoNewPrivs:\t1" in status
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{name}:\t0000000000000000" in status
    user = os.geteuid() if OWNER is None else UID
    assert f"Uid:\t{user}\t{user}\t{user}\t{user}" in status
    assert "Groups:\t \n" in status or OWNER is None
    assert "done" not in said(room, "mount -t tmpfs x /tmp && echo done")


CALLS = """
import ctypes, errno, sys
call = ctypes.CDLL(None, use_errno=True).syscall
for text in sys.argv[1:]:
    number, *arguments = (int(word, 0) for word in text.split(","))
    ctypes.set_errno(0)
    call(number, *(ctypes.c_long(word) for word in arguments))
    print(errno.errorcode.get(ctypes.get_errno(), "0"))
"""
"""What each of these calls ends with. None may be one that does harm where it is not denied."""


def ends_with(room: Room, calls: list[str], *, io_uring: bool = False) -> list[str]:
    script = f"/usr/bin/python3 -c '{CALLS}' {' '.join(calls)}"
    return said(room, script, io_uring=io_uring).split()


@pytest.fixture
def column() -> int:
    """Of this machine in the table of calls."""
    if not syscalls.is_known():
        pytest.skip(f"there is no filter for {platform.machine()}")
    if not Path("/usr/bin/python3").exists():
        pytest.skip("there is no /usr/bin/python3 to make the calls")
    return syscalls.ARCHITECTURES[platform.machine()].column


def test_no_call_that_is_denied_is_made(room: Room, column: int) -> None:
    denied = {**syscalls.DENIED, **syscalls.IO_URING}
    numbers = {name: row[column] for name, row in denied.items() if row[column] is not None}
    # Arguments that no kernel takes: where one is not denied it says EINVAL, EFAULT or EBADF.
    calls = [f"{number},-1,-1,-1,-1,-1,-1" for number in numbers.values()]
    assert dict(zip(numbers, ends_with(room, calls), strict=True)) == dict.fromkeys(
        numbers, "EPERM"
    )


def test_no_namespace_is_to_be_had(room: Room, column: int) -> None:
    """Not even a user namespace, which needs no rank, and gives all of it."""
    unshare, clone = syscalls.UNSHARE[column], syscalls.CLONE[column]
    kinds = [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]
    calls = [f"{unshare},{kind}" for kind in [*kinds, 0x80]]
    calls += [f"{clone},{kind | signal.SIGCHLD},0,0,0,0" for kind in kinds]
    assert ends_with(room, calls) == ["EPERM"] * len(calls)
    assert ends_with(room, [f"{syscalls.CLONE3[column]},0,0", f"{unshare},0x400"]) == [
        "ENOSYS",
        "0",
    ]
    for words in ("unshare --user true", "unshare --map-root-user --mount true"):
        assert "not permitted" in said(room, words)


def test_io_uring_is_for_those_majors_that_use_it(room: Room, column: int) -> None:
    call = [f"{syscalls.IO_URING['io_uring_setup'][column]},0,0"]
    assert ends_with(room, call) == ["EPERM"]
    [found] = ends_with(room, call, io_uring=True)
    if found == "EPERM":
        pytest.skip("this kernel has io_uring switched off (kernel.io_uring_disabled)")
    assert found in ("EINVAL", "EFAULT", "ENOSYS")


ORDINARY = [
    "ls -l / | sort | head -3",
    "tar -cf - -C /usr/share/doc bash | gzip | gunzip | tar -tf - >/dev/null",
    "cp -a /etc/hostname . && mv hostname h && rm h",
    "timeout 5 sleep 0.01",
    "(sleep 0.01 & wait)",
    "perl -e 'exit(fork() ? wait() < 0 : 0)'",
    "/usr/bin/python3 -c 'import threading, subprocess as s, tempfile; tempfile.TemporaryFile();"
    ' t = threading.Thread(target=s.run, args=(["true"],)); t.start(); t.join()\'',
    "psql --version; awk 'BEGIN { print systime() > \"/dev/null\" }'",
    "date; id; df . ; ps; uname -a; nproc; getent hosts localhost; openssl rand -hex 4",
    "flock . true; nice -n 1 true; setsid true; env -i true; chrt -o 0 true",
]


@pytest.mark.parametrize("script", ORDINARY)
def test_ordinary_programs_miss_nothing(room: Room, script: str) -> None:
    program = script.split()[0].rpartition("/")[2].strip("();")
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}")
    # Twice, so that what the machine itself lacks is not laid to the filter.
    quoted = f"cd {room.writable[0]}; ( {script} ) >/dev/null 2>&1; echo $?"
    command = walled(["sh", "-c", quoted], room, OWNER)
    without = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60).stdout
    assert said(room, quoted) == without


def test_the_numbers_are_those_of_the_kernels_headers(column: int) -> None:
    paths = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h")
    if not Path(paths[column]).exists():
        pytest.skip("the kernel's headers are not installed (linux-libc-dev)")
    for at, path in enumerate(paths):
        if not Path(path).exists():
            continue
        found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(path).read_text()))
        rows = {**syscalls.DENIED, **syscalls.IO_URING}
        rows |= {"clone": syscalls.CLONE, "clone3": syscalls.CLONE3, "unshare": syscalls.UNSHARE}
        for name, row in rows.items():
            if name in found:
                assert row[at] == int(found[name]), name


def test_all_end_with_the_server_and_its_exit_code_is_known(room: Room) -> None:
    async def scenario(script: str, number: int | None) -> int | None:
        child = subprocess.Popen(walled(["bash", "-c", script], room, OWNER))
        server = await entered(child)
        assert server is not None
        await until(lambda: (room.writable[0] / "left").exists())
        if number is not None:
            server.send(signal.Signals(number))
        code = await server.wait()
        await until(lambda: not server.sandbox.first.alive)
        (room.writable[0] / "left").unlink()
        return code

    left = f"cd {room.writable[0]}; trap 'exit 3' TERM; setsid sleep 1000 & touch left;"
    assert asyncio.run(scenario(f"{left} sleep 0.2; exit 5", None)) == 5
    assert asyncio.run(scenario(f"{left} while :; do sleep 0.1; done", signal.SIGTERM)) == 3
    assert asyncio.run(scenario(f"{left} while :; do sleep 0.1; done", signal.SIGKILL)) == -9


def test_one_that_runs_is_found_by_its_record_and_ended(room: Room, tmp_path: Path) -> None:
    async def scenario() -> None:
        child = subprocess.Popen(walled(["sleep", "1000"], room, OWNER), start_new_session=True)
        server = await entered(child)
        assert server is not None
        record = ComputeRecord(DEFAULT_TENANT, TimelineId.generate(), 1, "", "", uid=UID)
        record.of_server(server).save(tmp_path)
        server.release()
        loaded = ComputeRecord.load(tmp_path)
        assert loaded is not None
        assert loaded.is_running
        found = loaded.server()
        assert isinstance(found, WalledServer)
        await found.kill()
        assert not loaded.is_running
        assert loaded.server() is None
        child.wait()

    asyncio.run(scenario())


def test_one_whose_agent_died_before_it_was_inside_is_ended(room: Room) -> None:
    child = subprocess.Popen(walled(["sleep", "1000"], room, OWNER))
    record = ComputeRecord(DEFAULT_TENANT, TimelineId.generate(), 1, "", "").of_outer(child.pid)
    record.end_sandbox()
    assert child.wait(10) < 0
    assert isinstance(record.sandbox, Sandbox)


def test_walls_that_cannot_be_built_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    walls.check(UID, network=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FailedPrecondition) as caught:
        walls.check(UID, network=False)
    assert caught.value.reason == "WALLS_FORBIDDEN"
    assert "apt-get install bubblewrap" in str(caught.value.hint)
