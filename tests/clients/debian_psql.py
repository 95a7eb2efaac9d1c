"""psql of other majors, from Debian's archive, without installing anything.

Debian 12 has psql 15. Those of later releases need a later C library, so each is unpacked with
what it is linked against, and run by the loader that comes with that: then it sees this machine's
files, and its network. Where a Debian of that release is unpacked already (with debootstrap, say),
that serves: PAGESTORE_PSQL_17 and PAGESTORE_PSQL_18 name its root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.clients.cache import cache, missing

SUITES = {17: "trixie", 18: "sid"}
_LIBRARIES = (
    "libpq5 libc6 libssl3t64 libreadline8t64 libtinfo6 libgssapi-krb5-2 libkrb5-3 libk5crypto3 "
    "libcom-err2 libkrb5support0 libkeyutils1 libldap2 libsasl2-2 liblz4-1 libzstd1 zlib1g"
)
_MIRROR = "http://deb.debian.org/debian"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def psql_command(major: int) -> list[str]:
    """How one runs it; it is fetched where it is not the machine's own."""
    if major not in SUITES:
        found = shutil.which("psql")
        if found is None:
            missing("psql is not installed")
        return [str(found)]
    root = _unpacked(major) or cache() / f"psql-{major}"
    if not _program(root, major).exists():
        _fetch(root, major)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    loader = libraries / "ld-linux-x86-64.so.2"
    return [str(loader), "--library-path", str(libraries), str(_program(root, major))]


def _unpacked(major: int) -> Path | None:
    named = os.environ.get(f"PAGESTORE_PSQL_{major}")
    if named and not _program(Path(named), major).exists():
        missing(f"PAGESTORE_PSQL_{major} is {named}, which has no {_program(Path(named), major)}")
    return Path(named) if named else None


def _program(root: Path, major: int) -> Path:
    return root / f"usr/lib/postgresql/{major}/bin/psql"


def _fetch(root: Path, major: int) -> None:
    apt = root / "apt"
    for directory in ("lists/partial", "archives/partial"):
        (apt / directory).mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(f"deb [signed-by={_KEYS}] {_MIRROR} {SUITES[major]} main\n")
    (apt / "status").touch()
    settings = {
        "Dir::State::Lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    packages = [f"postgresql-client-{major}", *_LIBRARIES.split()]
    try:
        subprocess.run(["apt-get", "-qq", *options, "update"], check=True, capture_output=True)
        subprocess.run(
            ["apt-get", "-qq", *options, "download", *packages],
            check=True,
            capture_output=True,
            cwd=apt,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        missing(f"psql {major} cannot be had from Debian: {getattr(error, 'stderr', error)!r}")
    # The client's own last: with it, all is there.
    for package in sorted(apt.glob("*.deb"), key=lambda path: path.name.startswith("postgresql")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    shutil.rmtree(apt)
