"""The catalog pages that a backend reads before its first row.

Measured on stock 15.20 with pg_buffercache after a start without pg_internal.init: 14 pages of
shared catalogs, then 60 to 70 pages in a database that is only connected to and about 115 in
one that runs a query, mostly one after another, each a round trip. They lie at the beginning of
the nailed catalogs and in small indexes, so a list of catalogs with a bound of blocks for each
names nearly all of them (tests/integration/test_hot_pages.py measures the share).

Mapped catalogs are found through the database's relation map. The others keep their oid as
their file number unless they were rewritten; one that was is simply not sent: pages that are
not sent are read when they are wanted, as any other.

Without pg_internal.init a backend first scans pg_attribute from its beginning until it has found
the nailed relations' rows. From 17 on such a scan reads ahead of what it looks at, 8 blocks there
and 24 in 18 (measured likewise, on 17.12 and 18.6), and a start waits for these too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pagestore.pgformat import relmap
from pagestore.pgformat.versions import Version
from pagestore.reader.sizes import GLOBAL_DATABASE, GLOBAL_SPACE, Relation

FIRST_USER_OID = 16384
POSTGRES_DATABASE = 5
"""The highest number that initdb gives a database."""

SHARED: Mapping[int, int] = {
    **dict.fromkeys((1213, 1260, 1261, 1262, 2964), 2),
    # Their indexes.
    **dict.fromkeys((2671, 2672, 2676, 2677, 2694, 2695, 2697, 2698, 2965), 4),
}
"""Catalog oid to how many of its first blocks."""

ATTRIBUTES = 1249

LOCAL: Mapping[int, int] = {
    1247: 4,  # pg_type
    ATTRIBUTES: 32,  # pg_attribute: the nailed relations' rows come first
    1259: 16,  # pg_class
    1255: 1,  # pg_proc
    2600: 2,
    2601: 1,
    2602: 6,  # pg_amop
    2603: 6,  # pg_amproc
    2605: 2,
    2610: 6,  # pg_index
    2615: 1,
    2616: 4,  # pg_opclass
    2617: 4,  # pg_operator
    # Indexes of the above, oid and name.
    **dict.fromkeys((2650, 2661, 2684, 2685, 2687, 2693, 2696, 3379), 2),
    **dict.fromkeys((2653, 2654, 2655, 2662, 2663, 2678, 2679, 2686, 2688, 2689, 2703, 2704), 6),
    2659: 12,  # pg_attribute_relid_attnum_index
    2690: 8,  # pg_proc_oid_index
    2691: 8,  # pg_proc_proname_args_nsp_index
}


def wanted(
    relmaps: Mapping[tuple[int, int], bytes], version: Version
) -> dict[tuple[int, int, int], int]:
    """(tablespace, database, file number) of hot catalogs, to how many first blocks.

    Args:
        relmaps: every database's relation map, by (tablespace, database).
    """
    local = {**LOCAL, ATTRIBUTES: LOCAL[ATTRIBUTES] + version.scan_ahead_blocks}
    entered = entered_databases(db for _, db in relmaps)
    found: dict[tuple[int, int, int], int] = {}
    for (spc, db), content in relmaps.items():
        shared = (spc, db) == (GLOBAL_SPACE, GLOBAL_DATABASE)
        if not shared and db not in entered:
            continue
        mapped = relmap.parse(content, f"the relation map of database {db}")
        for oid, blocks in (SHARED if shared else local).items():
            found[spc, db, mapped.get(oid, oid)] = blocks
    return found


def entered_databases(databases: Iterable[int]) -> set[int]:
    """Those, by oid, that a session is for, as far as can be told.

    A cluster of ours has one from its template on, which `create` gives its name
    (pagestore/agent/template.py): made by a server in single-user mode, before any of a user's, it
    has a number below theirs. Else, in a cluster that was imported, mostly ``postgres`` or the
    first of the users'.
    """
    found = sorted(db for db in databases if db >= POSTGRES_DATABASE)
    made = [db for db in found if POSTGRES_DATABASE < db < FIRST_USER_OID]
    users = [db for db in found if db >= FIRST_USER_OID]
    return set(made[:1] or [POSTGRES_DATABASE, *users[:1]])


def choose(
    packed: bytes, relmaps: Mapping[tuple[int, int], bytes], version: Version
) -> list[tuple[Relation, int]]:
    """(relation, how many first blocks), for main forks of hot catalogs.

    Args:
        packed: every relation fork, as :func:`pagestore.reader.sizes.packed_relations` has them.
    """
    limits = wanted(relmaps, version)
    table = np.frombuffer(packed, dtype="<u4").reshape(-1, 5)
    rows = table[np.isin(table[:, 2], [rel for _, _, rel in limits]) & (table[:, 3] == 0)]
    return [
        (relation, min(relation.nblocks, limits[relation[:3]]))
        for relation in (Relation(*row) for row in rows.tolist())
        if relation.nblocks and relation[:3] in limits
    ]
