"""Postgres's own regression suite, on plain Postgres and on a compute, result file by result file.

    .venv/bin/python tools/regress.py [--work DIR] [--source DIR] [--buffers default,16MB]
    .venv/bin/python tools/regress.py --contrib pg_stat_statements

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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psycopg

from tests.integration.installation import whole_pagestore
from tests.plain_postgres import plain_postgres

LIBRARIES = Path("/usr/lib/postgresql/15/lib")
PG_REGRESS = LIBRARIES / "pgxs/src/test/regress/pg_regress"
BINDIR = "/usr/lib/postgresql/15/bin"
DEBIAN = "http://deb.debian.org/debian"
SUITES = (
    (DEBIAN, "bookworm"),
    (DEBIAN, "bookworm-updates"),
    (f"{DEBIAN}-security", "bookworm-security"),
)
WITHOUT_WALLS = {"PAGESTORE_COMPUTES__WALLS": "none"}
SETTINGS = {"max_prepared_transactions": "2", "timezone": "America/Los_Angeles"}


def fetch(work: Path) -> Path:
    """The unpacked source package, fetched without touching the machine's own apt."""
    place = work / "source"
    place.mkdir(parents=True, exist_ok=True)
    lists = place / "apt/lists/partial"
    lists.mkdir(parents=True, exist_ok=True)
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (place / "sources.list").write_text(
        "".join(f"deb-src [signed-by={key}] {uri} {suite} main\n" for uri, suite in SUITES)
    )
    apt = ["apt-get", "-qq"]
    apt += ["-o", f"Dir::Etc::SourceList={place}/sources.list", "-o", "Dir::Etc::SourceParts=-"]
    apt += ["-o", f"Dir::State::Lists={place}/apt/lists", "-o", f"Dir::Cache={place}/apt"]
    apt += ["-o", "APT::Sandbox::User=root"]
    subprocess.run([*apt, "update"], check=True)
    query = ["dpkg-query", "-W", "-f", "${Version}", "postgresql-15"]
    version = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    # A mirror may list a version that it no longer has: then another minor version will do.
    for choice in (f"={version}", *(f"/{suite}" for _, suite in reversed(SUITES))):
        if subprocess.run([*apt, "source", f"postgresql-15{choice}"], cwd=place).returncode == 0:
            return next(path for path in place.glob("postgresql-15-*") if path.is_dir())
    sys.exit(f"No source package of Postgres 15 can be had: see {place} or give --source.")


def prepare(source: Path, work: Path) -> Path:
    """A copy of the suite with its library, for the unprivileged user to write in."""
    suite = work / "suite"
    shutil.rmtree(suite, ignore_errors=True)
    shutil.copytree(source / "src/test/regress", suite)
    (suite / "lib").mkdir()
    include = subprocess.run(
        ["pg_config", "--includedir-server"], check=True, capture_output=True, text=True
    ).stdout.strip()
    compile_library = ["cc", "-O2", "-fPIC", "-shared", "-w", "-I", include, "-o"]
    subprocess.run([*compile_library, suite / "lib/regress.so", suite / "regress.c"], check=True)
    for name in ("refint.so", "autoinc.so"):
        shutil.copy(LIBRARIES / name, suite / "lib" / name)
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
    with plain_postgres("--no-locale", "-E", "UTF8", fsync="off", **settings) as cluster:
        yield f"postgresql://postgres@127.0.0.1:{cluster.port}/postgres"


@contextmanager
def compute(settings: Mapping[str, str]) -> Iterator[str]:
    """A compute of a cluster like the plain one, at its own socket: the suite makes databases and
    has the server write and load files beside itself, which walls would hide."""
    with plain_postgres("--no-locale", "-E", "UTF8") as cluster:
        cluster.stop()
        with whole_pagestore(settings, environment=WITHOUT_WALLS) as whole:
            whole.run("import", "regress", "--from-pgdata", str(cluster.data))
            whole.run("start", "regress")
            yield whole.json("url", "regress", "--direct")["url"]


def run_suite(suite: Path, url: str, output: Path, tests: list[str]) -> dict[str, str]:
    """The result files, by test; paths of one run alone are taken out."""
    (output / "results").mkdir(parents=True)  # where the server writes, too
    if os.geteuid() == 0:
        for path in (output, output / "results"):
            shutil.chown(path, "postgres", "postgres")
    info = psycopg.conninfo.conninfo_to_dict(url)
    command: list[object] = [
        PG_REGRESS,
        *(f"--inputdir={suite}", f"--outputdir={output}", f"--dlpath={suite}/lib"),
        *(f"--bindir={BINDIR}", f"--host={info['host']}", f"--port={info['port']}"),
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
    parser.add_argument("--source", type=Path, help="an unpacked source tree of Postgres 15")
    parser.add_argument("--buffers", default="default,16MB")
    parser.add_argument("--contrib", help="the suite of this extension instead")
    parser.add_argument("tests", nargs="*", help="instead of the parallel schedule")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    source = given.source or fetch(given.work)
    tests, asked = given.tests, dict(SETTINGS)
    if given.contrib:
        suite, tests, own = prepare_contrib(source, given.work, given.contrib)
        asked |= own
    else:
        suite = prepare(source, given.work)
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
                results.append(run_suite(suite, url, output, tests))
        right = compare(f"shared_buffers {buffers}", results[0], results[1]) and right
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
