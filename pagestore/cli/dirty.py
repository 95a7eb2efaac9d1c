"""What of a worktree was not committed, as something that a checkpoint can name and git give back.

It becomes a commit on top of HEAD, by an index of our own: neither the worktree, nor the user's
index, nor any branch is touched. Its author and its time are always the same, so that the same
files have the same hash; a reference below ``refs/pagestore/dirty`` keeps it from git's own
cleaning, until `git prune` finds no checkpoint that names it. ``git show`` shows it,
``git cherry-pick --no-commit`` puts it back. Files that git does not know are part of it where it
does not ignore them, unless they are large: a dump that lies about is no code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pagestore.errors import FailedPrecondition

REFERENCES = "refs/pagestore/dirty"
MOST_FILES = 1000
MOST_FILE_BYTES = 1 << 20
MOST_BYTES = 16 << 20
"""Of files that git does not know, all together."""

_ALWAYS_THE_SAME = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (
        ("NAME", "pagestore"),
        ("EMAIL", "pagestore@localhost"),
        ("DATE", "@0 +0000"),
    )
}


def kept_dirty(top: Path) -> str:
    """The commit that has what differs from HEAD in a worktree; empty where nothing does.

    Args:
        top: of the worktree.

    Raises:
        FailedPrecondition: GIT_FAILED.
    """
    with tempfile.TemporaryDirectory(prefix="pagestore-git-") as directory:
        index = Path(directory) / "index"
        # A hook is told of git's own index, which may be that of a commit of some files only.
        plain = {name: text for name, text in os.environ.items() if name != "GIT_INDEX_FILE"}
        ours = {**plain, "GIT_INDEX_FILE": str(index)}
        usual = top / _git(top, plain, "rev-parse", "--git-path", "index")
        if usual.exists():
            # What it knows of files saves reading them; but one that was changed in the moment the
            # index was written is told by the index's own time.
            shutil.copy2(usual, index)
        _git(top, ours, "add", "--update")
        others = _git(top, ours, "ls-files", "-z", "--others", "--exclude-standard")
        chosen = small_files(top, [name for name in others.split("\0") if name])
        _git(top, ours, "update-index", "--add", "-z", "--stdin", text="\0".join(chosen))
        tree = _git(top, ours, "write-tree")
        if tree == _git(top, plain, "rev-parse", "HEAD^{tree}"):
            return ""
        same = {**plain, **_ALWAYS_THE_SAME}
        words = ("commit-tree", tree, "-p", "HEAD", "-m", "What was not committed")
        commit = _git(top, same, *words)
        hold(top, commit)
        return commit


def hold(top: Path, commit: str) -> None:
    """Keeps it from git's cleaning; nothing where it is empty. Once more when the checkpoint stands
    that names it: until then it was one that `let_go` might be told of."""
    if commit:
        _git(top, os.environ, "update-ref", f"{REFERENCES}/{commit}", commit)


def held(top: Path) -> set[str]:
    """All that are kept."""
    return set(_git(top, os.environ, "for-each-ref", "--format=%(objectname)", REFERENCES).split())


def let_go(top: Path, commits: Sequence[str]) -> None:
    """From now on git's cleaning takes them, after its own time (two weeks, by default)."""
    text = "".join(f"delete {REFERENCES}/{commit}\n" for commit in commits)
    if text:
        _git(top, os.environ, "update-ref", "--stdin", text=text)


def small_files(top: Path, names: Sequence[str]) -> list[str]:
    """Those, in their order, that are plain and small, as many as there is room for."""
    chosen: list[str] = []
    room = MOST_BYTES
    for name in names:
        path = top / name
        size = path.lstat().st_size if path.is_symlink() or path.is_file() else MOST_BYTES + 1
        if size <= min(room, MOST_FILE_BYTES) and len(chosen) < MOST_FILES:
            chosen.append(name)
            room -= size
    return chosen


def _git(top: Path, environment: Mapping[str, str], *arguments: str, text: str = "") -> str:
    done = subprocess.run(
        ["git", "--literal-pathspecs", *arguments],
        cwd=top,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        errors="surrogateescape",  # a name is bytes
        check=False,
    )
    if done.returncode != 0:
        raise FailedPrecondition("GIT_FAILED", f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.removesuffix("\n")
