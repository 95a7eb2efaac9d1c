"""Schemas, as pg_dump writes them: objects by name, in the order in which they can be made."""

from __future__ import annotations

import asyncio
import difflib
import os
import re
from pathlib import Path
from typing import NamedTuple

from pagestore.client.urls import without_password
from pagestore.errors import FailedPrecondition

_HEAD = re.compile(r"^-- Name: (.*); Type: (.*); Schema: (.*); Owner:.*$", re.MULTILINE)
_TOKEN = re.compile(r"^\\(un)?restrict .*$", re.MULTILINE)
"""What newer minor releases put around a dump, by lot."""
_OPTIONS = re.compile(r"(ALTER TABLE ONLY .* ALTER COLUMN .* SET \()(.*)\);")
_VERSION = "pg_attver="
"""An option of each column in some minor releases: the LSN of its definition, which is never the
same of a column that was made in two places."""


class SchemaObject(NamedTuple):
    schema: str
    kind: str
    name: str

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.schema}.{self.name}"
            if self.schema != "-"
            else (f"{self.kind} {self.name}")
        )


class ChangedObject(NamedTuple):
    """``before`` or ``after`` is None of one that came or went: SQL that makes it."""

    what: SchemaObject
    before: str | None
    after: str | None

    @property
    def lines(self) -> list[str]:
        """As a unified diff without its head."""
        before, after = (self.before or "").splitlines(), (self.after or "").splitlines()
        return [*difflib.unified_diff(before, after, lineterm="", n=3)][2:]


async def dumped(program: Path, name: str, url: str) -> str:
    """
    Raises:
        FailedPrecondition: DUMP_FAILED: what pg_dump said.
    """
    bare, secret = without_password(url)
    process = await asyncio.create_subprocess_exec(
        *(str(program), "--schema-only", "--no-owner", f"--dbname={bare}"),
        env={**os.environ, **secret},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    text, said = await process.communicate()
    if process.returncode != 0:
        words = said.decode(errors="replace").strip().splitlines() or ["it was ended"]
        raise FailedPrecondition("DUMP_FAILED", f"The schema of {name} cannot be read: {words[-1]}")
    return text.decode()


def objects(dump: str) -> dict[SchemaObject, str]:
    """What a dump makes, in its order, which is one of dependency."""
    heads = list(_HEAD.finditer(dump))
    found: dict[SchemaObject, str] = {}
    for number, head in enumerate(heads, 1):
        end = heads[number].start() if number < len(heads) else len(dump)
        name, kind, schema = head.groups()
        body = dump[head.end() : end]
        said = [line for line in _TOKEN.sub("", body).splitlines() if not line.startswith("--")]
        lines = [line for line in map(_without_version, said) if line is not None]
        what = SchemaObject(schema, kind, name)
        sql = "\n".join(lines).strip()
        # Two of one name are one: what belongs to an object stands with it.
        found[what] = f"{found[what]}\n{sql}" if what in found else sql
    return found


def _without_version(line: str) -> str | None:
    """None where nothing else is said."""
    options = _OPTIONS.fullmatch(line)
    if options is None:
        return line
    kept = [option for option in options[2].split(", ") if not option.startswith(_VERSION)]
    return f"{options[1]}{', '.join(kept)});" if kept else None


def changed(ours: str, theirs: str) -> list[ChangedObject]:
    """What is gone, backwards, so that nothing that it needs goes before it; then what came or
    changed, in the order of `theirs`."""
    before, after = objects(ours), objects(theirs)
    gone = [ChangedObject(what, sql, None) for what, sql in before.items() if what not in after]
    rest = [
        ChangedObject(what, before.get(what), sql)
        for what, sql in after.items()
        if before.get(what) != sql
    ]
    return [*reversed(gone), *rest]
