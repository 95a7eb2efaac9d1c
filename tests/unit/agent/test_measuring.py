"""What a compute has cost, by its processes or its control group."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from pagestore.agent.measuring import FILE, Measured, Measuring, cpu_micros
from pagestore.compute.record import ComputeRecord
from pagestore.ids import TenantId, TimelineId
from pagestore.postgres.process import Identity
from tests.waiting import wait_until

RECORD = ComputeRecord(TenantId(b"t" * 16), TimelineId(b"l" * 16), 5432, "/nowhere", "/nowhere/log")
BURN = "x = 0\nfor i in range(4_000_000): x += i\n"
PARENT = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-c", {BURN!r}])
child = subprocess.Popen([sys.executable, "-c", {BURN!r} + "import time; time.sleep(100)"])
print("began", flush=True)
sys.stdin.read()
child.kill()
"""


def test_cpu_is_that_of_all_that_descend_those_that_have_ended_too() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None and server.stdin is not None  # noqa: PT018
        server.stdout.readline()
        record = replace(RECORD, process=Identity.of(server.pid))
        ended = cpu_micros(record)
        assert ended > 20_000  # the first child's
        wait_until(lambda: cpu_micros(record) > ended + 20_000)
        server.stdin.close()


def test_a_control_group_tells_of_more_than_processes(tmp_path: Path) -> None:
    first, second = tmp_path / "v1", tmp_path / "v2"
    for group in (first, second):
        group.mkdir()
    (first / "cpuacct.usage").write_text("7654321987\n")
    assert cpu_micros(replace(RECORD, groups=(str(first),))) == 7_654_321
    (second / "cpu.stat").write_text("usage_usec 1234567\nuser_usec 1000000\n")
    assert cpu_micros(replace(RECORD, groups=(str(tmp_path / "none"), str(second)))) == 1_234_567


def test_what_was_noted_outlives_the_agent(tmp_path: Path) -> None:
    before = time.time_ns() // 1000
    record = replace(RECORD, started_micros=before - 5_000_000, groups=(str(tmp_path / "g"),))
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "cpuacct.usage").write_text("5000000")
    measuring = Measuring(tmp_path, record)
    assert measuring.latest == Measured(before - 5_000_000, before - 5_000_000)
    seen = measuring.look()
    assert (seen.started, seen.cpu) == (before - 5_000_000, 5_000)
    assert seen.until >= before
    (tmp_path / "g" / "cpuacct.usage").unlink()
    assert Measuring(tmp_path, record).latest == seen
    # The group is gone with the server: what it had counted stands.
    assert Measuring(tmp_path, record).look().cpu == 5_000


def test_a_torn_note_is_none(tmp_path: Path) -> None:
    record = replace(RECORD, started_micros=17)
    for text in ("", "{", "[]", '{"started": 1}', "17"):
        (tmp_path / FILE).write_text(text)
        assert Measuring(tmp_path, record).latest == Measured(17, 17)
