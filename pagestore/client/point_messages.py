"""Points as a user writes them (points.py), as the control plane takes them."""

from __future__ import annotations

from pagestore.client import points
from pagestore.v1 import control_pb2 as pb


def point_message(text: str | None) -> pb.Point | None:
    """None for the head, which needs no point.

    Raises:
        InvalidInput, OutOfRange: as :func:`pagestore.client.points.parse_point`.
    """
    match points.parse_point("head" if text is None else text):
        case points.AtLsn(lsn):
            return pb.Point(lsn=lsn)
        case points.AtTime(unix_micros):
            return pb.Point(unix_micros=unix_micros)
        case points.AtCheckpoint(name, or_micros):
            return pb.Point(checkpoint=name, or_unix_micros=or_micros or 0)
    return None
