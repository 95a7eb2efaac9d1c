"""A safekeeper asked from a host of its own: a process, since grpc's threads stay where the first
of them was.

    python -m tests.integration.safekeeper_asked mislead PLACE TENANT TIMELINE TERM ADDRESS
    python -m tests.integration.safekeeper_asked follows PLACE TENANT TIMELINE
"""

from __future__ import annotations

import asyncio
import sys

from pagestore.client.wal import WalClient
from pagestore.ids import TenantId, TimelineId


async def mislead(client: WalClient, key: tuple[TenantId, TimelineId], term: str, to: str) -> str:
    """Tells it another address of a term's compute; what it complains of then."""
    await client.attach_compute(*key, int(term), to, 0)
    while not (status := await client.get_status(*key)).last_error:
        await asyncio.sleep(0.01)
    return str(status.last_error)


async def follows(client: WalClient, key: tuple[TenantId, TimelineId]) -> str:
    return "yes" if (await client.get_status(*key)).receiving else "no"


async def main(verb: str, place: str, tenant: str, timeline: str, *more: str) -> str:
    key = TenantId.parse(tenant), TimelineId.parse(timeline)
    async with WalClient(place) as client:
        return await {"mislead": mislead, "follows": follows}[verb](client, key, *more)


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(main(*sys.argv[1:])))
