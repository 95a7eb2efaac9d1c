"""A scrub makes a damaged layer again of WAL, and every page is then what it was before."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pagestore.client import PageClient, Rel
from pagestore.client.page import AsyncPageClient
from pagestore.errors import DataLoss
from pagestore.ids import DEFAULT_TENANT
from pagestore.v1 import page_pb2 as pb
from tests.integration.imported import Imported, imported, listed, remote_blocks
from tests.integration.test_page_service_follow import lsn_now, publish

QUIET: dict[str, Any] = {"idle_flush_seconds": 3600.0}
"""Layers are flushed when a test says so."""
FIRST = """
    CREATE TABLE t (n int PRIMARY KEY, words text);
    INSERT INTO t SELECT n, repeat(md5(n::text), 3) FROM generate_series(1, 20000) n;
    UPDATE t SET words = 'short' WHERE n % 3 = 0;
    CREATE INDEX ON t USING hash (words);
"""
SECOND = """
    DELETE FROM t WHERE n % 5 = 0;
    CREATE TABLE other AS SELECT * FROM t;
    TRUNCATE t;
    INSERT INTO t SELECT n, 'again' FROM generate_series(1, 3000) n;
    DROP TABLE other;
    VACUUM t;
"""


def scrubbed(store: Imported, **options: Any) -> dict[str, pb.ScrubbedLayer]:
    async def run() -> dict[str, pb.ScrubbedLayer]:
        async with AsyncPageClient(store.pages.address) as client:
            await client.list_timelines(DEFAULT_TENANT)
            return {Path(item.path).name: item async for item in client.scrub(**options)}

    return asyncio.run(run())


def layers(store: Imported) -> list[Path]:
    return sorted((store.pages.data_dir / "store").glob("*/*/*.delta"))


def digest(store: Imported, client: PageClient, lsn: int) -> dict[object, bytes]:
    """Of every page of every relation, and every file of a base backup."""
    relations, files, _ = listed(client, store.timeline, lsn)
    found: dict[object, bytes] = {
        path: data
        for path, data in files.items()
        if "pg_control" not in path and "pg_wal" not in path
    }
    for fork, blocks in relations.items():
        rel = Rel(*fork)
        whole = hashlib.blake2b()
        for page in remote_blocks(client, store.timeline, lsn, rel, blocks):
            whole.update(page)
        found[rel] = whole.digest()
    return found


@contextmanager
def written(directory: Path, **page_server: Any) -> Iterator[tuple[Imported, PageClient, int]]:
    """And the end of WAL, which is all published."""
    with (
        imported(directory, page_server={**QUIET, **page_server}) as store,
        store.pages.client() as client,
    ):
        for part in (FIRST, SECOND):
            for statement in part.split(";"):
                store.cluster.sql(statement) if statement.strip() else None
            if part is SECOND:
                store.cluster.sql("CREATE DATABASE copied TEMPLATE postgres STRATEGY file_copy")
            end = lsn_now(store.cluster)
            publish(store, end)
            store.wait(client, end)
            client.flush(DEFAULT_TENANT, store.timeline)
        yield store, client, end


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 0x20  # so that no read can do without
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def exchange(path: Path) -> None:
    other = next(item for item in path.parent.iterdir() if item != path)
    path.write_bytes(other.read_bytes())


DAMAGES: list[Callable[[Path], object]] = [flip, cut, exchange, Path.unlink]


def test_a_layer_is_made_again_of_wal_and_all_pages_are_as_they_were(tmp_path: Path) -> None:
    with written(tmp_path) as (store, client, end):
        middle = store.import_lsn + 8
        before = digest(store, client, end)
        early = digest(store, client, middle)
        for damage in DAMAGES:
            for number in (0, -1):  # by then the compactor may have made one of the two
                store.pages.kill()
                path = layers(store)[number]
                was_there = damage is not Path.unlink
                damage(path)
                damaged = path.read_bytes() if was_there else b""
                store.pages.start()
                with pytest.raises(DataLoss):
                    digest(store, client, end)
                looked = scrubbed(store, check_only=True)[path.name]
                assert looked.status.reason == "LAYER_CORRUPT"
                assert looked.repaired == looked.unrepaired.reason == ""
                answer = scrubbed(store)[path.name]
                assert not answer.HasField("status"), answer
                assert path.name in answer.repaired
                assert answer.repaired_from.startswith("WAL of safekeeper")
                assert bool(answer.moved_to) == was_there
                assert not was_there or Path(answer.moved_to).read_bytes() == damaged
                assert not path.exists()
                assert digest(store, client, end) == before
                assert digest(store, client, middle) == early
                assert not any(item.repaired for item in scrubbed(store).values())


def test_what_cannot_be_made_again_is_said_with_the_reason(tmp_path: Path) -> None:
    with written(tmp_path) as (store, _, end):
        images = sorted((store.pages.data_dir / "store").glob("*/*/*.image"))
        flip(images[0])
        newest = layers(store)[-1]
        flip(newest)
        store.wal.flip(DEFAULT_TENANT, store.timeline, end - 200)
        store.pages.kill()
        store.pages.start()
        found = scrubbed(store)
        image = found[images[0].name].unrepaired
        assert (image.reason, "made of layers" in image.message) == ("NOT_REBUILDABLE", True)
        assert found[newest.name].status.reason == "LAYER_CORRUPT"
        assert found[newest.name].unrepaired.reason == "WAL_INCOMPLETE"
        assert newest.exists(), "nothing better was found: it stays where it is"
        assert images[0].exists()
        store.wal.forget(DEFAULT_TENANT, store.timeline)
        assert scrubbed(store)[newest.name].unrepaired.reason == "WAL_INCOMPLETE"
        assert not [path for path in newest.parent.iterdir() if path.suffix == ".tmp"]
