"""Postgres's own regression suite, on plain Postgres and on a compute, result file by result file.

    .venv/bin/python tools/regress.py [--work DIR] [--source DIR] [--buffers default,16MB]
    .venv/bin/python tools/regress.py --contrib pg_stat_statements
    .venv/bin/python tools/regress.py --postgres 18

The suite's sources come through Debian's source package (of the installed version where the
mirror has it) into the work directory; nothing of them is kept here. Both sides run the same
schedule with the distribution's pg_regress. What plain Postgres itself fails, for being another
minor version or for want of a locale, is no difference: only the files of both sides count.
Ends with 1 when any differs.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psycopg

from pagestore.postgres import majors

DEBIAN = "http://deb.debian.org/debian"
WITHOUT_WALLS = {"PAGESTORE_COMPUTES__WALLS": "none"}
SETTINGS = {"max_prepared_transactions": "2", "timezone": "America/Los_Angeles"}


@dataclass(frozen=True)
class Postgres:
    """The major whose suite it is, as the distribution has it."""

    major: int

    @property
    def bindir(self) -> Path:
        return majors.programs(majors.BINDIR, self.major)

    @property
    def libraries(self) -> Path:
        return majors.libraries(majors.BINDIR, self.major)

    @property
    def package(self) -> str:
        return f"postgresql-{self.major}"


def distribution() -> list[tuple[str, str]]:
    """Where the source packages of this Debian are: mirror and suite."""
    if "sid" in Path("/etc/debian_version").read_text():
        return [(DEBIAN, "sid")]
    found = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    name = found[1] if found else "stable"
    return [(DEBIAN, name), (DEBIAN, f"{name}-updates"), (f"{DEBIAN}-security", f"{name}-security")]


def fetch(work: Path, postgres: Postgres) -> Path:
    """The unpacked source package, fetched without touching the machine's own apt."""
    package, suites = postgres.package, distribution()
    place = work / "source"
    place.mkdir(parents=True, exist_ok=True)
    lists = place / "apt/lists/partial"
    lists.mkdir(parents=True, exist_ok=True)
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (place / "sources.list").write_text(
        "".join(f"deb-src [signed-by={key}] {uri} {suite} main\n" for uri, suite in suites)
    )
    apt = ["apt-get", "-qq"]
    apt += ["-o", f"Dir::Etc::SourceList={place}/sources.list", "-o", "Dir::Etc::SourceParts=-"]
    apt += ["-o", f"Dir::State::Lists={place}/apt/lists", "-o", f"Dir::Cache={place}/apt"]
    apt += ["-o", "APT::Sandbox::User=root"]
    subprocess.run([*apt, "update"], check=True)
    query = ["dpkg-query", "-W", "-f", "${Version}", package]
    version = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    # A mirror may list a version that it no longer has: then another minor version will do.
    for choice in (f"={version}", *(f"/{suite}" for _, suite in reversed(suites))):
        if subprocess.run([*apt, "source", f"{package}{choice}"], cwd=place).returncode == 0:
            return next(path for path in place.glob(f"{package}-*") if path.is_dir())
    sys.exit(f"No source of {package} can be had: see {place} or give --source.")


def prepare(source: Path, work: Path, postgres: Postgres) -> Path:
    """A copy of the suite with its library, for the unprivileged user to write in."""
    suite = work / "suite"
    shutil.rmtree(suite, ignore_errors=True)
    shutil.copytree(source / "src/test/regress", suite)
    (suite / "lib").mkdir()
    query = [postgres.bindir / "pg_config", "--includedir-server"]
    include = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    compile_library = ["cc", "-O2", "-fPIC", "-shared", "-w", "-I", include, "-o"]
    subprocess.run([*compile_library, suite / "lib/regress.so", suite / "regress.c"], check=True)
    for name in ("refint.so", "autoinc.so"):
        shutil.copy(postgres.libraries / name, suite / "lib" / name)
    give_away(work, suite)
    return suite


def prepare_contrib(source: Path, work: Path, name: str) -> tuple[Path, list[str], dict[str, str]]:
    """The suite of an extension, its tests, and the settings that it asks for."""
    suite = work / f"suite-{name}"
    shutil.rmtree(suite, ignore_errors=True)
    shutil.copytree(source / "contrib" / name, suite)
    makefile = (suite / "Makefile").read_text().replace("\\\n", " ")
    tests = re.findall(r"^REGRESS\s*=(.*)$", makefile, re.MULTILINE)[0].split()
    conf = suite / f"{name}.conf"
    lines = conf.read_text().splitlines() if conf.exists() else []
    pairs = (line.partition("=") for line in lines if "=" in line)
    give_away(work, suite)
    return suite, tests, {key.strip(): value.strip().strip("'") for key, _, value in pairs}


def give_away(work: Path, suite: Path) -> None:
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        for path in [work, suite, *suite.rglob("*")]:
            os.chown(path, entry.pw_uid, entry.pw_gid)


@contextmanager
def plain(settings: Mapping[str, str]) -> Iterator[str]:
    from tests.plain_postgres import plain_postgres

    with plain_postgres("--no-locale", "-E", "UTF8", fsync="off", **settings) as cluster:
        yield f"postgresql://postgres@127.0.0.1:{cluster.port}/postgres"


@contextmanager
def compute(settings: Mapping[str, str]) -> Iterator[str]:
    """A compute of a cluster like the plain one, at its own socket: the suite makes databases and
    has the server write and load files beside itself, which walls would hide."""
    from tests.integration.installation import whole_pagestore
    from tests.plain_postgres import plain_postgres

    with plain_postgres("--no-locale", "-E", "UTF8") as cluster:
        cluster.stop()
        with whole_pagestore(settings, environment=WITHOUT_WALLS) as whole:
            whole.run("import", "regress", "--from-pgdata", str(cluster.data))
            whole.run("start", "regress")
            yield whole.json("url", "regress", "--direct")["url"]


def run_suite(
    postgres: Postgres, suite: Path, url: str, output: Path, tests: list[str]
) -> dict[str, str]:
    """The result files, by test; paths of one run alone are taken out."""
    (output / "results").mkdir(parents=True)  # where the server writes, too
    if os.geteuid() == 0:
        for path in (output, output / "results"):
            shutil.chown(path, "postgres", "postgres")
    info = psycopg.conninfo.conninfo_to_dict(url)
    command: list[object] = [
        postgres.libraries / "pgxs/src/test/regress/pg_regress",
        *(f"--inputdir={suite}", f"--outputdir={output}", f"--dlpath={suite}/lib"),
        *(f"--bindir={postgres.bindir}", f"--host={info['host']}", f"--port={info['port']}"),
        *("--user=postgres", "--max-concurrent-tests=20"),
        *(tests or [f"--schedule={suite}/parallel_schedule"]),
    ]
    environment = {**os.environ, "PGPASSWORD": str(info.get("password") or "")}
    with (output / "log").open("w") as log:
        subprocess.run(
            list(map(str, command)), cwd=output, env=environment, stdout=log, stderr=log
        )  # as our own user: a compute's socket knows nobody else
    results = {}
    for path in (output / "results").glob("*.out"):
        text = path.read_text(errors="replace").replace(str(output), "OUTPUT")
        results[path.stem] = re.sub(r"\b(localhost|127\.0\.0\.1)\b", "HOST", text)
    return results


def compare(name: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> bool:
    differ = sorted(t for t in {*theirs, *ours} if theirs.get(t) != ours.get(t))
    print(f"{name}: {len(theirs)} result files, {len(theirs) - len(differ)} equal")
    for test in differ:
        print(f"  {test} differs")
    return bool(theirs) and not differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/pagestore-regress"))
    parser.add_argument("--source", type=Path, help="an unpacked source tree of Postgres")
    parser.add_argument("--buffers", default="default,16MB")
    parser.add_argument("--postgres", type=int, help="the major; the oldest that is installed")
    parser.add_argument("--contrib", help="the suite of this extension instead")
    parser.add_argument("tests", nargs="*", help="instead of the parallel schedule")
    given = parser.parse_args()
    postgres = Postgres(given.postgres or min(majors.installed(majors.BINDIR)))
    # What the servers of both sides are of: tests/plain_postgres.py reads it when imported.
    os.environ["PAGESTORE_TEST_MAJOR"] = str(postgres.major)
    given.work.mkdir(parents=True, exist_ok=True)
    source = given.source or fetch(given.work, postgres)
    tests, asked = given.tests, dict(SETTINGS)
    if given.contrib:
        suite, tests, own = prepare_contrib(source, given.work, given.contrib)
        asked |= own
    else:
        suite = prepare(source, given.work, postgres)
    right = True
    for buffers in given.buffers.split(","):
        settings = dict(asked)
        if buffers != "default":
            settings["shared_buffers"] = buffers
        results = []
        for side, server in (("plain", plain), ("compute", compute)):
            output = given.work / f"{side}-{buffers}"
            shutil.rmtree(output, ignore_errors=True)
            with server(settings) as url:
                results.append(run_suite(postgres, suite, url, output, tests))
        right = (
            compare(f"Postgres {postgres.major}, shared_buffers {buffers}", results[0], results[1])
            and right
        )
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
