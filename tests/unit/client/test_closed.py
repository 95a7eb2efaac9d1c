"""Who calls on a client that was closed, as a task that outlives it may, is told so in words."""

from __future__ import annotations

import asyncio

import pytest

from pagestore.client.page import AsyncPageClient
from pagestore.client.wal import WalClient
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId

NOBODY = "127.0.0.1:1"
TIMELINE = TimelineId(bytes(16))


def test_a_call_on_a_client_that_was_closed_fails_in_words() -> None:
    async def main() -> None:
        wal, pages = WalClient(NOBODY), AsyncPageClient(NOBODY)
        await wal.close()
        await pages.close()
        for call in (wal.get_status, pages.get_timeline):
            with pytest.raises(PagestoreError) as told:
                await call(DEFAULT_TENANT, TIMELINE)
            assert told.value.reason == "CLOSED"

    asyncio.run(main())
