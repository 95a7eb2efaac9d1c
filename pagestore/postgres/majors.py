"""The majors of Postgres on this machine: where their programs are, and our modules for them.

A path in which ``{major}`` stands is a place for each, such as /usr/lib/postgresql/{major}/bin; one
without it is that of a single major, whichever that is.
"""

from __future__ import annotations

import functools
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pagestore.errors import FailedPrecondition
from pagestore.pgformat import versions

BINDIR = Path("/usr/lib/postgresql/{major}/bin")
"""Where the distribution's packages have their programs."""
MODULES = ("redo", "session", "shim")
_MARK = "{major}"


def library(module: str) -> str:
    """The file name of one of our modules, for any major."""
    return f"pagestore_{module}-{_MARK}.so"


def place(pattern: Path, major: int) -> Path:
    """Where it is for `major`, if it is there."""
    return Path(str(pattern).replace(_MARK, str(major)))


def installed(bindir: Path) -> dict[int, Path]:
    """The majors whose servers are there, and their programs' directories; ascending."""
    found = {}
    for version in versions.ALL:
        directory = place(bindir, version.major)
        if (directory / "postgres").exists() and (
            _MARK in str(bindir) or _major_of(directory) == version.major
        ):
            found[version.major] = directory
    return found


def programs(bindir: Path, major: int) -> Path:
    """The directory of one major's programs.

    Raises:
        FailedPrecondition: POSTGRES_MISSING; it is not installed, naming what is.
    """
    there = installed(bindir)
    if major in there:
        return there[major]
    others = ", ".join(map(str, there))
    raise FailedPrecondition(
        "POSTGRES_MISSING",
        f"There is no Postgres {major} in {place(bindir, major)}"
        + (f"; installed: {others}." if others else "."),
        f"apt-get install postgresql-{major}",
    )


def latest_programs(bindir: Path) -> Path:
    """The directory of the newest major's programs: psql and pgbench talk to every server.

    Raises:
        FailedPrecondition: POSTGRES_MISSING.
    """
    return programs(bindir, max(installed(bindir), default=versions.ALL[-1].major))


def libraries(bindir: Path, major: int) -> Path:
    """Where the server of that major looks for libraries."""
    return programs(bindir, major).parent / "lib"


def missing_library(library: Path, major: int) -> None:
    """
    Raises:
        FailedPrecondition: MODULES_MISSING; unless it is there.
    """
    if not place(library, major).exists():
        raise FailedPrecondition(
            "MODULES_MISSING",
            f"There is no {place(library, major)}: pagestore was not built for Postgres {major}.",
            f"apt-get install postgresql-server-dev-{major}, then `make setup`.",
        )


@functools.cache
def exact(directory: Path) -> str:
    """What the server there calls itself, such as "17.12 (Debian 17.12-0+deb13u1)"; empty where it
    does not say."""
    try:
        said = subprocess.run(
            [directory / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.strip().removeprefix("postgres (PostgreSQL) ")


def exact_versions(bindir: Path) -> dict[int, str]:
    """Of every major that is installed."""
    return {major: exact(directory) for major, directory in installed(bindir).items()}


@dataclass(frozen=True, slots=True)
class Installed:
    """What of this machine the control plane has to know."""

    bindir: Path

    def newest(self) -> int:
        """
        Raises:
            FailedPrecondition: POSTGRES_MISSING.
        """
        latest_programs(self.bindir)
        return max(installed(self.bindir))

    def require(self, major: int) -> None:
        """
        Raises:
            FailedPrecondition: POSTGRES_MISSING.
        """
        programs(self.bindir, major)

    def libraries(self, major: int) -> Path:
        """Where servers of that major look for libraries; of the newest with 0."""
        return libraries(self.bindir, major or self.newest())


def _major_of(directory: Path) -> int:
    match = re.match("[0-9]+", exact(directory))
    return int(match[0]) if match else 0
