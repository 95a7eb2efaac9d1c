"""The scaffolding of every server, over real gRPC on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pagestore._native import NativeError
from pagestore.client import AsyncPageClient, Rel
from pagestore.client.errors import from_rpc_error
from pagestore.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PagestoreError,
    ResourceExhausted,
    Unavailable,
)
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.services.server import GrpcServer, run
from pagestore.v1 import page_pb2 as pb
from tests import access
from tests.waiting import stays_on_loop

TIMELINE = TimelineId(bytes(16))
SERVICE = pb.DESCRIPTOR.services_by_name["PageService"]


class Pages:
    """Answers by what the relation's number says."""

    async def get_pages(self, requests: Any, context: Any) -> None:
        while (raw := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            request = pb.GetPagesRequest.FromString(raw)
            answer = pb.GetPagesResponse(request_id=request.request_id)
            if request.rel.rel_number == 404:
                answer.status.CopyFrom(pb.Status(code=5, reason="RELATION_NOT_FOUND", message="no"))
            elif request.rel.rel_number == 1:
                answer.pages.extend([b"short"])
            else:
                answer.pages.extend(bytes([b % 256]) * 8192 for b in request.blocks)
            await context.write(answer.SerializeToString())

    async def get_rel_size(self, request: pb.GetRelSizeRequest, context: Any) -> Any:
        raise {
            1: NotFound("RELATION_NOT_FOUND", "It is gone.", "Look elsewhere."),
            2: NativeError(-3, "layer x: checksum at 8192"),
            3: ZeroDivisionError("oh"),
            4: OSError(28, "No space left on device"),
        }[request.rel.rel_number]

    async def get_db_size(self, request: pb.GetDbSizeRequest, context: Any) -> Any:
        return pb.GetDbSizeResponse(bytes=request.db_oid * 8192)

    async def get_relation_map(self, request: Any, context: Any) -> Any:
        return pb.GetRelationMapResponse(data=bytes(512))

    async def get_slru_segment(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(3600)

    async def get_base_backup(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield pb.BaseBackupChunk(header=pb.BackupHeader(lsn=7))
        if request.lsn:
            raise InvalidInput("LSN_REQUIRED", "mid-stream")

    async def lease_lsn(self, request: Any, context: Any) -> Any:
        return pb.LeaseLsnResponse()


async def serve() -> tuple[GrpcServer, str]:
    server = GrpcServer(access.guard())
    server.add_service(SERVICE, Pages(), raw={"GetPages"})
    return server, await server.start("127.0.0.1:0")


def with_server(body: Any) -> None:
    async def main() -> None:
        server, address = await serve()
        async with AsyncPageClient(address, timeout=20) as client:
            await body(client)
        await server.stop(0)

    run(main())


async def error_of(call: Coroutine[Any, Any, Any]) -> PagestoreError:
    with pytest.raises(PagestoreError) as caught:
        await call
    return caught.value


def test_pings_that_come_all_at_once_are_answered() -> None:
    """A server that was stopped for a while finds the keepalives of all that time."""
    preface, settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    ping, answer = bytes([0, 0, 8, 6, 0]) + bytes(12), bytes([0, 0, 8, 6, 1])

    async def main() -> None:
        server, address = await serve()
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(preface + settings + 50 * ping)
        heard = b""
        async with asyncio.timeout(20):
            while heard.count(answer) < 50:
                more = await reader.read(65536)
                assert more, f"it hung up after {heard.count(answer)} answers"
                heard += more
        assert b"too_many_pings" not in heard
        writer.close()
        await server.stop(0)

    run(main())


def test_errors_reach_the_client_whole() -> None:
    async def body(client: AsyncPageClient) -> None:
        cases: list[tuple[int, type[PagestoreError], str]] = [
            (1, NotFound, "RELATION_NOT_FOUND"),
            (2, DataLoss, "LAYER_CORRUPT"),
            (3, PagestoreError, "INTERNAL"),
            (4, ResourceExhausted, "STORE_FULL"),
        ]
        for number, cls, reason in cases:
            call = client.get_rel_size(DEFAULT_TENANT, TIMELINE, 1, Rel(0, 0, number))
            error = await error_of(call)
            assert type(error) is cls
            assert error.reason == reason
        assert await client.get_db_size(DEFAULT_TENANT, TIMELINE, 1, 3) == 3 * 8192

    with_server(body)


def test_pages_and_their_in_band_errors_share_a_stream() -> None:
    async def body(client: AsyncPageClient) -> None:
        async def pages(number: int, blocks: list[int]) -> list[bytes]:
            return await client.get_pages(DEFAULT_TENANT, TIMELINE, 1, Rel(1663, 5, number), blocks)

        assert [p[0] for p in await pages(7, [3, 1, 2])] == [3, 1, 2]
        assert (await error_of(pages(404, [1]))).reason == "RELATION_NOT_FOUND"
        assert (await error_of(pages(1, [1]))).reason == "MALFORMED_RESPONSE"
        assert len(await pages(7, list(range(2500)))) == 2500
        assert (await error_of(pages(404, list(range(2500))))).reason == "RELATION_NOT_FOUND"
        assert len(await pages(7, [9])) == 1

    with_server(body)


def test_a_stream_that_fails_midway_says_why() -> None:
    async def body(client: AsyncPageClient) -> None:
        chunks = client.base_backup(DEFAULT_TENANT, TIMELINE, 9)
        assert (await anext(chunks)).header.lsn == 7
        assert (await error_of(anext(chunks))).reason == "LSN_REQUIRED"  # type: ignore[arg-type]
        chunks = client.base_backup(DEFAULT_TENANT, TIMELINE, 0)
        await anext(chunks)
        assert isinstance(await error_of(anext(chunks)), Unavailable)  # type: ignore[arg-type]

    with_server(body)


def test_bytes_that_do_not_parse_are_refused_and_the_server_lives() -> None:
    async def body(client: AsyncPageClient) -> None:
        async with access.channel(client.address) as channel:
            for name in ("GetRelSize", "GetDbSize"):
                call = channel.unary_unary(f"/pagestore.v1.PageService/{name}")
                with pytest.raises(grpc.RpcError) as caught:
                    await call(b"\xff\xff\xff")
                assert from_rpc_error(caught.value).reason == "MALFORMED_REQUEST"
            huge = channel.unary_unary("/pagestore.v1.PageService/GetDbSize")
            with pytest.raises(grpc.RpcError) as caught:
                await huge(bytes(65 << 20))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await client.get_db_size(DEFAULT_TENANT, TIMELINE, 1, 1) == 8192

    with_server(body)


def test_health_and_reflection_answer() -> None:
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    async def body(client: AsyncPageClient) -> None:
        async with access.channel(client.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            for name in ("", SERVICE.full_name):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING

        def reflected() -> Any:
            with access.blocking_channel(client.address) as channel:
                return ProtoReflectionDescriptorDatabase(channel).get_services()

        assert SERVICE.full_name in await asyncio.to_thread(reflected)

    with_server(body)


def test_two_servers_cannot_share_a_port() -> None:
    async def main() -> None:
        server, address = await serve()
        other = GrpcServer(access.guard())
        with pytest.raises(FailedPrecondition) as caught:
            await other.start(address)
        assert caught.value.reason == "ADDRESS_IN_USE"
        await server.stop(0)

    run(main())


def test_sigterm_stops_and_the_address_is_on_disk(tmp_path: Path) -> None:
    async def main() -> None:
        server = GrpcServer(access.guard())
        server.add_service(SERVICE, Pages(), raw={"GetPages"})
        address = await server.start("127.0.0.1:0", tmp_path / "new")
        assert (tmp_path / "new" / "address").read_text() == address + "\n"
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
        async with AsyncPageClient(address, timeout=0.2) as client:
            hanging = asyncio.ensure_future(
                client.get_slru_segment(DEFAULT_TENANT, TIMELINE, 1, pb.SLRU_KIND_XACT, 0)
            )
            await asyncio.wait_for(server.run_until_signal(grace=0.1), 10)
            assert isinstance(await error_of(asyncio.wait_for(hanging, 10)), PagestoreError)

    run(main())


def test_a_server_that_comes_back_is_found_by_a_waiting_client() -> None:
    async def main() -> None:
        server, address = await serve()
        async with AsyncPageClient(address, timeout=20) as client:
            args = (DEFAULT_TENANT, TIMELINE, 1, Rel(0, 0, 7), [5])
            assert await client.get_pages(*args)
            await server.stop(0)
            waiting = asyncio.ensure_future(client.get_pages(*args))
            assert await stays_on_loop(lambda: not waiting.done(), 0.2)
            again = GrpcServer(access.guard())
            again.add_service(SERVICE, Pages(), raw={"GetPages"})
            await again.start(address)
            assert (await waiting)[0][0] == 5
            await again.stop(0)
            client.timeout = 0.3
            assert isinstance(await error_of(client.get_pages(*args)), Unavailable)

    run(main())
