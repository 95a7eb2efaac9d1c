"""The directory of a host's computes, and the library that their servers load.

::

    DIR/lib/pagestore_shim-<major>-<digest>.so    readable by Postgres's user; pagestore_session too
    DIR/logs/<timeline>.log               what its servers said
    DIR/logs/spare.log                    what servers said that waited for a database (spare.py)
    DIR/<timeline's start>-<random>/      one a start; thrown away with it
    DIR/0000000000-<random>/              likewise, of a server that was executed for nobody yet
    DIR/<...>.removing/                   on its way out
    DIR/upgrade-<random>/                 pg_upgrade at work (upgrade.py)

Whatever else lies in DIR is not ours, and is left alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from pathlib import Path

from pagestore import durable
from pagestore.client.credentials import file_identity
from pagestore.errors import FailedPrecondition, InvalidInput
from pagestore.ids import TimelineId
from pagestore.postgres.process import account

_Identity = tuple[int, int, int]
_installed: dict[tuple[Path, Path], tuple[_Identity | None, _Identity | None, Path]] = {}
"""What was installed by this process, and as which files: not compared anew at each start."""
_COMPUTE = re.compile(r"[0-9a-f]{10}-[0-9a-f]{6}")
"""The name of a compute, and of its directory."""


def is_compute(name: str) -> bool:
    return _COMPUTE.fullmatch(name) is not None


def check_name(name: str) -> str:
    """
    Raises:
        InvalidInput: INVALID_COMPUTE_NAME.
    """
    if not is_compute(name):
        raise InvalidInput(
            "INVALID_COMPUTE_NAME",
            f"{name[:40]!r} is no name of a compute: ten hexadecimal digits, a dash and six more.",
        )
    return name


def log_of(directory: Path, timeline: TimelineId) -> Path:
    return directory / "logs" / f"{timeline}.log"


def spare_name() -> str:
    """For a compute that is of no timeline yet: one of no timeline that there is."""
    return f"{'0' * 10}-{secrets.token_hex(3)}"


def spare_log_of(directory: Path) -> Path:
    return directory / "logs/spare.log"


def make_compute_dir(directory: Path, run_as: str | None) -> None:
    """
    Args:
        run_as: the user that Postgres runs as; None for our own.

    Raises:
        FailedPrecondition: COMPUTE_DIR_NOT_OURS; somebody else could move what we make there.
    """
    _make_passable(directory)
    owner = account(run_as)
    servers_user = owner.uid if owner is not None else None
    _refuse_unless(directory.stat().st_uid == os.geteuid(), directory, "belongs to another user")
    _refuse_unless(not directory.stat().st_mode & 0o002, directory, "is writable by everybody")
    for parent in directory.resolve().parents:
        found = parent.stat()
        is_open = found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX
        _refuse_unless(not is_open, parent, "is writable by everybody")
        _refuse_unless(found.st_uid != servers_user, parent, "belongs to Postgres's user")


def _refuse_unless(right: bool, directory: Path, wrong: str) -> None:
    if not right:
        raise FailedPrecondition(
            "COMPUTE_DIR_NOT_OURS",
            f"{directory} {wrong}, so computes' directories are not safe in it.",
            "Set `directory` of [computes] in pagestore.toml to one of your own.",
        )


def _make_passable(directory: Path) -> None:
    """One that Postgres's user may pass through, whatever our umask; one that is there already
    stays as it is."""
    if not directory.exists():
        directory.mkdir(parents=True)
        directory.chmod(0o711)


def install(library: Path, folder: Path) -> Path:
    """A copy that Postgres's user can read, named by its content: running servers keep theirs."""
    identity = _identity(library)
    known = _installed.get((library, folder))
    if known is not None and None not in known and known[:2] == (identity, _identity(known[2])):
        return known[2]
    _make_passable(folder)
    _refuse_unless(folder.stat().st_uid == os.geteuid(), folder, "belongs to another user")
    target = _install(library, folder)
    _installed[library, folder] = (identity, _identity(target), target)
    return target


def _install(library: Path, folder: Path) -> Path:
    try:
        content = library.read_bytes()
    except FileNotFoundError as error:
        raise FailedPrecondition(
            "MODULES_MISSING", f"There is no {library}.", "Build it with `make setup`."
        ) from error
    digest = hashlib.sha256(content).hexdigest()[:16]
    target = folder / f"{library.stem}-{digest}{library.suffix}"
    # A power cut may have left a name without its bytes.
    if not target.is_file() or target.read_bytes() != content:
        durable.replace(target, content, mode=0o755)
    return target


def _identity(path: Path) -> _Identity | None:
    try:
        return file_identity(path)
    except OSError:
        return None
