"""Every error class survives the trip through gRPC's rich status."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from pagestore import errors
from pagestore.client.errors import (
    DETAILS_TRAILER,
    code_number,
    error_from_code,
    from_rpc_error,
    to_trailers,
)
from pagestore.errors import PagestoreError


class Ended(grpc.RpcError):
    """What a finished call shows, made from an error's own trailers."""

    def __init__(self, code: str, details: str, trailers: Any) -> None:
        self._code, self._details, self._trailers = code, details, trailers

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode[self._code]

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailers


SUBCLASSES = [*errors.KINDS.values()]


@pytest.mark.parametrize("cls", SUBCLASSES)
def test_round_trip(cls: type[PagestoreError]) -> None:
    sent = cls("SOME_REASON", "what happened", "what to do")
    trailers = to_trailers(sent)
    assert trailers[0][0] == DETAILS_TRAILER
    got = from_rpc_error(Ended(sent.code, sent.message, trailers))
    assert type(got) is cls
    assert (got.reason, got.message, got.hint) == (sent.reason, sent.message, sent.hint)


def test_no_hint_stays_none() -> None:
    sent = errors.NotFound("X", "gone")
    assert from_rpc_error(Ended(sent.code, "gone", to_trailers(sent))).hint is None


def test_transport_failure_names_the_peer() -> None:
    got = from_rpc_error(Ended("UNAVAILABLE", "connect failed", ()), "127.0.0.1:1")
    assert isinstance(got, errors.Unavailable)
    assert "127.0.0.1:1" in got.message
    assert got.hint is not None


def test_long_texts_fit_in_trailers() -> None:
    trailers = to_trailers(errors.DataLoss("X", "m" * 100_000, "h" * 100_000))
    assert len(trailers[0][1]) < 8192


def test_unknown_codes_are_internal() -> None:
    assert type(error_from_code(9999, "R", "m")) is PagestoreError
    assert error_from_code(code_number("NOT_FOUND"), "", "m").reason == "NOT_FOUND"
