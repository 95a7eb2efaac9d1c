"""What a timeline's control file says, and how it is kept up to date.

A replacement that failed leaves it open which file is in force after a crash. Both are right,
since nobody was told of the new one; but whatever comes next is written anew, never skipped
because it seems to be there already.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from pagestore.consensus.acceptor import State, WalPosition
from pagestore.errors import PagestoreError, of_disk
from pagestore.walservice import control_file, segments
from pagestore.walservice.control_file import Control
from pagestore.walservice.owner import Owner


class Stored:
    """`control.clean` as in :class:`pagestore.consensus.acceptor.Persist`. Its owner sees to it
    that one call runs at a time."""

    def __init__(self, directory: Path, owner: Owner, control: Control) -> None:
        self.control = control
        self._directory = directory
        self._owner = owner
        self._certain = True
        self._is_cut = False

    @property
    def position(self) -> WalPosition:
        return self.control.state.position

    def is_end_of(self, state: State) -> bool:
        """Whether nothing is lost if this is all that is left of `state`."""
        return self._certain and self.control.clean and self.control.state == state

    async def keep(self, state: State, *, clean: bool) -> None:
        """Makes it durable. An unclean one need not follow the log, nor what is committed.

        Raises:
            ResourceExhausted: STORE_FULL.
            Unavailable: WAL_WRITE_FAILED.
        """
        if clean and self.is_end_of(state):
            return
        there = self.control.state
        same = replace(state, position=there.position, known_commit_lsn=there.known_commit_lsn)
        if not clean and not self.control.clean and self._certain and same == there:
            return
        await self._replace(state, clean)

    async def search_from(self, position: WalPosition) -> None:
        """Says that the log's end is to be searched from there, and nothing else new: what the
        witness says of the log as it was does not bind any more, once this or whatever is written
        next is durable."""
        self._is_cut = True
        await self._replace(replace(self.control.state, position=position), False)

    async def note(self, state: State) -> None:
        """Writes how far the log is, while it grows."""
        await self._replace(state, False)

    async def _replace(self, state: State, clean: bool) -> None:
        self._certain = False
        revision = self.control.revision + 1
        epoch = revision if self._is_cut else self.control.epoch
        new = Control(state, clean, revision=revision, epoch=epoch)
        try:
            self.control = await asyncio.to_thread(write, self._directory, new, self._owner)
        except OSError as error:
            raise write_failure(self._directory, error) from error
        self._is_cut, self._certain = False, True


def write(directory: Path, control: Control, owner: Owner) -> Control:
    """Replaces the file, with the checksum of the record that ends at its position."""
    record_crc = segments.record_crc(directory, control.state.position)
    whole = replace(control, record_crc=record_crc)
    control_file.replace(directory, whole, owner)
    return whole


def write_failure(directory: Path, error: OSError) -> PagestoreError:
    """What a failed replacement of a small file means to whoever asked for it."""
    text = f"Cannot replace a file in {directory}: {error.strerror}."
    return of_disk(error, text, "WAL_WRITE_FAILED")
