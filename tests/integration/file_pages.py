"""A PageService over gRPC that serves one stopped cluster's files at one LSN.

It stands in for the page server where a test is about the other side of the wire: the
answers are real, but there is no ingest, so only a first start can be served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from pagestore.client.page import AsyncPageClient
from pagestore.pgformat.layout import PAGE_SIZE
from pagestore.postgres.cluster import open_cluster
from pagestore.postgres.remote_map import Fork
from pagestore.services.server import GrpcServer
from pagestore.v1 import page_pb2 as pb
from tests import access
from tests.integration.local_backup import backup_chunks


class FilePages:
    """PageService's methods, for GrpcServer.

    Args:
        hot: whether every page travels with the base backup, or none.
    """

    def __init__(self, pgdata: Path, hot: bool) -> None:
        self.pgdata = pgdata
        self.hot = hot
        self.cluster = open_cluster(pgdata)
        self.pages_read = 0

    async def get_base_backup(
        self, request: pb.GetBaseBackupRequest, context: Any
    ) -> AsyncIterator[pb.BaseBackupChunk]:
        for chunk in backup_chunks(self.pgdata, lambda rel: request.hot_pages and self.hot):
            yield chunk

    async def get_pages(
        self, requests: AsyncIterator[pb.GetPagesRequest], context: Any
    ) -> AsyncIterator[pb.GetPagesResponse]:
        async for request in requests:
            rel = request.rel
            fork = (rel.spc_oid, rel.db_oid, rel.rel_number, rel.fork)
            self.pages_read += len(request.blocks)
            yield pb.GetPagesResponse(
                request_id=request.request_id,
                pages=[self.page(fork, block) for block in request.blocks],
            )

    async def lease_lsn(self, request: pb.LeaseLsnRequest, context: Any) -> pb.LeaseLsnResponse:
        return pb.LeaseLsnResponse(expires_unix_seconds=2**40)

    async def get_rel_size(self, request: pb.GetRelSizeRequest, context: Any) -> object:
        raise NotImplementedError

    get_db_size = get_slru_segment = get_relation_map = get_rel_size

    def page(self, fork: Fork, block: int) -> bytes:
        with self.cluster.relations[fork].paths[0].open("rb") as file:
            file.seek(block * PAGE_SIZE)
            return file.read(PAGE_SIZE)


async def _get_timeline(request: pb.GetTimelineRequest, context: Any) -> pb.TimelineInfo:
    """Nothing is taken in."""
    return pb.TimelineInfo()


_TIMELINES = grpc.method_handlers_generic_handler(
    "pagestore.v1.TimelineService",
    {
        "GetTimeline": grpc.unary_unary_rpc_method_handler(
            _get_timeline,
            request_deserializer=pb.GetTimelineRequest.FromString,
            response_serializer=pb.TimelineInfo.SerializeToString,
        )
    },
)


@asynccontextmanager
async def file_pages(
    pgdata: Path, data_dir: Path, *, hot: bool = True
) -> AsyncIterator[AsyncPageClient]:
    """A client of a served cluster."""
    server = GrpcServer(access.guard())
    server.add_service(pb.DESCRIPTOR.services_by_name["PageService"], FilePages(pgdata, hot))
    server.grpc.add_generic_rpc_handlers((_TIMELINES,))
    address = await server.start("127.0.0.1:0", data_dir)
    try:
        async with AsyncPageClient(address) as client:
            yield client
    finally:
        await server.stop()
