"""Sessions of a compute that nobody has taken down: they did not come through the proxy."""

from __future__ import annotations

import asyncio

from pagestore.postgres.operator_session import operator_session

LEAVE_SECONDS = 1.0
"""For backends whose sessions the proxy has taken away to end."""
_POLL_SECONDS = 0.02
_STRANGERS = (
    "SELECT count(*) FROM pg_stat_activity AS a LEFT JOIN pg_stat_replication AS r USING (pid)"
    " WHERE a.pid <> pg_backend_pid() AND (a.backend_type = 'client backend'"
    " OR a.backend_type = 'walsender' AND r.sync_state = 'async'"
    " AND a.application_name !~ '^sk[0-9]')"
)
"""Safekeepers are nobody's."""


async def strangers(conninfo: str) -> int:
    """How many there are still after LEAVE_SECONDS; at once, where there are none."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + LEAVE_SECONDS
    async with await operator_session(conninfo) as session:
        while True:
            row = await (await session.execute(_STRANGERS)).fetchone()
            count = int(row[0]) if row else 0
            if not count or clock() > deadline:
                return count
            await asyncio.sleep(_POLL_SECONDS)
