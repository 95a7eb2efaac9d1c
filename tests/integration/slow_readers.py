"""Clients that ask for much and take nothing: ADDRESS CONNECTIONS STREAMS BLOCKS.

Each stream asks once for so many blocks of the store of page_store.py and never reads its answer.
Prints "asked" when all have asked.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import grpc

from pagestore.client import credentials
from pagestore.client.channels import Channel
from pagestore.ids import DEFAULT_TENANT
from pagestore.v1 import page_pb2 as pb
from tests.integration.page_store import END_LSN, IMAGES, TIMELINE

METHOD = "/pagestore.v1.PageService/GetPages"


def ask(request: bytes) -> Iterator[bytes]:
    yield request
    threading.Event().wait()


def main(address: str, connections: int, streams: int, blocks: int) -> None:
    request = pb.GetPagesRequest(
        request_id=1,
        tenant_id=DEFAULT_TENANT.raw,
        timeline_id=TIMELINE.raw,
        read_lsn=pb.ReadLsn(request_lsn=END_LSN),
        rel=pb.RelTag(spc_oid=IMAGES.spc_oid, db_oid=IMAGES.db_oid, rel_number=IMAGES.rel_number),
        blocks=range(blocks),
    ).SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection each
    channels = [
        Channel(grpc.insecure_channel(address, options=options), credentials.default())
        for _ in range(connections)
    ]
    calls = [
        channel.stream_stream(METHOD)(ask(request)) for channel in channels for _ in range(streams)
    ]
    sys.stdout.write("asked\n")
    sys.stdout.flush()
    threading.Event().wait()
    del calls  # until here they stand


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
