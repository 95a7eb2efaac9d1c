"""A git repository, as far as databases follow it: branches, hooks, what is noted of them, `.env`.

What is noted stands in the repository's own configuration, which all its worktrees share:
``pagestore.database`` and ``pagestore.data`` say what the repository belongs to, and
``pagestore.<git branch>.database`` which database a branch has. So nothing is added to what is
committed, and a clone begins without.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import unicodedata
from collections.abc import Collection
from pathlib import Path

from pagestore import durable
from pagestore.client.names import MAX_NAME_BYTES
from pagestore.errors import FailedPrecondition, InvalidInput, NotFound

HOOKS = ("post-checkout", "post-commit", "post-merge")
ENV_FILE = ".env"
VARIABLE = "DATABASE_URL"
_BEGIN, _END = "# pagestore: begin", "# pagestore: end"
_SECTION = "pagestore"
_SHELL_SCRIPT = re.compile(rb"#![^\n]*\b(ba|da|z|k)?sh\b")
_AS_IT_WAS = ("utf-8", "surrogateescape")


class Repository:
    """The one around a directory.

    Raises:
        NotFound: NO_REPOSITORY, NO_GIT.
    """

    def __init__(self, directory: Path) -> None:
        program = shutil.which("git")
        if program is None:
            raise NotFound("NO_GIT", "git is not installed.")
        self._git, self._directory = program, directory
        top = self._ask("rev-parse", "--show-toplevel")
        if not top:
            raise NotFound(
                "NO_REPOSITORY", f"{directory} is in no git repository.", "`git init` makes one."
            )
        self.top = Path(top)
        """Of this worktree."""

    # Where it stands

    @property
    def branch(self) -> str:
        """The one that is checked out; empty while none is."""
        return self._ask("symbolic-ref", "--quiet", "--short", "HEAD")

    @property
    def branches(self) -> list[str]:
        return self._ask("for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()

    def commit(self, revision: str) -> str:
        """Its full hash; empty for none."""
        wanted = f"{revision}^{{commit}}"
        return self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", wanted)

    def known_commit(self, revision: str) -> str:
        """
        Raises:
            InvalidInput: NO_SUCH_COMMIT.
        """
        commit = self.commit(revision)
        if not commit:
            raise InvalidInput(
                "NO_SUCH_COMMIT",
                f"{revision[:80]!r} is no commit of {self.top}.",
                "Run it inside the repository, with a revision it has: HEAD.",
            )
        return commit

    def ancestors(self, commit: str) -> list[str]:
        """The nearest first, itself before them."""
        return self._ask("rev-list", "--max-count=10000", commit).splitlines()

    def subjects(self, limit: int) -> list[tuple[int, str, str]]:
        """Unix second, hash and first line of the latest commits, newest first."""
        said = self._ask("log", f"--max-count={limit}", "--format=%ct %H %s")
        rows = [line.split(" ", 2) for line in said.splitlines()]
        return [(int(row[0]), row[1], row[2] if len(row) > 2 else "") for row in rows]

    def changed(self, before: str, after: str, path: str) -> list[str]:
        """Files below a path that differ between two commits."""
        return self._ask("diff", "--name-only", before, after, "--", path).splitlines()

    # What is noted

    @property
    def database(self) -> str:
        """That of the branch which was there first; empty: this repository has none."""
        return self.noted("database")

    def noted(self, name: str) -> str:
        return self._ask("config", "--get", f"{_SECTION}.{name}")

    def note(self, name: str, value: str) -> None:
        self._do("config", f"{_SECTION}.{name}", value)

    def database_of(self, branch: str) -> str:
        """Empty where none was made yet."""
        return self._ask("config", "--get", f"{_SECTION}.{branch}.database")

    def note_database(self, branch: str, database: str) -> None:
        self._do("config", f"{_SECTION}.{branch}.database", database)

    def forget(self, branch: str) -> None:
        self._ask("config", "--remove-section", f"{_SECTION}.{branch}")

    def databases(self) -> dict[str, str]:
        """By git branch."""
        said = self._ask("config", "--get-regexp", rf"^{_SECTION}\..+\.database$")
        found = {}
        for line in said.splitlines():
            key, _, value = line.partition(" ")
            found[key.removeprefix(f"{_SECTION}.").removesuffix(".database")] = value
        return found

    # Hooks

    def hook(self, name: str) -> Path:
        return self._directory / self._ask("rev-parse", "--git-path", f"hooks/{name}")

    def has_hook(self, name: str) -> bool:
        path = self.hook(name)
        usable = path.is_file() and os.access(path, os.X_OK)
        return usable and f"git hook {name}".encode() in path.read_bytes()

    def add_hook(self, name: str, program: Path) -> None:
        """Before what a hook of that name does already, which may leave by `exit` or `exec`. Ours
        never fails, whatever happens.

        Raises:
            FailedPrecondition: FOREIGN_HOOK: what is there is no shell script.
        """
        path = self.hook(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else b"#!/bin/sh\n"
        if not _SHELL_SCRIPT.match(before):
            raise FailedPrecondition(
                "FOREIGN_HOOK",
                f"The hook {path} is no shell script, and stays as it is.",
                f"Have it run: pagestore git hook {name}, with its own arguments behind.",
            )
        command = f'{shlex.quote(str(program))} git hook {name} "$@" </dev/null || :'
        durable.replace(path, with_command(before.decode(*_AS_IT_WAS), command).encode(*_AS_IT_WAS))
        path.chmod(0o755)

    # What programs read

    @property
    def env_file(self) -> Path:
        return self.top / (self.noted("env-file") or ENV_FILE)

    def tell(self, url: str) -> None:
        """Programs in this worktree find the database by that file; git does not see it.

        Raises:
            FailedPrecondition: ENV_FILE_COMMITTED.
        """
        name = self.env_file.name
        if self._succeeds("ls-files", "--error-unmatch", "--", str(self.env_file)):
            raise FailedPrecondition(
                "ENV_FILE_COMMITTED",
                f"{name} is part of what is committed, and would have a password in it.",
                f"Take it out (git rm --cached {name}), or name another: "
                "pagestore git init NAME --env-file .env.local",
            )
        before = self.env_file.read_text() if self.env_file.exists() else ""
        durable.replace(self.env_file, with_block(before, f"{VARIABLE}={url}").encode())
        self.env_file.chmod(0o600)
        if not self.hides_env_file:
            exclude = self._directory / self._ask("rev-parse", "--git-path", "info/exclude")
            exclude.parent.mkdir(parents=True, exist_ok=True)
            with exclude.open("a") as file:
                file.write(f"/{name}\n")

    @property
    def told(self) -> str:
        """The URL that the file says; empty for none."""
        if not self.env_file.exists():
            return ""
        found = re.search(rf"^{VARIABLE}=(.*)$", self.env_file.read_text(), re.MULTILINE)
        return found[1] if found else ""

    @property
    def hides_env_file(self) -> bool:
        return self._succeeds("check-ignore", "--quiet", str(self.env_file))

    # How

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._git, *arguments],
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
        )

    def _ask(self, *arguments: str) -> str:
        done = self._run(*arguments)
        return done.stdout.strip() if done.returncode == 0 else ""

    def _succeeds(self, *arguments: str) -> bool:
        return self._run(*arguments).returncode == 0

    def _do(self, *arguments: str) -> None:
        done = self._run(*arguments)
        if done.returncode != 0:
            raise FailedPrecondition("GIT_FAILED", f"git {arguments[0]}: {done.stderr.strip()}")


def with_block(text: str, line: str) -> str:
    """A text with one line of ours, in place of the one before it."""
    block = f"{_BEGIN}\n{line}\n{_END}\n"
    ours = re.compile(rf"^{re.escape(_BEGIN)}\n.*?^{re.escape(_END)}\n", re.MULTILINE | re.DOTALL)
    if ours.search(text):
        return ours.sub(lambda _: block, text, count=1)
    return f"{text}\n{block}" if text and not text.endswith("\n") else text + block


def with_command(script: str, line: str) -> str:
    """A shell script with one line of ours: in place of the one before it, or first of all."""
    if _BEGIN in script:
        return with_block(script, line)
    first, _, rest = script.partition("\n")
    return with_block(first, line) + rest


def database_for(database: str, branch: str, taken: Collection[str] = ()) -> str:
    """The name of a git branch's database.

    Args:
        taken: names that other git branches have: `a/b` and `a-b` are two.

    Raises:
        InvalidInput: INVALID_NAME: nothing is left of the branch's name.
    """
    plain = unicodedata.normalize("NFKD", branch).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not slug:
        raise InvalidInput("INVALID_NAME", f"No database can be named after branch {branch!r}.")
    for ending in ("", *(f"-{number}" for number in range(2, len(taken) + 2))):
        name = _cut(f"{database}-{slug}", MAX_NAME_BYTES - len(ending)) + ending
        if name not in taken:
            break
    return name


def _cut(name: str, most: int) -> str:
    return name.encode()[:most].decode(errors="ignore").rstrip("-")
