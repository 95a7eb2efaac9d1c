"""The words that pg_upgrade, initdb and a single-user server are told, and what theirs mean.

Pure, so that each is tried without a server: what is run, and where, stands in upgrade.py. All
paths are relative to the directory in which the programs run: OLD and NEW lie in it.

What the old catalogs say is data of the database's owner, as what pg_upgrade prints may be: it is
shown, and decides nothing but whether his own upgrade goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pagestore.errors import FailedPrecondition, PagestoreError
from pagestore.pgformat.versions import Version

OLD, NEW = "old", "new"
MOST_JOBS = 8
LONGEST_WORDS = 1500
LONGEST_FILE = 4 << 20
_FIRST_LINES = 20
_LAST_LINES = 5
_PERFORMING = "Performing Upgrade"
"""A headline behind which pg_upgrade has checked all that it checks."""
_ENDING = re.compile(r"^.*(?:fatal|\*failure\*)[ \t]*$", re.MULTILINE)
_UNQUOTABLE = frozenset("\"$'\\")
_STATUS = re.compile(r"(\S.*?) {2,}\S*\s*")
_NAMED = re.compile(r"(pg_upgrade_output\.d/[^\s\"]+)")
_COMPLAINT = re.compile(r"\b(?:ERROR|FATAL|error|fatal):")
_FACT = re.compile(r'pagestore_(\w+) = "([0-9a-f]*)"')

# Questions to a single-user server, and what it is told; a line each.
LOOK_INTO_OLD = (
    "SELECT pg_catalog.encode(pg_catalog.convert_to(rolname::text,"
    " pg_catalog.getdatabaseencoding()), 'hex') AS pagestore_user"
    " FROM pg_catalog.pg_authid WHERE oid = 10",
    "SELECT pg_catalog.encode(pg_catalog.convert_to(datname::text,"
    " pg_catalog.getdatabaseencoding()), 'hex') AS pagestore_database"
    " FROM pg_catalog.pg_database",
)
# Minor releases of November 2026, and later ones, note with each column the LSN at which it was
# defined, as an option of its own. Their pg_dump knows what it is; that of a later major's older
# minor takes it for one of the user's, which its server then refuses.
LOOK_FOR_VERSIONS = (
    "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute"
    " WHERE pg_catalog.strpos(attoptions::text, 'pg_attver=') > 0)"
    " THEN '1' ELSE '0' END AS pagestore_versions",
)
LEAVE_VERSIONS_OUT = (
    "UPDATE pg_catalog.pg_attribute SET attoptions = NULLIF(ARRAY(SELECT o"
    " FROM pg_catalog.unnest(attoptions) o WHERE pg_catalog.strpos(o, 'pg_attver=') <> 1),"
    " '{}'::text[]) WHERE pg_catalog.strpos(attoptions::text, 'pg_attver=') > 0",
)


def check_user(user: str) -> None:
    """That a cluster can begin with a role of that name.

    Raises:
        FailedPrecondition: UPGRADE_REFUSED.
    """
    if _UNQUOTABLE & set(user):
        raise FailedPrecondition(
            "UPGRADE_REFUSED",
            f"No cluster begins with a role named {user!r}, as this database's did: initdb makes "
            "none with a quote, a dollar sign or a backslash in its name.",
            "Give it another name, logged in as another superuser: ALTER ROLE ... RENAME TO ...",
        )


def initdb(
    programs: Path, version: Version, user: str, settings: Mapping[str, str], *, checksums: bool
) -> list[str]:
    """A new cluster that fits the old one. Locale and encoding pg_upgrade itself brings along.

    Args:
        user: the name of the role that the old cluster began with.
        settings: which the control file has to name.
        checksums: whether the old one has data checksums.
    """
    argv = [str(programs / "initdb"), "-D", NEW, "-U", user, "-A", "trust", "-E", "UTF8"]
    argv += ["--locale=C", "--no-sync", "--no-instructions"]
    if checksums or version.checksums_by_default:
        argv.append("--data-checksums" if checksums else "--no-data-checksums")
    for name, value in settings.items():
        argv += ["--set", f"{name}={value}"]
    return argv


def single_user(programs: Path, directory: str, database: str = "template1") -> list[str]:
    """A server that reads statements from its standard input, a line each."""
    argv = [str(programs / "postgres"), "--single", "-F", "-D", directory]
    return [*argv, "-c", "allow_system_table_mods=on", database]


def upgrade(
    programs: Path, before: Path, user: str, sockets: Path, jobs: int, *, only_check: bool
) -> list[str]:
    """By hard links: the old cluster is ours to spoil.

    Args:
        programs: of the new major; `before`: of the old one.
    """
    argv = [str(programs / "pg_upgrade"), "-b", str(before), "-B", str(programs)]
    argv += ["-d", OLD, "-D", NEW, "-U", user, "--socketdir", str(sockets)]
    argv += ["-j", str(min(max(jobs, 1), MOST_JOBS)), "--link", "--no-sync"]
    return [*argv, "--check"] if only_check else argv


def script(statements: Sequence[str]) -> bytes:
    return "".join(f"{statement}\n" for statement in statements).encode()


def facts(output: str, name: str) -> list[str]:
    """What a single-user server said to one of the questions above. Names are bytes of whatever
    encoding."""
    found = [value for key, value in _FACT.findall(output) if key == name]
    if name == "versions":
        return found
    return [bytes.fromhex(value).decode(errors="surrogateescape") for value in found]


@dataclass
class Listening:
    """Makes steps of what pg_upgrade prints, whose lines grow a bit at a time."""

    told: Callable[[str], None]
    _line: str = ""

    def hear(self, text: str) -> None:
        for part in text.splitlines(keepends=True):
            self._line += part
            if words := _step(self._line):
                self.told(words)
            if part.endswith("\n"):
                self._line = ""


def _step(line: str) -> str:
    """Of a line that is padded for its result, whether that stands there yet or not."""
    found = _STATUS.fullmatch(line)
    return found[1] if found is not None else ""


Read = Callable[[str], bytes | None]
"""A file's content by its path below NEW; None where there is none."""


def failure(output: str, read: Read, major: int) -> PagestoreError:
    """What pg_upgrade ended for: it has refused, or failed at what it had begun."""
    words = _words(output, read)
    if _PERFORMING not in output:
        return FailedPrecondition(
            "UPGRADE_REFUSED",
            f"pg_upgrade to Postgres {major} refuses: {words}",
            "Mend that in the database, and type it again.",
        )
    return PagestoreError(
        "UPGRADE_FAILED",
        f"pg_upgrade to Postgres {major} failed: {words}",
        "Is there a newer minor release of that major? See also the log of the part `compute`.",
    )


def _words(output: str, read: Read) -> str:
    endings = [*_ENDING.finditer(output)]
    said = output[endings[-1].end() :] if endings else output[-LONGEST_WORDS:]
    said = said.partition("Failure, exiting")[0]
    parts = [_NAMED.sub(lambda found: Path(found[1]).name, said)]
    for path in dict.fromkeys(_NAMED.findall(said)):
        parts += _told_in(path.rstrip(".,"), read)
    words = " ".join(" ".join(parts).split())
    return (words or "it does not say why")[:LONGEST_WORDS]


def _told_in(path: str, read: Read) -> list[str]:
    """What a file says that pg_upgrade named: a log's complaints, a list's beginning."""
    content = read(path) if ".." not in path else None
    if content is None:
        return []
    lines = content.decode(errors="replace").splitlines()
    if not path.endswith(".log"):
        return lines[:_FIRST_LINES]
    complaints = [line for line in lines if _COMPLAINT.search(line) and "command:" not in line]
    return complaints[-_LAST_LINES:] or lines[-_LAST_LINES:]
