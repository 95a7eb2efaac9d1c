"""Which blocks were changed between two LSNs, as the layers have it.

That may be more than were: what was changed back counts, and so may a page that was only written
anew. It is never less.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagestore import keyspace
from pagestore._native import Snapshot
from pagestore.keyspace import Fork, Kind

_KEY = np.dtype(
    [
        ("kind", "u1"),
        ("spc", ">u4"),
        ("db", ">u4"),
        ("rel", ">u4"),
        ("fork", "u1"),
        ("block", ">u4"),
    ]
)


class ChangedRelation(NamedTuple):
    spc: int
    db: int
    rel: int


def changed_blocks(
    snapshot: Snapshot, after_lsn: int, lsn: int
) -> list[tuple[ChangedRelation, NDArray[np.uint32]]]:
    """Of main forks; block numbers ascend, as little-endian numbers of 4 bytes."""
    raw = snapshot.changed_keys(*keyspace.kind_range(Kind.REL_BLOCK), after_lsn, lsn)
    keys = np.frombuffer(raw, _KEY)
    keys = keys[keys["fork"] == Fork.MAIN]
    names = keys[["spc", "db", "rel"]]
    if len(keys) == 0:
        return []
    begins = np.flatnonzero(np.concatenate(([True], names[1:] != names[:-1]))).tolist()
    ends = [*begins[1:], len(keys)]
    return [
        (
            ChangedRelation(*(int(part) for part in names[begin])),
            keys["block"][begin:end].astype("<u4"),
        )
        for begin, end in zip(begins, ends, strict=True)
    ]
