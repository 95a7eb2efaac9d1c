"""A disk that fails reads of layer files: it is told, tried again, and read around."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from pagestore.client import PageClient
from pagestore.client.page import AsyncPageClient
from pagestore.errors import Unavailable
from pagestore.ids import DEFAULT_TENANT
from pagestore.keyspace import PAGE_SIZE
from pagestore.objects.store import ObjectStore
from pagestore.v1 import page_pb2 as pb
from tests.integration.failing_disk import preload
from tests.integration.page_process import PageProcess
from tests.integration.page_store import END_LSN, IMAGES, TIMELINE, make_store
from tests.waiting import wait_until

BLOCKS = 200


def failing(tmp_path: Path, **settings: object) -> PageProcess:
    pages = PageProcess(tmp_path / "pages", **settings)
    make_store(pages.data_dir, images=BLOCKS, records=1)
    pages.environment = preload(tmp_path)
    return pages


def read(client: PageClient) -> bytes:
    found = client.get_pages(DEFAULT_TENANT, TIMELINE, END_LSN, IMAGES, range(BLOCKS))
    return b"".join(found)


def upkeep(pages: PageProcess) -> pb.Upkeep:
    async def ask() -> pb.Upkeep:
        async with AsyncPageClient(pages.address) as client:
            return await client.upkeep()

    return asyncio.run(ask())


def scrubbed(pages: PageProcess) -> list[pb.ScrubbedLayer]:
    async def ask() -> list[pb.ScrubbedLayer]:
        async with AsyncPageClient(pages.address) as client:
            await client.list_timelines(None)
            return [item async for item in client.scrub()]

    return asyncio.run(ask())


def test_a_read_that_fails_is_told_and_done_when_the_disk_is_well(tmp_path: Path) -> None:
    trigger = tmp_path / "fail-read"
    with failing(tmp_path) as pages:
        trigger.write_text(".image")
        with pages.client(timeout=1.0) as client, pytest.raises(Unavailable) as caught:
            read(client)
        assert (caught.value.reason, "cannot read" in caught.value.message) == ("IO_ERROR", True)
        found = upkeep(pages)
        assert found.read_faults > 0
        assert "Input/output error" in found.last_read_fault
        wait_until(lambda: "the disk fails to read layer files" in pages.log.read_text())
        with pages.client(timeout=60.0) as client:
            threading.Timer(1.0, trigger.unlink).start()
            assert len(read(client)) == BLOCKS * PAGE_SIZE


def test_with_an_object_store_it_is_read_from_there_and_then_repaired(tmp_path: Path) -> None:
    trigger, url = tmp_path / "fail-read", f"file://{tmp_path}/objects"
    store = ObjectStore.open(url, {})
    with failing(tmp_path, objects=url, cache_bytes=64 << 20) as pages:
        wait_until(lambda: upkeep(pages).objects.generation > 0)
        wait_until(lambda: not upkeep(pages).objects.behind_bytes)
        assert len(list(store.list("pageserver/layers/"))) == 2
        (image,) = (pages.data_dir / "store").glob("*/*/*.image")
        whole = image.read_bytes()
        pages.kill()
        pages.start()
        # The file alone: not what is fetched beside it, nor what the object store has.
        trigger.write_text(f"/store/{image.relative_to(image.parents[2])}")
        with pages.client() as client:
            assert len(read(client)) == BLOCKS * PAGE_SIZE
            aside = pages.data_dir / "store/lost+found"
            wait_until(lambda: list(aside.glob("*.image")), 30)
            trigger.unlink()
            assert len(read(client)) == BLOCKS * PAGE_SIZE
        wait_until(lambda: image.exists() and image.read_bytes() == whole)
        assert not any(item.HasField("status") for item in scrubbed(pages))
        assert upkeep(pages).read_faults > 0
        assert "a damaged layer file was fetched anew" in pages.log.read_text()
