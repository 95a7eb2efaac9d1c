"""Whatever is asked of a safekeeper is done, or refused with a reason, and then changed nothing."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagestore.consensus.acceptor import State, WalPosition
from pagestore.errors import InvalidInput, PagestoreError, of_exception
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.pgformat.wal import lay_out, record_bytes
from pagestore.services.wal import WalService
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice import filling
from pagestore.walservice.safekeeper import Safekeeper, Settings
from pagestore.walservice.watch import TimelineKey

START = WalPosition(0x1000028, 0x1000000)
RECORD, RECORD_LSN, END = lay_out(
    START.flush_lsn, record_bytes(0, 0x20, 0, START.prev_record_lsn, b"x" * 50), system_id=9
)
KEY = TimelineKey(DEFAULT_TENANT, TimelineId(b"t" * 16))
METHODS = pb.DESCRIPTOR.services_by_name["WalService"].methods_by_name
ENDLESS = ("WatchCommits", "WatchPositions")

SPECIAL = (
    0,
    1,
    2,
    3,
    8,
    START.flush_lsn,
    END,
    END + 8,
    *(2**n - m for n in (32, 63, 64) for m in (0, 1, 8)),
)
NUMBERS = st.sampled_from(SPECIAL) | st.integers(0, 2**64 - 1)
BYTES = {
    "tenant_id": st.just(KEY.tenant.raw),
    "timeline_id": st.just(KEY.timeline.raw) | st.binary(max_size=17),
    "data": st.sampled_from([RECORD, RECORD[:-8], b"", b"\0" * 100]) | st.binary(max_size=200),
}
WORDS = {
    "address": st.sampled_from(["", "127.0.0.1:1", "localhost", "\n", "x" * 300, "a b:1"]),
    "conninfo": st.sampled_from(["host=/nowhere port=5432 user=a", "passfile=/etc/x", "service=a"])
    | st.text(max_size=60),
}
MOST = {"wait_ms": 2, "linger_ms": 2}


def field(item: FieldDescriptor) -> st.SearchStrategy[Any]:
    if item.message_type is not None:
        return messages(item.message_type)
    if item.type == item.TYPE_BOOL:
        return st.booleans()
    if item.type == item.TYPE_BYTES:
        return BYTES.get(item.name, st.binary(max_size=20))
    if item.type == item.TYPE_STRING:
        return WORDS.get(item.name, st.text(max_size=20))
    limit = MOST.get(item.name, 2**32 if item.type == item.TYPE_UINT32 else 2**64)
    return NUMBERS.map(lambda number: number % limit)


def messages(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    kind = message_factory.GetMessageClass(descriptor)
    fields = {
        item.name: st.lists(field(item), max_size=3) if item.is_repeated else field(item)
        for item in descriptor.fields
    }
    return st.fixed_dictionaries({}, optional=fields).map(lambda words: kind(**words))


def requests() -> st.SearchStrategy[tuple[str, Message]]:
    return st.one_of(
        *(
            st.tuples(st.just(name), messages(method.input_type))
            for name, method in METHODS.items()
            if name not in ENDLESS
        )
    )


async def call(service: WalService, name: str, request: Message) -> None:
    method = "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
    answer = getattr(service, method)(request, None)
    if inspect.isasyncgen(answer):
        async for _ in answer:
            pass
    else:
        await answer


async def attempt(service: WalService, name: str, request: Message) -> Exception | None:
    try:
        await call(service, name, request)
    except Exception as error:
        return error
    return None


async def state(keeper: Safekeeper) -> State | None:
    with contextlib.suppress(PagestoreError):
        async with keeper.use(KEY) as timeline:
            return timeline.state
    return None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "DONOR_SILENCE", 0.2)


@pytest.mark.usefixtures("quick")
@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sent=st.lists(requests(), min_size=1, max_size=12))
def test_any_request_is_done_or_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[str, Message]]
) -> None:
    async def main(data_dir: Path) -> None:
        keeper = await Safekeeper.open(data_dir, Settings())
        service = WalService(keeper)
        try:
            await keeper.create(KEY, START, 9)
            async with keeper.use(KEY) as timeline:
                await timeline.vote(1)
            for name, request in sent:
                before = await state(keeper), dict(keeper.book.addresses)
                refusal = await attempt(service, name, request)
                if refusal is not None:
                    assert of_exception(refusal).code != "INTERNAL", (name, request, refusal)
                    # What a Fill brought before it failed is kept; nobody gives anything here.
                    after = await state(keeper), dict(keeper.book.addresses)
                    assert after == before, (name, request)
        finally:
            await keeper.close()

    asyncio.run(main(tmp_path_factory.mktemp("border")))


TERMED = [
    pb.VoteRequest,
    pb.ElectRequest,
    pb.FillRequest,
    pb.ReadLogRequest,
    pb.ChangeMembersRequest,
    pb.AppendWalRequest,
    pb.AttachComputeRequest,
    pb.DetachComputeRequest,
]


@pytest.mark.parametrize("term", [0, 2**63, 2**64 - 1])
@pytest.mark.parametrize("kind", TERMED)
def test_a_term_that_is_none_fences_nobody(tmp_path: Path, kind: type[Message], term: int) -> None:
    """`Vote(term=0)` took the next term from a running compute, whoever sent it."""

    async def main() -> None:
        keeper = await Safekeeper.open(tmp_path, Settings())
        await keeper.create(KEY, START, 9)
        async with keeper.use(KEY) as timeline:
            await timeline.vote(4)
            before = timeline.state
        name = kind.DESCRIPTOR.name.removesuffix("Request")
        words = {"conninfo": "host=/nowhere port=1 user=a"} if name == "AttachCompute" else {}
        words |= {"data": RECORD, "lsn": START.flush_lsn} if name == "AppendWal" else {}
        request = kind(tenant_id=KEY.tenant.raw, timeline_id=KEY.timeline.raw, term=term, **words)
        with pytest.raises(InvalidInput) as refusal:
            await call(WalService(keeper), name, request)
        assert refusal.value.reason == "INVALID_TERM"
        assert await state(keeper) == before
        await keeper.close()

    asyncio.run(main())
