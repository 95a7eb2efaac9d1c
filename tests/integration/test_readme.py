"""What the README says one types, typed: each `pagestore` line of its "Use it", in its order."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from tests.integration.installation import Whole, whole_pagestore
from tests.plain_postgres import VERSION, PlainPostgres, reachable_dir

README = Path(__file__).resolve().parents[2] / "README.md"


def typed() -> list[list[str]]:
    block = README.read_text().split("## Use it")[1].split("```")[1]
    lines = [line.split("#")[0].strip() for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("pagestore ")]


def test_every_command_works_as_written(tmp_path: Path) -> None:
    cluster = PlainPostgres(reachable_dir())
    cluster.initdb()
    places = {
        "/var/lib/postgresql/15/main": str(cluster.data),
        "/tmp/plain": str(tmp_path / "x"),
        "./migrate-and-test.sh": "true",
    }
    try:
        with whole_pagestore() as whole:
            for command in typed():
                _type(whole, [places.get(word, word) for word in command])
    finally:
        shutil.rmtree(cluster.root)
    assert (tmp_path / "x" / "PG_VERSION").read_bytes() == VERSION.version_file


def _type(whole: Whole, command: list[str]) -> None:
    if command[0] == "psql":
        command = [*command, "--", "-c", "CREATE TABLE typed AS SELECT 1"]
    done = whole.run(*command, check=command[0] != "upgrade")
    # Where there is another Postgres, tests/integration/test_upgrade.py does it.
    missing = f"There is no Postgres {command[-1]}", f"is of Postgres {command[-1]} already"
    assert done.returncode == 0 or any(words in done.stderr for words in missing), done.stderr


def test_the_quickstart_commands_are_targets_of_make() -> None:
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README.read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
