"""What the page server says of a page that it cannot make."""

from __future__ import annotations

from pagestore.services.page_reads import _naming_postgres
from pagestore.v1 import page_pb2 as pb


def response(reason: str, message: str) -> bytes:
    status = pb.Status(code=9, reason=reason, message=message)
    return pb.GetPagesResponse(request_id=7, status=status).SerializeToString()


def test_a_major_that_is_missing_is_named_with_its_package() -> None:
    told = pb.GetPagesResponse.FromString(
        _naming_postgres(response("POSTGRES_MISSING", "block 3: it needs redo"), 17)
    )
    assert told.request_id == 7
    assert told.status.message.startswith("block 3: it needs redo. ")
    assert "Postgres 17" in told.status.message
    assert "postgresql-17" in told.status.message


def test_any_other_answer_stays_as_it_is() -> None:
    pages = pb.GetPagesResponse(request_id=7, pages=[bytes(8192)]).SerializeToString()
    for answer in (pages, response("LAYER_CORRUPT", "a checksum")):
        assert _naming_postgres(answer, 17) == answer
