"""Which reader knows a file, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pagestore.errors import InvalidInput, NotFound, of_disk
from pagestore.inspection import (
    layer_files,
    maps,
    object_files,
    safekeeper_files,
    states,
    wal_segments,
)
from pagestore.inspection.inspected import Inspected
from pagestore.lmdbfile import witness
from pagestore.postgres import remote_map
from pagestore.walservice import control_file, horizon

Reader = Callable[[Path, bytes, int], Inspected]
_BY_MAGIC: dict[bytes, Reader] = {
    layer_files.MAGIC: layer_files.inspect,
    control_file.MAGIC: safekeeper_files.inspect_control,
    horizon.MAGIC: safekeeper_files.inspect_horizon,
    witness.MAGIC: maps.inspect_generation,
    remote_map.MAGIC: maps.inspect_remote_map,
    **object_files.BY_MAGIC,
}
_KNOWN = (
    "Layers, catalog.lmdb, data.mdb, their -generation files, a safekeeper's control and horizon, "
    "segments of WAL, pagestore.map, object-claim and what is in an object store are known."
)


def inspect(path: Path, limit: int) -> Inspected:
    """Reads one file.

    Args:
        limit: of its entries.

    Raises:
        NotFound: NO_SUCH_FILE. InvalidInput: UNKNOWN_FILE. Unavailable: it cannot be read.
    """
    if not path.is_file():
        raise NotFound("NO_SUCH_FILE", f"{path} is no file.", "Name one.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise of_disk(error, f"{path} cannot be read: {error}") from error
    reader = next((each for magic, each in _BY_MAGIC.items() if raw.startswith(magic)), None)
    if reader is None and raw[states.MAGIC_AT] == states.MAGIC:
        reader = states.inspect
    if reader is None and wal_segments.begin_of(path) is not None:
        reader = wal_segments.inspect
    if reader is None:
        raise InvalidInput("UNKNOWN_FILE", f"{path} is of no kind that is known here.", _KNOWN)
    return reader(path, raw, limit)
