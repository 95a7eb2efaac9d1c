"""Options and fixtures that every test may use."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from pathlib import Path

import hypothesis
import pytest

from pagestore.agent.users import range_of_uids
from pagestore.compute import walls
from pagestore.errors import FailedPrecondition
from pagestore.installation.config import ComputesConfig
from pagestore.postgres import majors
from tests import access
from tests.plain_postgres import MAJOR

_CLONE_NEWNET = 0x40000000
_WITHOUT_WALLS = "PAGESTORE_COMPUTES__WALLS"

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
    parser.addoption("--wheel", action="store_true", help="also build wheels, and use them alone")
    parser.addoption("--soak-seconds", default="0", help="how long the store's months may take")
    parser.addoption("--seeds", default="10000", help="of the simulation: N, or FIRST:END")


def pytest_configure(config: pytest.Config) -> None:
    """Gives each worker of xdist a loopback of its own, where it may: no port is anybody else's."""
    access.use_it_here()
    if _walls_fault():
        os.environ[_WITHOUT_WALLS] = "none"
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
            f"Walls: {_walls_fault() or 'yes'}",
            f"Postgres: {there.get(MAJOR, 'none')}; installed: {', '.join(map(str, there))}",
        ]
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    access.remove()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {} if config.getoption("--slow") else {"slow": "needs --slow"}
    if fault := _walls_fault():
        reasons["walls"] = f"did NOT run: {fault}"
    # A soak takes as long as it was told to, and a while.
    soak = pytest.mark.timeout(float(config.getoption("--soak-seconds")) + 300)
    for item in items:
        if "soak_seconds" in getattr(item, "fixturenames", ()):
            item.add_marker(soak)
        for keyword, reason in reasons.items():
            if keyword in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@functools.cache
def _walls_fault() -> str:
    """Why this machine forbids the walls; then whole stacks run without."""
    try:
        walls.check(range_of_uids(ComputesConfig().uids)[0], network=False)
    except FailedPrecondition as error:
        return error.message
    return ""
