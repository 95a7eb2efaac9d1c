"""The hot pages of a base backup are those that a real start reads, and not many more."""

from __future__ import annotations

import struct

from pagestore.postgres.cluster import open_cluster
from pagestore.reader.hotpages import choose
from tests.plain_postgres import VERSION, PlainPostgres, plain_postgres

READ = """
    SELECT CASE WHEN reltablespace = 1664 THEN 0 ELSE reldatabase END, relfilenode, relblocknumber
    FROM pg_buffercache WHERE relforknumber = 0 AND relfilenode < 16384
      AND reldatabase IN (0, (SELECT oid FROM pg_database WHERE datname = 'app'))
"""


def chosen(cluster: PlainPostgres) -> set[tuple[int, int, int]]:
    data = cluster.data
    stopped = open_cluster(data)
    relations = stopped.relations.items()
    packed = b"".join(struct.pack("<5I", *fork, files.nblocks) for fork, files in relations)
    relmaps = {(1664, 0): (data / "global/pg_filenode.map").read_bytes()}
    for place, home in zip(stopped.databases, stopped.database_directories(), strict=True):
        relmaps[place] = (data / home / "pg_filenode.map").read_bytes()
    picked = choose(packed, relmaps, VERSION)
    assert all(0 < count <= relation.nblocks for relation, count in picked)
    return {(r.db, r.rel, block) for r, count in picked for block in range(count)}


def test_a_start_and_a_first_query_find_their_pages() -> None:
    with plain_postgres() as cluster:
        cluster.sql("CREATE DATABASE app")
        cluster.sql("CREATE EXTENSION pg_buffercache", "template1")
        cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 100) i", "app")
        # Mapped catalogs are found where a rewrite put them.
        cluster.sql("VACUUM FULL pg_class", "app")
        cluster.stop()
        for stale in cluster.data.rglob("pg_internal.init"):
            stale.unlink()
        hot = chosen(cluster)
        cluster.start()
        cluster.sql("SELECT count(*) FROM t WHERE i > 5", "app")
        read = {tuple(row) for row in cluster.sql(READ, "template1")}
    assert len(read) > 60
    assert len(read & hot) / len(read) > 0.85, sorted(read - hot)
    ahead = 2 * VERSION.scan_ahead_blocks  # in two databases
    assert (len(hot) - ahead) * 8192 < 3 << 20
