"""Which reader knows a file, and what it finds."""

from __future__ import annotations

import stat
from pathlib import Path

from pagestore.errors import InvalidInput, NotFound, of_disk
from pagestore.inspection import (
    layer_files,
    maps,
    object_files,
    safekeeper_files,
    small_files,
    states,
    wal_segments,
)
from pagestore.inspection.inspected import Inspected, Reader, called
from pagestore.lmdbfile import witness
from pagestore.postgres import remote_map
from pagestore.walservice import control_file, horizon
from pagestore.walservice import witness as wal_witness

_BY_MAGIC: dict[bytes, Reader] = {
    layer_files.MAGIC: layer_files.inspect,
    control_file.MAGIC: safekeeper_files.inspect_control,
    horizon.MAGIC: safekeeper_files.inspect_horizon,
    wal_witness.MAGIC: safekeeper_files.inspect_witness,
    witness.MAGIC: maps.inspect_generation,
    remote_map.MAGIC: maps.inspect_remote_map,
    **object_files.BY_MAGIC,
    **small_files.BY_MAGIC,
}
_KNOWN = "All files of a data directory and of an object store are known, in their places there."


def inspect(path: Path, limit: int) -> Inspected:
    """Reads one file.

    Args:
        limit: of its entries.

    Raises:
        NotFound: NO_SUCH_FILE. InvalidInput: UNKNOWN_FILE. Unavailable: it cannot be read.
    """
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        return Inspected("Unix socket, by which a part or a server is reached")
    if not path.is_file():
        raise NotFound("NO_SUCH_FILE", f"{path} is no file.", "Name one.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise of_disk(error, f"{path} cannot be read: {error}") from error
    reader = _reader(path, raw)
    if reader is None:
        raise InvalidInput("UNKNOWN_FILE", f"{path} is of no kind that is known here.", _KNOWN)
    return reader(path, raw, limit)


def _reader(path: Path, raw: bytes) -> Reader | None:
    """By what it begins with; else by its name and place."""
    for magic, reader in _BY_MAGIC.items():
        if raw.startswith(magic):
            return reader
    if raw[states.MAGIC_AT] == states.MAGIC and not small_files.is_of_readers(path):
        return states.inspect
    if small_files.is_of_a_server(path):
        return small_files.of_a_server
    if wal_segments.begin_of(called(path)) is not None:
        return wal_segments.inspect
    return small_files.reader_of(path)
