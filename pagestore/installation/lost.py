"""What the parts of an installation have moved aside, and going on with an older copy.

Read from the files, so that it works while nothing runs.
"""

from __future__ import annotations

from pathlib import Path

from pagestore import durable, lost_found
from pagestore.errors import InvalidInput
from pagestore.installation.layout import Installation
from pagestore.lmdbfile import witness
from pagestore.lost_found import Lost

PLACES = ("pageserver/store", "safekeeper", "safekeeper-*", "control")
STORES = {"pageserver": "store/catalog.lmdb", "control": "data.mdb"}
KEY = "operator-key"


def lost(installation: Installation) -> list[Lost]:
    """Part by part, by name."""
    roots = [root for place in PLACES for root in sorted(installation.data.glob(place))]
    return [item for root in roots for item in lost_found.found(root)]


def name_of(installation: Installation, item: Lost) -> str:
    """By which a user names it: the path below the data directory."""
    return str(item.path.relative_to(installation.data))


def accept_older(installation: Installation, part: str) -> Path:
    """Lets a part go on, once, with a store that is not the one that was written last, or without
    the operator's key; the file that says so.

    Raises:
        InvalidInput: NO_SUCH_STORE.
    """
    if part not in (*STORES, KEY):
        raise InvalidInput(
            "NO_SUCH_STORE", f"{part[:80]!r} keeps no such store; {' and '.join(STORES)} do."
        )
    file = installation.operator_key_file
    if part != KEY:
        file = installation.part_dir(part) / STORES[part]
    said = witness.acceptance_file(file)
    durable.replace(said, b"")
    return said
