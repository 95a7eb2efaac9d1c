"""Page truth: every block through GetPages equals plain Postgres's own file, after masking.

A cluster is imported, then works: all index methods, TOAST, vacuum, two-phase commit, multixacts,
truncation and growth, new databases. Its WAL is followed; after a clean stop its files are the
oracle. Excepted by name, because no WAL says otherwise (POSTGRES.md §5, §7): the free space map,
LSNs (masked), how far a sequence has run within its logged step, visibility map pages that never
had a bit, and the visibility maps of a database made by CREATE DATABASE ... STRATEGY wal_log:
Postgres 15 logs those pages as if they had a hole (log_newpage_buffer with page_std), and the
whole map lies in it, so that its own replay makes blank ones too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from pagestore.client import PageClient, Rel
from pagestore.ids import TimelineId
from pagestore.pgformat.bufmask import PageKind, mask_pages
from tests.integration.imported import (
    Imported,
    imported,
    listed,
    local_blocks,
    place,
    remote_blocks,
)
from tests.plain_postgres import PlainPostgres


@dataclass(frozen=True)
class Masks:
    """How pages are to be compared."""

    kinds: dict[tuple[int, int], PageKind]
    """(database, file number) to the kind of its main fork."""
    logged_copy: int
    """The database made with STRATEGY wal_log."""


MAIN, FSM, VM, INIT = range(4)
KINDS = """
    SELECT CASE WHEN c.reltablespace = 1664 THEN 0 ELSE d.oid END, pg_relation_filenode(c.oid),
           CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'i' THEN a.amname ELSE 'heap' END
    FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam, pg_database d
    WHERE c.relkind IN ('r', 't', 'm', 'i', 'S') AND d.datname = current_database()
"""

SCHEMA = """
    CREATE EXTENSION bloom;
    CREATE TABLE items (
        id serial PRIMARY KEY, body text, place point, tags int[], day date, area box, word text
    );
    CREATE INDEX ON items USING hash (body);
    CREATE INDEX ON items USING gin (tags);
    CREATE INDEX ON items USING gist (area);
    CREATE INDEX ON items USING spgist (word);
    CREATE INDEX ON items USING brin (day) WITH (pages_per_range = 2);
    CREATE INDEX ON items USING bloom (id, word);
    CREATE TABLE wide (id int, body text);
    ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE held (id int);
    CREATE SEQUENCE numbers;
"""
FILL = """
    INSERT INTO items (body, place, tags, day, area, word)
    SELECT md5(i::text), point(i % 100, i % 77), ARRAY[i % 50, i % 7, i],
           date '2020-01-01' + i % 900, box(point(i % 91, i % 13), point(i % 91 + 1, i % 13 + 2)),
           md5((i * 3)::text)
    FROM generate_series({first}, {last}) i;
    INSERT INTO wide SELECT i, repeat(md5(i::text), 200) FROM generate_series(1, 50) i;
"""
CHURN = """
    UPDATE items SET body = body || 'x' WHERE id % 5 = 0;
    UPDATE items SET word = md5(word) WHERE id % 11 = 0;
    DELETE FROM items WHERE id % 7 = 0;
    SELECT nextval('numbers') FROM generate_series(1, 100);
    DELETE FROM wide WHERE id % 2 = 0;
    UPDATE wide SET body = body || 'y';
"""


def work(cluster: PlainPostgres) -> None:
    sql = cluster.sql
    sql(FILL.format(first=1, last=6000))
    sql(CHURN)
    sql("VACUUM items")
    sql("VACUUM (FREEZE) wide")
    sql(FILL.format(first=6001, last=9000))
    sql("BEGIN; INSERT INTO held VALUES (1); PREPARE TRANSACTION 'kept'")
    sql("BEGIN; INSERT INTO wide VALUES (2, 'q'); PREPARE TRANSACTION 'gone'")
    sql("COMMIT PREPARED 'gone'")
    with cluster.connect() as one, cluster.connect() as two:
        for connection in (one, two):
            connection.execute("BEGIN; SELECT * FROM items WHERE id % 13 = 1 FOR SHARE")
        one.execute("SAVEPOINT a; UPDATE wide SET id = id + 1 WHERE id = 3; ROLLBACK TO a")
        one.execute("COMMIT")
        two.execute("COMMIT")
    sql("CREATE TABLE cut AS SELECT generate_series(1, 20000) i; DELETE FROM cut WHERE i > 10")
    sql("VACUUM cut")
    sql("INSERT INTO cut SELECT generate_series(1, 3000)")
    sql("CREATE TABLE copied AS SELECT * FROM items; CLUSTER items USING items_pkey")
    sql("VACUUM FULL wide")
    sql("TRUNCATE copied")
    sql("CREATE UNLOGGED TABLE light AS SELECT generate_series(1, 100) i")
    sql("SELECT lo_from_bytea(0, repeat('z', 5000)::bytea)")
    sql("CREATE DATABASE second")
    sql("CREATE DATABASE third STRATEGY file_copy")
    sql("CREATE TABLE inside AS SELECT generate_series(1, 1000) i", "second")
    sql("CREATE TABLE inside AS SELECT generate_series(1, 1000) i", "third")
    sql("CREATE DATABASE fourth; ")
    sql("DROP DATABASE fourth")
    sql("REINDEX TABLE items; ANALYZE")


def kinds(cluster: PlainPostgres) -> Masks:
    found: dict[tuple[int, int], PageKind] = {}
    for [name] in cluster.sql("SELECT datname FROM pg_database WHERE datallowconn"):
        for db, number, kind in cluster.sql(KINDS, name):
            found[db, number] = _kind(kind)
    [[copy]] = cluster.sql("SELECT oid FROM pg_database WHERE datname = 'second'")
    return Masks(found, copy)


def _kind(name: str) -> PageKind:
    known = {kind.value for kind in PageKind}
    return PageKind(name) if name in known else PageKind.GENERIC


@pytest.fixture(scope="module", params=["plain", "checksums"])
def worked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Imported, int, Masks]]:
    options = ["--data-checksums"] if request.param == "checksums" else []
    with imported(tmp_path_factory.mktemp("truth"), *options, setup=SCHEMA) as store:
        work(store.cluster)
        masks = kinds(store.cluster)
        end = store.stop_and_publish()
        with store.pages.client() as client:
            store.wait(client, end)
        yield store, end, masks


def differing(ours: list[bytes], theirs: list[bytes], kind: PageKind) -> list[int]:
    blocks = np.arange(len(ours))
    masked = [
        mask_pages(np.frombuffer(b"".join(pages), np.uint8).reshape(-1, 8192), kind, blocks)
        for pages in (ours, theirs)
    ]
    return [int(block) for block in np.flatnonzero((masked[0] != masked[1]).any(axis=1))]


def compare(store: Imported, timeline: TimelineId, end: int, masks: Masks) -> tuple[int, list[str]]:
    """How many blocks were compared, and those that differ."""
    wrong: list[str] = []
    count = 0
    with store.pages.client() as client:
        relations, _, _ = listed(client, timeline, end)
        for rel, theirs in local_blocks(store.cluster.data):
            have = relations.pop(rel, None)
            if rel.fork == FSM or (have is None and _blank(rel, theirs)):
                continue
            if have != len(theirs):
                wrong.append(f"{place(rel, 0, end)}: {have} blocks, not {len(theirs)}")
                continue
            if not theirs:
                continue
            kind = masks.kinds.get((rel.db_oid, rel.rel_number), PageKind.HEAP)
            if kind == PageKind.SEQUENCE:
                continue
            if rel.fork == VM:
                kind = PageKind.MAP
            ours = list(remote_blocks(client, timeline, end, rel, len(theirs)))
            count += len(theirs)
            if rel.db_oid == masks.logged_copy and all(_blank(rel, [page]) for page in ours):
                continue
            wrong += [
                f"{place(rel, block, end)} ({kind})" for block in differing(ours, theirs, kind)
            ]
    wrong += [
        f"{place(rel, 0, end)}: {n} blocks, not there in the files"
        for rel, n in relations.items()
        if rel.fork != FSM and not _unlogged(rel, store)
    ]
    return count, wrong


def _blank(rel: Rel, pages: list[bytes]) -> bool:
    """Visibility map pages without a bit."""
    return rel.fork == VM and not any(any(page[24:]) for page in pages)


def _unlogged(rel: Rel, store: Imported) -> bool:
    base = store.cluster.data / f"base/{rel.db_oid}"
    return (base / f"{rel.rel_number}_init").exists()


def test_every_block(worked: tuple[Imported, int, Masks]) -> None:
    store, end, masks = worked
    count, wrong = compare(store, store.timeline, end, masks)
    assert not wrong, "\n".join(wrong[:40])
    assert count > 3000


def test_transaction_status_and_maps(
    worked: tuple[Imported, int, Masks],
) -> None:
    store, end, _ = worked
    data = store.cluster.data
    with store.pages.client() as client:
        _, files, _ = listed(client, store.timeline, end)
    folders = ("pg_xact", "pg_multixact", "pg_twophase", "global", "base")
    compared = 0
    for path, content in files.items():
        if path.startswith(folders):
            theirs = (data / path).read_bytes()
            # A segment may be longer here than on disk, by pages that nobody wrote yet.
            assert content[: len(theirs)] == theirs, path
            assert not any(content[len(theirs) :]), path
            compared += 1
    assert compared > 8
    assert len([path for path in files if path.startswith("pg_twophase/")]) == 1


def test_after_a_restart_and_on_a_branch(
    worked: tuple[Imported, int, Masks],
) -> None:
    store, end, masks = worked
    child = TimelineId.generate()
    with store.pages.client() as client:
        _branch(client, store, child, end)
    store.pages.kill()
    store.pages.start()
    with store.pages.client() as client:
        store.wait(client, end)
    for timeline in (store.timeline, child):
        _, wrong = compare(store, timeline, end, masks)
        assert not wrong, "\n".join(wrong[:40])


def _branch(client: PageClient, store: Imported, child: TimelineId, at: int) -> None:
    from pagestore.ids import DEFAULT_TENANT

    client.create_timeline(DEFAULT_TENANT, child, store.timeline, at)
