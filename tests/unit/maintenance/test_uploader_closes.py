"""An uploader over a real store: what is written goes up by itself, and who stops waits for nobody
who is silent.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from pagestore.maintenance import uploader as module
from pagestore.maintenance.offsite import Offsite
from pagestore.maintenance.uploader import Uploader
from pagestore.objects.store import ObjectStore
from pagestore.timeline import Repository
from tests.unit.maintenance.offsite import layer_objects
from tests.unit.maintenance.test_offsite import Kept, key_of
from tests.unit.objects.faulty import faulty


def kept_without_mirror(directory: Path, objects: ObjectStore) -> Kept:
    """A store that nobody has put there yet."""
    kept = Kept(directory, objects)
    kept.write(1)
    kept.repository.close()
    kept.repository = Repository.open(directory / "store", objects=objects)
    return kept


def test_what_is_written_goes_up_by_itself(tmp_path: Path) -> None:
    objects = ObjectStore.open(f"file://{tmp_path}/objects", {})
    kept = kept_without_mirror(tmp_path / "data", objects)

    async def story() -> None:
        uploader = Uploader(lambda wake: Offsite(kept.repository, kept.directory, wake))
        running = asyncio.create_task(uploader.run())
        assert await uploader.settle(60)
        await asyncio.to_thread(kept.write, 1)
        assert await uploader.settle(60)
        assert uploader.offsite.durable_lsn(key_of(kept, 1)) == kept.models[1].durable
        assert uploader.failure == ""
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await uploader.close()

    asyncio.run(story())
    assert len(layer_objects(objects)) == 3
    kept.repository.close()


def test_who_stops_does_not_wait_for_a_silent_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.05)
    objects, backend, _ = faulty()
    kept = kept_without_mirror(tmp_path / "data", objects)
    asked, answer = threading.Event(), threading.Event()

    def silent(_: int, verb: str, name: str) -> None:
        if name.startswith("pageserver/layers/"):
            asked.set()
            answer.wait(60)

    async def story() -> None:
        uploader = Uploader(lambda wake: Offsite(kept.repository, kept.directory, wake))
        running = asyncio.create_task(uploader.run())
        assert await asyncio.to_thread(asked.wait, 60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await uploader.close()
        assert not answer.is_set()

    backend.before = silent
    asyncio.run(story())
    kept.repository.close()
    answer.set()
