"""A data directory whose relations are only in the remote map.

What a base backup says of relations is kept in memory and becomes one file, the remote map; the
shim makes a relation's file when something is first written to it or asked of it. So a start
costs the same whether a cluster has a hundred relations or ten thousand, but for the unlogged
ones: those are laid whole, as copies of their init forks (see :mod:`pagestore.postgres.datadir`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pagestore.pgformat import page
from pagestore.postgres import remote_map
from pagestore.postgres.datadir import INIT_FORK, DataDirectory, Owner, malformed
from pagestore.postgres.remote_map import RELATION, Fork, HotPage


class HydratingDirectory(DataDirectory):
    """Feed it every chunk, then finish it file by file, :meth:`write_remote_map` among them."""

    def __init__(self, root: Path, owner: Owner | None = None) -> None:
        super().__init__(root, owner)
        self._parts: list[remote_map.Table] = []
        self._table = np.empty(0, dtype=RELATION)
        self._names = remote_map.names(self._table)
        self._hot: list[HotPage] = []

    @property
    def relation_count(self) -> int:
        self._settle()
        return len(self._table)

    def write_table(self, table: remote_map.Table) -> None:
        self._parts.append(table)

    def write_pages(self, fork: Fork, blocks: Sequence[int], pages: Sequence[bytes]) -> None:
        self.check_pages(fork, blocks, pages)
        if self.settings.data_checksum_version:
            pages = page.with_checksums(pages, blocks)
        self._hot += map(HotPage, [fork] * len(blocks), blocks, pages)

    def overlay(self, fork: Fork, pages: Mapping[int, bytes]) -> None:
        """Takes blocks that are other than what the page server has of them as yet."""
        blocks = sorted(pages)
        self._hot = [hot for hot in self._hot if hot.fork != fork or hot.block not in pages]
        self.write_pages(fork, blocks, [pages[block] for block in blocks])

    def length(self, fork: Fork) -> int | None:
        """Blocks of a fork; None where the base backup did not name it."""
        self._settle()
        row = remote_map.find(self._names, fork)
        return None if row is None else int(self._table["nblocks"][row])

    def hot_pages(self, fork: Fork) -> list[bytes] | None:
        """All pages of a fork, in order, if all are hot."""
        found = {item.block: item.page for item in self._hot if item.fork == fork}
        return (
            [found[block] for block in sorted(found)] if len(found) == self.length(fork) else None
        )

    def unlogged_forks(self) -> list[Fork]:
        self._settle()
        rows = self._table[self._table["fork"] == INIT_FORK]
        return [(int(r["spc"]), int(r["db"]), int(r["rel"]), INIT_FORK) for r in rows]

    def write_unlogged_fork(self, fork: Fork, pages: Sequence[bytes]) -> None:
        self.create_sparse(fork, len(pages))
        super().write_unlogged_fork(fork, pages)

    def write_remote_map(self) -> None:
        self._settle()
        self._make_database_directories()
        remote = self._table[self._table["fork"] != INIT_FORK]
        hot = [item for item in self._hot if item.fork[3] != INIT_FORK]
        self.write(remote_map.FILE_NAME, remote_map.build(remote, hot))

    def _make_database_directories(self) -> None:
        """Of tablespaces too, where no other file asks for them."""
        spc, db = self._table["spc"], self._table["db"]
        first = np.flatnonzero((spc[1:] != spc[:-1]) | (db[1:] != db[:-1])) + 1
        for row in self._table[np.concatenate([[0], first])] if len(spc) else ():
            self.open_database(int(row["spc"]), int(row["db"]))

    def _settle(self) -> None:
        """All relations come before the first page: makes them one table, in order."""
        if not self._parts:
            return
        table = np.concatenate([self._table, *self._parts])
        self._parts.clear()
        keys = remote_map.names(table)
        if not np.all(keys[:-1] < keys[1:]):
            order = np.argsort(keys, kind="stable")
            table, keys = table[order], keys[order]
            if np.any(keys[:-1] == keys[1:]):
                raise malformed("a relation fork twice")
        self._table, self._names = table, keys
