"""Asking a part whether it serves, by grpc.health.v1; that needs no token."""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pagestore.client.channels import open_blocking_channel
from pagestore.client.credentials import Credentials


def is_serving(address: str, timeout: float = 2.0) -> bool:
    """
    Args:
        timeout: seconds to wait for the answer.
    """
    try:
        channel = open_blocking_channel(address, Credentials())
        with contextlib.closing(channel):
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    except grpc.RpcError:
        return False
