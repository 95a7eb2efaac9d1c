"""What a timeline's control file says, and how it is kept up to date.

A replacement that failed leaves it open which file is in force after a crash. Both are right,
since nobody was told of the new one; but whatever comes next is written anew, never skipped
because it seems to be there already.
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from pathlib import Path

from pagestore.consensus.acceptor import State, WalPosition
from pagestore.errors import PagestoreError, ResourceExhausted, Unavailable
from pagestore.walservice import control_file


class Stored:
    """`clean` as in :class:`pagestore.consensus.acceptor.Persist`. Its owner sees to it that
    one call runs at a time."""

    def __init__(self, directory: Path, state: State, *, clean: bool) -> None:
        self.state = state
        self.clean = clean
        self._directory = directory
        self._certain = True

    def is_end_of(self, state: State) -> bool:
        """Whether nothing is lost if this is all that is left of `state`."""
        return self._certain and self.clean and self.state == state

    async def keep(self, state: State, *, clean: bool) -> None:
        """Makes it durable. An unclean one need not follow the log, nor what is committed.

        Raises:
            ResourceExhausted: STORE_FULL.
            Unavailable: WAL_WRITE_FAILED.
        """
        if clean and self.is_end_of(state):
            return
        same = replace(
            state, position=self.state.position, known_commit_lsn=self.state.known_commit_lsn
        )
        if not clean and not self.clean and self._certain and same == self.state:
            return
        await self._replace(state, clean)

    async def search_from(self, position: WalPosition) -> None:
        """Says that the log's end is to be searched from there, and nothing else new."""
        await self._replace(replace(self.state, position=position), False)

    async def note(self, state: State) -> None:
        """Writes how far the log is, while it grows."""
        await self._replace(state, False)

    async def _replace(self, state: State, clean: bool) -> None:
        self._certain = False
        try:
            await asyncio.to_thread(control_file.replace, self._directory, state, clean=clean)
        except OSError as error:
            raise write_failure(self._directory, error) from error
        self.state, self.clean, self._certain = state, clean, True


def write_failure(directory: Path, error: OSError) -> PagestoreError:
    """What a failed replacement of a small file means to whoever asked for it."""
    text = f"Cannot replace a file in {directory}: {error.strerror}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted("STORE_FULL", text, "Free space, then try again.")
    return Unavailable("WAL_WRITE_FAILED", text)
