"""A log made of archived WAL: the only safekeeper of a timeline that has none any more.

It begins where the layers in the object store lead, at a record's end, and has what was archived
behind that, up to the last whole record. Nobody who promised anything of the old log is asked: they
are gone, or must not count any more (pagestore/objects/claims.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pagestore import durable
from pagestore.consensus import acceptor
from pagestore.consensus.acceptor import TermSwitch, WalPosition
from pagestore.walservice import log, segments, stored
from pagestore.walservice.control_file import Control
from pagestore.walservice.log import LogFiles
from pagestore.walservice.owner import Owner
from pagestore.walservice.segments import SEGMENT


class Piece(NamedTuple):
    """Bytes of a log from `start` on, archived under a term."""

    start: int
    data: bytes
    term: int


def rebuild(
    root: Path, owner: Owner, start: WalPosition, system_id: int, pieces: Iterable[Piece]
) -> WalPosition:
    """Where it ends. Durable when it returns; what a killed attempt has left is written over.

    Args:
        root: the safekeeper's data directory.
        start: a record's end.
        pieces: in order, without a gap, from `start` on.

    Raises:
        DataLoss: SEGMENT_DAMAGED: the bytes are no WAL, and whole records follow.
        OSError
    """
    directory = root / str(owner.tenant) / str(owner.timeline)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = acceptor.initial(start, system_id)
    for piece in pieces:
        _write(directory, piece)
        history = (TermSwitch(piece.term, start.flush_lsn),)
        state = replace(state, term=piece.term, history=history)
    if state.history:
        end = segments.find_end(directory, start, start.flush_lsn)
        log.cut(LogFiles(directory, start.flush_lsn, 0), end)
        state = replace(state, position=end)
    stored.write(directory, Control(state, clean=True), owner)
    durable.sync_directory(directory.parent)
    durable.sync_directory(root)
    return state.position


def _write(directory: Path, piece: Piece) -> None:
    """Into its segments; they are synced when the end has been found."""
    at = 0
    while at < len(piece.data):
        lsn = piece.start + at
        data = piece.data[at : at + SEGMENT - lsn % SEGMENT]
        path = segments.segment_path(directory, lsn)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, durable.PRIVATE)
        try:
            os.ftruncate(descriptor, SEGMENT)
            durable.write_at(descriptor, data, lsn % SEGMENT)
        finally:
            os.close(descriptor)
        at += len(data)
