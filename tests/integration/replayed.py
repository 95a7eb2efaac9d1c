"""The oracle for pages: a base that plain Postgres replayed cold, and pages judged against it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pagestore.keyspace import PAGE_SIZE, Fork
from pagestore.oracle.replay import replayed_cluster
from pagestore.pgformat.pagekind import differing_rows, kind_of
from pagestore.pgformat.paths import relation_path
from tests.integration.wal_chains import Block
from tests.plain_postgres import RUN_AS


@contextmanager
def replayed(base: Path, wal: bytes, start: int, lsn: int) -> Iterator[Path]:
    """A cleanly stopped cluster as it is at ``lsn``; ``wal`` is what follows its end, ``start``."""

    async def pieces() -> AsyncIterator[tuple[int, bytes]]:
        yield start, wal

    with asyncio.Runner() as runner:
        made = replayed_cluster(base, pieces(), lsn, run_as=RUN_AS, scratch=Path("/tmp"))
        data = runner.run(made.__aenter__())
        try:
            yield data
        finally:
            runner.run(made.__aexit__(None, None, None))


def page_in(data: Path, block: Block) -> bytes | None:
    """A block of a stopped cluster with relations of one segment; None behind its end."""
    path = data / relation_path(*block[:4])
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(block[4] * PAGE_SIZE)
        page = file.read(PAGE_SIZE)
    return page if len(page) == PAGE_SIZE else None


def judge(data: Path, pages: Mapping[Block, bytes]) -> tuple[list[str], Counter[str]]:
    """What differs from a replayed cluster, and how many pages of which kind were compared. What
    it no longer has was dropped or cut; the free space map is in no WAL."""
    there = {
        block: page
        for block in pages
        if block[3] != Fork.FSM and (page := page_in(data, block)) is not None
    }
    blocks = list(there)
    rows = differing_rows(
        b"".join(pages[block] for block in blocks),
        b"".join(there.values()),
        [block[3] for block in blocks],
        np.array([block[4] for block in blocks]),
    )
    compared = Counter(str(kind_of(page, block[3], block[4])) for block, page in there.items())
    return [f"{blocks[row]}: {what}" for row, what in rows], compared
