"""Page truth when no layer file is here: what is fetched by ranges from an object store reads as
plain Postgres's own replay, on the timeline and on branches of it.

The page server keeps its store in objects by itself; standing still, all of its files are evicted.
"""

from __future__ import annotations

from pathlib import Path

from pagestore.client.page import AsyncPageClient
from pagestore.ids import format_lsn
from pagestore.maintenance.offsite import Offsite
from pagestore.objects.store import ObjectStore
from pagestore.timeline import Repository
from pagestore.v1 import page_pb2 as pb
from tests.truth.history import WAIT_SECONDS, History, history
from tests.truth.test_page_truth import SEED
from tests.truth.workloads import BY_NAME
from tests.unit.maintenance.offsite import evict_all, settle
from tests.waiting import wait_until


async def upkeep(address: str) -> pb.ObjectStoreStatus:
    async with AsyncPageClient(address) as pages:
        return (await pages.upkeep()).objects


def all_is_there(made: History) -> bool:
    status = made.stack.wait(upkeep(made.pages.address), WAIT_SECONDS)
    assert status.last_error == ""
    return status.generation > 0 and status.behind_bytes == 0


def evict(directory: Path, url: str) -> None:
    repository = Repository.open(directory / "store", objects=ObjectStore.open(url, {}))
    offsite = Offsite(repository, directory)
    offsite.start()
    settle(offsite)
    assert evict_all(repository, offsite) > 1 << 20
    settle(offsite)
    repository.close()
    assert not list((directory / "store").glob("*/*/*.*"))


def test_pages_are_the_same_when_all_layers_are_elsewhere(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/objects"
    with history(BY_NAME["pgbench"]) as made:
        assert made.pages.stop() == 0
        made.pages.settings["objects"] = url
        made.pages.start()
        made.wait()
        wait_until(lambda: all_is_there(made), WAIT_SECONDS)
        assert made.pages.stop() == 0
        evict(made.pages.data_dir, url)
        made.pages.start()
        made.wait()
        for lsn in (made.draw(1, SEED)[0], made.end):
            with made.replayed(lsn) as data:
                compared = made.compare(data, lsn, branches=1)
            assert not compared.differences, "\n".join(
                [f"{format_lsn(lsn)}, PAGESTORE_TRUTH_SEED={SEED}", *compared.differences[:20]]
            )
        status = made.stack.wait(upkeep(made.pages.address), WAIT_SECONDS)
        assert 0 < status.cached_bytes <= status.fetched_bytes
