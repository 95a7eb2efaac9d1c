"""Options and fixtures that every test may use."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import hypothesis
import pytest

from pagestore.postgres import majors
from tests import access
from tests.plain_postgres import MAJOR

_CLONE_NEWNET = 0x40000000

# How long an example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the long soaks")
    parser.addoption("--ledger-seed", help="the order of faults of the quorum's ledger")
    parser.addoption(
        "--clients",
        choices=["quick", "all"],
        default="quick",
        help="all: also clients of other languages and majors, fetched by their package managers",
    )
    parser.addoption("--seeds", default="10000", help="of the simulation: N, or FIRST:END")


def pytest_configure(config: pytest.Config) -> None:
    """Gives each worker of xdist a loopback of its own, where it may: no port is anybody else's."""
    access.use_it_here()
    if not hasattr(config, "workerinput") or os.geteuid() != 0:
        return
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def pytest_report_header() -> str:
    """Of failures it has to be known on what they were."""
    debian = Path("/etc/debian_version")
    there = majors.exact_versions(majors.BINDIR)
    return "\n".join(
        [
            f"Debian: {debian.read_text().strip() if debian.exists() else 'no'}",
            f"Postgres: {there.get(MAJOR, 'none')}; installed: {', '.join(map(str, there))}",
        ]
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    access.remove()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="needs --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)
