"""The control plane's state is in the object store soon, and no verb ever waits for that."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from pagestore.control.archive import JOURNAL, PART, Archive
from pagestore.control.records import KeyRecord
from pagestore.control.state import ControlState
from pagestore.errors import FailedPrecondition
from pagestore.ids import TimelineId
from pagestore.objects.claims import claim
from pagestore.objects.journal import Replay
from pagestore.objects.store import ObjectStore


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


@pytest.fixture
def state(tmp_path: Path) -> Iterator[ControlState]:
    with ControlState(tmp_path / "control") as opened:
        yield opened


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/objects"


def kept(url: str) -> dict[tuple[bytes, bytes], bytes | None]:
    replay = Replay(ObjectStore.open(url, {}), PART, JOURNAL)
    found = {(table, key): value for changes in replay for table, key, value in changes}
    return {name: value for name, value in found.items() if value is not None}


def there(state: ControlState) -> dict[tuple[bytes, bytes], bytes | None]:
    with state.storage.whole() as (_, entries):
        return {(table, key): value for table, key, value in entries}


def change(state: ControlState, name: bytes) -> None:
    with state.change() as to:
        to.put_kept_files(TimelineId(bytes(16)), {"pg_stat/pgstat.stat": name})


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await asyncio.sleep(0.02)


@on_a_loop
async def test_what_a_verb_changed_is_there_soon_kept_files_too(
    state: ControlState, url: str
) -> None:
    archive = Archive(state, url, {})
    await archive.begin()
    assert archive.status().generation == 1
    change(state, b"one")
    assert archive.status().behind_bytes > 0
    running = asyncio.create_task(archive.run())
    await until(lambda: not archive.status().behind_seconds)
    assert kept(url) == there(state)
    running.cancel()
    change(state, b"two")
    await archive.finish()
    assert kept(url) == there(state)


@on_a_loop
async def test_no_verb_waits_for_a_store_that_is_away_and_status_says_so(
    state: ControlState, tmp_path: Path
) -> None:
    # Nobody answers there, and nobody refuses either.
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    environ = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }
    archive = Archive(state, "s3://bucket/prefix", environ)
    await archive.begin()
    running = asyncio.create_task(archive.run())
    begun = time.monotonic()
    for number in range(50):
        change(state, b"%d" % number)
        await asyncio.sleep(0)
    assert time.monotonic() - begun < 5
    assert archive.status().last_error
    assert archive.status().generation == 0
    running.cancel()
    silent.close()


@on_a_loop
async def test_one_that_was_replaced_ends(state: ControlState, url: str, tmp_path: Path) -> None:
    archive = Archive(state, url, {})
    await archive.begin()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    claim(ObjectStore.open(url, {}), PART, elsewhere, take_over=True)
    change(state, b"one")
    with pytest.raises(FailedPrecondition) as told:
        await asyncio.wait_for(archive.run(), 20)
    assert told.value.reason == "GENERATION_SUPERSEDED"
    again = Archive(state, url, {})
    with pytest.raises(FailedPrecondition) as told:
        await again.begin()
    assert told.value.reason == "GENERATION_SUPERSEDED"


@on_a_loop
async def test_a_state_that_has_changed_meanwhile_goes_up_at_the_next_start(
    state: ControlState, url: str
) -> None:
    archive = Archive(state, url, {})
    await archive.begin()
    await archive.finish()
    with state.change() as to:
        to.put_key(KeyRecord(key="00000000", overwritten=True))
    again = Archive(state, url, {})
    await again.begin()
    await again.finish()
    assert kept(url) == there(state)
    assert again.status().generation == 2
