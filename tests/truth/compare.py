"""Every block of every relation, through GetPages and in a replayed cluster's files.

Both sides are made by Postgres's redo from the same WAL, so after masking all must be equal,
page LSNs included. Left out, for reasons in Postgres: the free space map (redo keeps one on
the side that WAL does not tell of), and main forks of unlogged relations (recovery resets
them).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from pagestore.client import PageClient, Rel
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.pgformat.bufmask import PageKind, mask_pages
from pagestore.v1 import page_pb2 as pb

FSM, VM, INIT = 1, 2, 3
FORKS = {"": 0, "_fsm": FSM, "_vm": VM, "_init": INIT}
RELATION_FILE = re.compile(r"(\d+)(_fsm|_vm|_init)?(?:\.(\d+))?")
SEGMENT_BLOCKS = 131072

Kinds = Mapping[tuple[int, int], PageKind]

KINDS = """
    SELECT CASE WHEN c.reltablespace = 1664 THEN 0 ELSE d.oid END, pg_relation_filenode(c.oid),
           CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'i' THEN a.amname ELSE 'heap' END
    FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam, pg_database d
    WHERE c.relkind IN ('r', 't', 'm', 'i', 'S') AND d.datname = current_database()
"""


def page_kinds(connection: psycopg.Connection[Any]) -> dict[tuple[int, int], PageKind]:
    """(database, file number) to how the main fork's pages are masked; of one database."""
    names = {kind.value: kind for kind in PageKind}
    rows = connection.execute(KINDS).fetchall()
    return {(db, number): names.get(kind, PageKind.GENERIC) for db, number, kind in rows}


@dataclass
class Comparison:
    blocks: int = 0
    relations: int = 0
    differences: list[str] = field(default_factory=list)


def relation_files(data: Path) -> dict[Rel, list[Path]]:
    """Each relation fork of a stopped cluster, with its segment files in order."""
    found: dict[Rel, dict[int, Path]] = {}
    for folder, spc, db in _folders(data):
        for path in folder.iterdir():
            match = RELATION_FILE.fullmatch(path.name)
            if match is not None:
                rel = Rel(spc, db, int(match[1]), FORKS[match[2] or ""])
                found.setdefault(rel, {})[int(match[3] or 0)] = path
    return {rel: [parts[n] for n in sorted(parts)] for rel, parts in sorted(found.items())}


def _folders(data: Path) -> Iterator[tuple[Path, int, int]]:
    yield data / "global", 1664, 0
    for folder in sorted((data / "base").iterdir()):
        if folder.name.isdigit():
            yield folder, 1663, int(folder.name)


def remote_relations(client: PageClient, timeline: TimelineId, lsn: int) -> dict[Rel, int]:
    relations: dict[Rel, int] = {}
    for chunk in client.base_backup(DEFAULT_TENANT, timeline, lsn):
        if chunk.HasField("relations"):
            relations |= {_rel(entry.rel): entry.nblocks for entry in chunk.relations.relations}
    return relations


def _rel(tag: pb.RelTag) -> Rel:
    return Rel(tag.spc_oid, tag.db_oid, tag.rel_number, tag.fork)


def compare(
    client: PageClient, timeline: TimelineId, lsn: int, data: Path, kinds: Kinds
) -> Comparison:
    """What GetPages answers at ``lsn`` against the files of ``data``, replayed up to there."""
    result = Comparison()
    remote = remote_relations(client, timeline, lsn)
    local = relation_files(data)
    unlogged = {(rel.db_oid, rel.rel_number) for rel in {*local, *remote} if rel.fork == INIT}
    for rel in sorted({*local, *remote}):
        if rel.fork == FSM or (rel.fork != INIT and rel[1:3] in unlogged):
            continue
        _compare_relation(result, client, timeline, lsn, rel, remote, local, kinds)
    return result


def _compare_relation(
    result: Comparison,
    client: PageClient,
    timeline: TimelineId,
    lsn: int,
    rel: Rel,
    remote: Mapping[Rel, int],
    local: Mapping[Rel, list[Path]],
    kinds: Kinds,
) -> None:
    if rel not in local or rel not in remote:
        missing = "the page server" if rel in local else "plain Postgres"
        result.differences.append(f"{rel}: not there in {missing}")
        return
    theirs = b"".join(path.read_bytes() for path in local[rel])
    count = len(theirs) // 8192
    if remote[rel] != count:
        result.differences.append(f"{rel}: {remote[rel]} blocks, plain Postgres has {count}")
        return
    result.relations += 1
    result.blocks += count
    kind = PageKind.MAP if rel.fork == VM else kinds.get(rel[1:3], PageKind.HEAP)
    for first in range(0, count, 1024):
        blocks = list(range(first, min(first + 1024, count)))
        ours = b"".join(client.get_pages(DEFAULT_TENANT, timeline, lsn, rel, blocks))
        part = theirs[first * 8192 : (first + len(blocks)) * 8192]
        result.differences += [
            f"{rel} block {block} ({kind}): {what}"
            for block, what in differing(ours, part, kind, np.array(blocks))
        ]


def differing(
    ours: bytes, theirs: bytes, kind: PageKind, blocks: np.ndarray[Any, Any]
) -> list[tuple[int, str]]:
    """The blocks that differ, each with the first offsets that do."""
    pages = [np.frombuffer(side, np.uint8).reshape(-1, 8192) for side in (ours, theirs)]
    lsns = [side[:, :8].copy().view("<u4") for side in pages]
    masked = [mask_pages(side, kind, blocks) for side in pages]
    unequal = masked[0] != masked[1]
    found = []
    for row in np.flatnonzero(unequal.any(axis=1) | (lsns[0] != lsns[1]).any(axis=1)):
        offsets = np.flatnonzero(unequal[row])[:8].tolist()
        what = f"bytes {offsets}" if offsets else f"LSN {lsns[0][row]} for {lsns[1][row]}"
        found.append((int(blocks[row]), what))
    return found
