"""Tablespaces that lie in place, for a pg_upgrade that knows only those that lie elsewhere.

Before it they go to a directory beside the clusters, with a link in their place, as if they had
been made there; pg_upgrade lays the new major's files into the same directories. Afterwards they
go to their places in the new cluster, without the old major's files.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from pagestore.pgformat.versions import Version
from pagestore.postgres.datadir import Owner

_LINKS = "pg_tblspc"


def move_out(cluster: Path, beside: Path, owner: Owner | None) -> None:
    """Of a cluster on which nobody has worked yet.

    Args:
        beside: a directory that is made, if there are any.
    """
    for place in sorted((cluster / _LINKS).iterdir()):
        if not beside.exists():
            beside.mkdir(mode=0o700)
            _give(beside, owner)
        place.rename(beside / place.name)
        place.symlink_to(beside / place.name)
        _give(place, owner)


def move_in(cluster: Path, beside: Path, before: Version) -> None:
    """Into a cluster in which nobody is at work any more. What is not as it was left here is let
    be, and so found by who looks through the whole."""
    links = cluster / _LINKS
    if not all(map(_is_directory, (cluster, links, beside))):
        return
    for link in sorted(links.iterdir()):
        place = beside / link.name
        if link.is_symlink() and link.readlink() == place and _is_directory(place):
            shutil.rmtree(place / before.tablespace_name, ignore_errors=True)
            link.unlink()
            place.rename(link)


def _is_directory(path: Path) -> bool:
    """Itself, and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _give(path: Path, owner: Owner | None) -> None:
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)
