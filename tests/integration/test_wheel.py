"""The wheels, each alone in an environment of its own: the whole, and the client."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENT = """
import sys
import pagestore
from pagestore.errors import PagestoreError
address = open(sys.argv[1] + "/control/address").read().strip()
token = open(sys.argv[1] + "/tokens/operator").read().strip()
with pagestore.connect(address, token=token) as client, client.branch("app") as made:
    with made.psycopg() as session:
        print(*session.execute("SELECT 6 * 7").fetchone())
try:
    pagestore.connect()
except PagestoreError as error:
    print(error.reason)
print([name for name in sys.modules if name.startswith("pagestore._native")])
"""


@pytest.fixture(scope="module")
def wheels(request: pytest.FixtureRequest) -> Path:
    if not request.config.getoption("--wheel"):
        pytest.skip("did NOT run: fetches packages; run with --wheel")
    run("make", "wheel", cwd=ROOT)
    return ROOT / "dist"


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Its output. Nothing of this tree is found by it, unless it is within."""
    done = subprocess.run(
        command,
        cwd=cwd or "/",
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout


def environment(at: Path, *what: str) -> Path:
    """Where its programs are."""
    run(sys.executable, "-m", "venv", at)
    run(at / "bin/pip", "install", "--quiet", *what)
    return at / "bin"


@pytest.fixture(scope="module")
def data(wheels: Path) -> Iterator[tuple[Path, Path]]:
    """A data directory, and the programs of the environment whose pagestore runs on it."""
    with tempfile.TemporaryDirectory(prefix="ps-wheel-", dir="/tmp") as made:
        place = Path(made)
        place.chmod(0o711)
        (whole,) = wheels.glob("pagestore-*.whl")
        programs = environment(place / "whole", str(whole))
        at = place / "data"
        try:
            run(programs / "pagestore", "up", PAGESTORE_DATA=str(at))
            yield at, programs
        finally:
            run(programs / "pagestore", "down", PAGESTORE_DATA=str(at))


def test_the_whole_runs_from_a_wheel(data: tuple[Path, Path]) -> None:
    at, programs = data
    assert run(programs / "pagestore", "create", "app", PAGESTORE_DATA=str(at))
    said = run(
        *(programs / "pagestore", "psql", "app", "--", "-Atc", "SELECT 6 * 7"),
        PAGESTORE_DATA=str(at),
    )
    assert said.strip() == "42"


def test_the_client_alone_has_no_native_part(data: tuple[Path, Path], wheels: Path) -> None:
    at, _ = data
    (wheel,) = wheels.glob("pagestore_client-*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    programs = environment(at.parent / "client", f"{wheel}[psycopg]")
    said = run(programs / "python", "-c", CLIENT, str(at)).splitlines()
    assert said == ["42", "CLIENT_ALONE", "[]"]
