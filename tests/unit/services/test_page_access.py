"""The event loop does not wait for what a timeline's first read needs."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from pagestore import keyspace
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.services.page_access import PageAccess
from pagestore.timeline import Repository
from pagestore.timeline.catalog import Catalog
from tests.unit.timeline.model import ROOT_LSN, image, make_root, timeline_id

KEY = keyspace.rel_size(1, 2, 3, 0)


def test_a_catalog_that_is_slow_to_tell_of_files_delays_no_other_timeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, layers = threading.Event(), Catalog.layers

    def slow(self: Catalog, tenant: TenantId, timeline: TimelineId) -> Any:
        if timeline == timeline_id(1):
            assert gate.wait(20)
        return layers(self, tenant, timeline)

    async def main(repository: Repository) -> None:
        nothing = cast(Any, None)
        access = PageAccess(repository, *[nothing] * 8)
        first, other = (repository.get(DEFAULT_TENANT, timeline_id(n)) for n in (1, 2))
        waiting = asyncio.create_task(access.whole_snapshot(first))
        await asyncio.sleep(0)
        found = await access.whole_snapshot(other)
        assert found.get(KEY.pack(), ROOT_LSN) == b"root"
        assert not waiting.done()
        assert other.cached_snapshot is not None
        gate.set()
        assert (await waiting).get(KEY.pack(), ROOT_LSN) == b"root"

    store = Repository.open(tmp_path)
    for number in (1, 2):
        make_root(store, number, [image(KEY, ROOT_LSN, b"root")])
    store.close()
    monkeypatch.setattr(Catalog, "layers", slow)
    gate.set()
    store = Repository.open(tmp_path)  # which lists all layers, too
    gate.clear()
    try:
        asyncio.run(main(store))
    finally:
        store.close()
