"""Safekeepers cut off from everybody, in network namespaces of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root")
def test_nothing_acknowledged_is_lost_when_the_network_is_cut() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.integration.cut_network"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
