"""Errors across gRPC, both ways.

A failed call carries the google.rpc.Code that its PagestoreError names, the message as the
call's details, and a google.rpc.Status in the trailer ``grpc-status-details-bin`` with one
ErrorInfo: ``reason`` (stable, see docs/formats/reasons.md), ``domain`` "pagestore", and the
hint in ``metadata``. In-band statuses of GetPages carry code, reason and message.

google.rpc's messages are loaded by the first error: a command that has none need not wait for them.
Its codes are gRPC's own, by name and number.
"""

from __future__ import annotations

from typing import Any

import grpc

from pagestore.errors import KINDS, PagestoreError

DOMAIN = "pagestore"
DETAILS_TRAILER = "grpc-status-details-bin"
MAX_TEXT = 2000
"""Characters of a message or hint that travel: trailers have a bounded size."""

_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}
_TRANSPORT_HINTS = {
    "UNAVAILABLE": "Is the service running at that address? `pagestore status` shows it.",
    "DEADLINE_EXCEEDED": "The service did not answer in time; try again, or allow more time.",
    "UNIMPLEMENTED": "The service at that address is another one, or of another version.",
}


def code_number(name: str) -> int:
    """A google.rpc.Code's number from its name."""
    return int(grpc.StatusCode[name].value[0])


def error_from_code(
    code: int, reason: str, message: str, hint: str | None = None
) -> PagestoreError:
    """The PagestoreError of a google.rpc.Code's number."""
    name = _NAMES.get(code, "INTERNAL")
    return KINDS.get(name, PagestoreError)(reason or name, message, hint)


def to_status(error: PagestoreError) -> Any:
    """A google.rpc.Status with one ErrorInfo."""
    from google.rpc import error_details_pb2, status_pb2

    status = status_pb2.Status(code=code_number(error.code), message=error.message[:MAX_TEXT])
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    if error.hint:
        info.metadata["hint"] = error.hint[:MAX_TEXT]
    status.details.add().Pack(info)
    return status


def to_trailers(error: PagestoreError) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata of a call that ends with `error`."""
    return ((DETAILS_TRAILER, to_status(error).SerializeToString()),)


def from_rpc_error(error: grpc.RpcError, peer: str = "") -> PagestoreError:
    """The PagestoreError that a service answered with, or that the transport amounts to.

    Args:
        error: from a sync or an aio call.
        peer: the address called, named when the service never answered.
    """
    info = _error_info(error)
    code = error.code().value[0]
    details = error.details() or ""
    if info is not None:
        return error_from_code(code, info.reason, details, info.metadata.get("hint"))
    name = _NAMES.get(code, "INTERNAL")
    where = f" (calling {peer})" if peer else ""
    return error_from_code(code, name, f"{details or name}{where}", _TRANSPORT_HINTS.get(name))


def _error_info(error: grpc.RpcError) -> Any:
    from google.rpc import error_details_pb2, status_pb2

    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key != DETAILS_TRAILER:
            continue
        status = status_pb2.Status.FromString(value)
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                return info
    return None
