"""asyncpg: its pool, whose sessions it resets when they are given back, and one that listens."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import asyncpg

from tests.clients.client import CHANNEL, LARGE, ROWS, SESSIONS, WORK_MEM, Door


def facts(door: Door) -> dict[str, Any]:
    found: dict[str, Any] = {
        "host": door.host,
        "port": door.port,
        "user": door.user,
        "password": door.password,
        "database": door.database,
    }
    if door.certificate is not None:
        found["ssl"] = ssl.create_default_context(cafile=str(door.certificate))
        found["direct_tls"] = door.direct
    return found


class Pool:
    def __init__(self, door: Door) -> None:
        self._runner = asyncio.Runner()
        self._notified: list[str] = []
        self._runner.run(self._open(door))

    async def _open(self, door: Door) -> None:
        self._pool = await asyncpg.create_pool(
            **facts(door),
            min_size=SESSIONS,
            max_size=SESSIONS,
            server_settings={"work_mem": WORK_MEM},
        )
        self._listener = await asyncpg.connect(**facts(door))

    def exercise(self) -> None:
        self._runner.run(self._exercise())

    async def _exercise(self) -> None:
        async with self._pool.acquire() as session:
            assert await session.fetchval("SELECT $1::int + $2::int", 40, 2) == 42
            assert await session.fetch("SELECT * FROM generate_series(1, 3) AS a") == [
                (1,),
                (2,),
                (3,),
            ]
            await session.execute("CREATE TABLE asyncpg_rows (a int, b text)")
            records = [(number, "x" * 40) for number in range(ROWS)]
            await session.copy_records_to_table("asyncpg_rows", records=records)
            copied = bytearray()

            async def take(data: bytes) -> None:
                copied.extend(data)

            await session.copy_from_table("asyncpg_rows", output=take)
            assert copied.count(b"\n") == ROWS
            await session.executemany("INSERT INTO asyncpg_rows VALUES ($1, $2)", records[:500])
            assert len(await session.fetchval("SELECT repeat('z', $1)", LARGE)) == LARGE
            async with session.transaction():
                cursor = await session.cursor("SELECT a FROM asyncpg_rows")
                assert len(await cursor.fetch(1000)) == 1000
            await session.execute("DROP TABLE asyncpg_rows")
            try:
                await asyncio.wait_for(session.fetchval("SELECT pg_sleep(60)"), 0.3)
            except TimeoutError:  # after it has cancelled the query
                assert await session.fetchval("SELECT 1") == 1
            else:
                raise AssertionError("it was not cancelled")

    def settle(self) -> None:
        self._runner.run(self._settle())

    async def _settle(self) -> None:
        sessions = [await self._pool.acquire() for _ in range(SESSIONS)]
        for session in sessions:
            assert await session.fetchval("SELECT $1::int + 1", 1) == 2
            await self._pool.release(session)
        await self._listener.execute("SET app.tenant = 'ann'")
        await self._listener.add_listener(CHANNEL, self._hear)

    def _hear(self, session: object, process: int, channel: str, payload: object) -> None:
        self._notified.append(str(payload))

    def check(self) -> None:
        self._runner.run(self._check())

    async def _check(self) -> None:
        sessions = [await self._pool.acquire() for _ in range(SESSIONS)]
        for session in sessions:
            assert await session.fetchval("SELECT $1::int + 1", 41) == 42
            assert await session.fetchval("SHOW work_mem") == WORK_MEM
            await self._pool.release(session)
        assert await self._listener.fetchval("SHOW app.tenant") == "ann"

    def heard(self) -> list[str]:
        async def wait() -> None:
            async with asyncio.timeout(10):
                while not self._notified:
                    await asyncio.sleep(0.02)

        self._runner.run(wait())
        found, self._notified = self._notified, []
        return found

    def close(self) -> None:
        self._runner.run(self._listener.close())
        self._runner.run(self._pool.close())
        self._runner.close()
