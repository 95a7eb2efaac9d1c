"""Where a compute's files lie: directories that are the server's, in one that is ours.

A directory that its owner can rename is not where a path leads for long. So each that the
server owns lies in one that only we write to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import tempfile
from pathlib import Path

from pagestore import durable
from pagestore.errors import FailedPrecondition
from pagestore.postgres.datadir import Owner

_SOCKET_NAME = "/.s.PGSQL.65535"
_MAX_SOCKET_PATH = 107
_GET_FLAGS, _SET_FLAGS, _TOP_DIRECTORY = 0x80086601, 0x40086602, 0x00020000
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_TOPDIR_FL of linux/fs.h."""


def make_outer(directory: Path, owner: Owner | None) -> None:
    """A compute's own directory: ours, and the server's user may pass through.

    Raises:
        FailedPrecondition: DIRECTORY_EXISTS.
    """
    make_private(directory, None)
    _let_pass(directory, owner)


def socket_directory(directory: Path, owner: Owner | None) -> Path:
    """A private directory for the Unix socket, whose path must fit into 107 bytes.

    One that is not below `directory` has a parent of its own, in /tmp.
    """
    inside = directory / "run"
    if len(os.fsencode(inside)) + len(_SOCKET_NAME) > _MAX_SOCKET_PATH:
        outer = Path(tempfile.mkdtemp(prefix="pagestore-run-", dir="/tmp"))
        _let_pass(outer, owner)
        inside = outer / "run"
    make_private(inside, owner)
    return inside


def write_readable(path: Path, text: str, group: int) -> None:
    """A file of ours that the server's group can read; replaced as a whole."""
    temporary = path.with_name(f"{path.name}.tmp")
    with durable.begin(temporary) as file:
        file.write(text.encode(errors="surrogateescape"))
        os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), 0o640)
    temporary.replace(path)


def _let_pass(directory: Path, owner: Owner | None) -> None:
    if owner is not None:
        directory.chmod(0o711)


def spread_children(directory: Path) -> None:
    """Asks the file system to place each child directory far from the others.

    ext4 puts a directory's children into its own block group. Without a journal, creating a
    file there becomes slow (measured: 17 us became 20 to 600) while the group is full of
    lately deleted inodes, which is what computes that come and go leave behind. The attribute
    T ("top of hierarchies") gives each child a group of its own. Other file systems refuse
    it: no harm.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            flags = bytearray(8)
            fcntl.ioctl(fd, _GET_FLAGS, flags)
            (value,) = struct.unpack_from("=I", flags)
            if not value & _TOP_DIRECTORY:
                fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=Q", value | _TOP_DIRECTORY))
    finally:
        os.close(fd)


def check_reachable(directory: Path, owner: Owner | None) -> None:
    """Refuses a place that the server's user cannot enter."""
    if owner is None:
        return
    for parent in [directory, *directory.parents]:
        info = parent.stat()
        bit = 0o100 if info.st_uid == owner.uid else 0o010 if info.st_gid == owner.gid else 0o001
        if not info.st_mode & bit:
            raise FailedPrecondition(
                "DIRECTORY_UNREACHABLE",
                f"The user that Postgres runs as (uid {owner.uid}) cannot enter {parent}.",
                f"chmod o+x {parent}, or choose another directory for computes.",
            )


def make_private(directory: Path, owner: Owner | None) -> None:
    """
    Raises:
        FailedPrecondition: DIRECTORY_EXISTS.
    """
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError as error:
        raise FailedPrecondition(
            "DIRECTORY_EXISTS", f"{directory} exists; every start takes a new directory."
        ) from error
    if owner is not None:
        os.chown(directory, *owner)
