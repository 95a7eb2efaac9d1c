"""Who gets room for a response, in which order, and who must give way; with a clock of its own."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Coroutine

import pytest

from pagestore.services.connections import end_connection
from pagestore.services.page_responses import (
    COPIES,
    SLOWEST_BYTES,
    SMALL_BYTES,
    WRITE_SECONDS,
    Responses,
    Stream,
)

MIB = 1 << 20
TOTAL = 40 * MIB
LARGE = 8 * MIB  # of which two fit
SMALL = SMALL_BYTES // COPIES


def on_a_loop(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


class World:
    """Responses, a clock that is set by hand, and the peers whose connections were ended."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ended: list[str] = []
        self.responses = Responses(TOTAL, self._end, lambda: self.now)

    def _end(self, peer: str) -> bool:
        self.ended.append(peer)
        return True

    def stream(self, peer: str) -> Stream:
        return self.responses.stream(peer)

    async def made(self, peer: str, size: int) -> Stream:
        """A stream whose response is the peer's to take."""
        stream = self.stream(peer)
        await asyncio.wait_for(stream.reserve(size), 1)
        stream.writing()
        return stream

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds
        self.responses.look()


async def waiting(stream: Stream, size: int) -> asyncio.Task[None]:
    task = asyncio.create_task(stream.reserve(size))
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@on_a_loop
async def test_the_sum_is_never_above_the_total() -> None:
    world = World()
    streams = [world.stream(f"peer {n}") for n in range(200)]
    tasks = [asyncio.create_task(stream.reserve(LARGE)) for stream in streams]
    served = 0
    while served < len(streams):
        await settled()
        assert world.responses.large.held <= TOTAL
        holding = [stream for stream in streams if stream.held]
        assert 1 <= len(holding) <= 2
        for stream in holding:
            stream.give_back()
            served += 1
    assert all(task.done() for task in tasks)
    assert world.responses.large.held == 0
    assert not world.responses.large.holders


@on_a_loop
async def test_large_responses_leave_room_for_small_ones() -> None:
    world = World()
    for number in range(2):
        await world.made(f"slow {number}", LARGE)
    large = await waiting(world.stream("slow 3"), LARGE)
    for _ in range(100):
        small = await world.made("good", SMALL)
        small.give_back()
    assert not large.done()
    large.cancel()


@on_a_loop
async def test_one_response_fits_however_large() -> None:
    world = World()
    stream = await world.made("peer", 10 * TOTAL)
    stream.give_back()
    assert world.responses.large.held == 0


@on_a_loop
async def test_the_peer_that_holds_least_is_next() -> None:
    world = World()
    greedy = [await world.made("greedy", LARGE), await world.made("other", LARGE)]
    first = await waiting(world.stream("greedy"), LARGE)
    second = await waiting(world.stream("greedy"), LARGE)
    modest = await waiting(world.stream("modest"), LARGE)
    greedy[1].give_back()
    await settled()
    assert (first.done(), second.done(), modest.done()) == (False, False, True)
    greedy[0].give_back()
    await settled()
    assert (first.done(), second.done()) == (True, False)
    second.cancel()


@on_a_loop
async def test_a_stream_that_takes_its_responses_is_before_those_that_took_none() -> None:
    world = World()
    holders = [await world.made(f"slow {number}", LARGE) for number in range(2)]
    first = await waiting(world.stream("unknown"), LARGE)
    known = world.stream("known")
    known.written()
    second = await waiting(known, LARGE)
    holders[0].give_back()
    await settled()
    assert (first.done(), second.done()) == (False, True)
    first.cancel()


@on_a_loop
async def test_one_that_goes_while_it_waits_leaves_its_place() -> None:
    world = World()
    holders = [await world.made("slow", LARGE) for _ in range(2)]
    gone = await waiting(world.stream("gone"), LARGE)
    next_one = await waiting(world.stream("next"), LARGE)
    gone.cancel()
    holders[0].give_back()
    await settled()
    assert next_one.done()
    assert [place[0].peer for place in world.responses.large.waiting] == []


@on_a_loop
async def test_who_is_slow_loses_its_connection_only_when_others_wait() -> None:
    world = World()
    allowed = WRITE_SECONDS + LARGE / SLOWEST_BYTES
    slow = await world.made("slow", LARGE)
    making = world.stream("not its fault")  # its response is still being made
    await making.reserve(LARGE)
    world.pass_seconds(allowed * 10)
    assert world.ended == []
    waits = await waiting(world.stream("waits"), LARGE)
    world.pass_seconds(0)
    assert world.ended == ["slow"]
    slow.give_back()  # as its cancelled call does
    await settled()
    assert waits.done()


@on_a_loop
async def test_who_takes_its_response_in_time_is_left_alone() -> None:
    world = World()
    for number in range(2):
        await world.made(f"peer {number}", LARGE)
    waits = await waiting(world.stream("waits"), LARGE)
    world.pass_seconds(WRITE_SECONDS + LARGE / SLOWEST_BYTES - 0.1)
    assert world.ended == []
    waits.cancel()


@pytest.mark.parametrize(("host", "scheme"), [("127.0.0.1", "ipv4"), ("::1", "ipv6")])
def test_a_connection_is_ended_by_its_peers_name(host: str, scheme: str) -> None:
    family = socket.AF_INET if scheme == "ipv4" else socket.AF_INET6
    with socket.create_server((host, 0), family=family) as listener:
        ours = [socket.create_connection(listener.getsockname()[:2]) for _ in range(2)]
        theirs = [listener.accept()[0] for _ in range(2)]
        port = ours[0].getsockname()[1]
        name = f"{scheme}:{host}:{port}" if scheme == "ipv4" else f"ipv6:%5B::1%5D:{port}"
        assert end_connection(name)
        assert ours[0].recv(1) == b""
        theirs[1].sendall(b"x")
        assert ours[1].recv(1) == b"x"
        for one in (*ours, *theirs):
            one.close()
        assert not end_connection(name)
        assert not end_connection("unix:")
