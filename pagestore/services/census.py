"""When the control plane asks the page server which timelines there are: before all else."""

from __future__ import annotations

import asyncio

from pagestore import tasks
from pagestore.client.page import AsyncPageClient
from pagestore.control.census import take_census
from pagestore.control.operator_key import OperatorKey
from pagestore.control.state import ControlState
from pagestore.errors import DeadlineExceeded, Unavailable

FIRST_CONTACT_SECONDS = 120.0
CENSUS_SECONDS = 5.0
"""For the page server to say which timelines it has, before the start goes on without."""


async def take_census_in_time(page_server: str, state: ControlState, key: OperatorKey) -> None:
    """Before anything is done, where the page server answers in time; what began without it
    ends when it says later that the state is older."""
    first = not state.view().templates()
    seconds = FIRST_CONTACT_SECONDS if first else CENSUS_SECONDS
    pages = AsyncPageClient(page_server, timeout=seconds)
    try:
        async with pages, asyncio.timeout(seconds):
            await take_census(state, pages, key)
    except (Unavailable, TimeoutError):
        if first:
            raise
        tasks.errand(_take_census_late(page_server, state, key), "census")


async def _take_census_late(page_server: str, state: ControlState, key: OperatorKey) -> None:
    async with AsyncPageClient(page_server, timeout=FIRST_CONTACT_SECONDS) as pages:
        while True:
            try:
                await take_census(state, pages, key)
            except (Unavailable, DeadlineExceeded):
                await asyncio.sleep(CENSUS_SECONDS)
            else:
                return
