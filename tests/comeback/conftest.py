"""What the modules share: the table of what comes back when, and one installation for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.comeback.client import Client
from tests.comeback.disks import Disks, whole_on_small_disks
from tests.integration.installation import whole_pagestore

Table = dict[tuple[str, str], float]


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    found: Table = {}
    yield found
    capture = request.config.pluginmanager.getplugin("capturemanager")
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    if capture is not None and reporter is not None:
        with capture.global_and_fixture_disabled():
            reporter.write_line("\n" + as_text(found))


def as_text(found: Table) -> str:
    """A row a part, a column a fault."""
    faults = list(dict.fromkeys(fault for _, fault in found))
    lines = [f"{'serves after':12}" + "".join(f"{fault:>12}" for fault in faults)]
    for part in dict.fromkeys(part for part, _ in found):
        cells = (found.get((part, fault)) for fault in faults)
        words = ("-" if cell is None else f"{cell:.2f} s" for cell in cells)
        lines.append(f"{part:12}" + "".join(f"{word:>12}" for word in words))
    return "\n".join(lines)


@pytest.fixture(scope="session")
def disks() -> Iterator[Disks]:
    if os.geteuid() != 0:
        pytest.skip("mounts file systems")
    with whole_on_small_disks() as disks:
        yield disks


@pytest.fixture(scope="session")
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    if os.geteuid() == 0:
        yield Client(request.getfixturevalue("disks").whole)
        return
    with whole_pagestore() as whole:
        yield Client(whole)
