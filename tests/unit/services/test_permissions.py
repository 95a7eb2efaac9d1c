"""The table of who may call what, against the services that there are."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import MethodDescriptor

from pagestore import v1
from pagestore.errors import PermissionDenied
from pagestore.ids import TenantId, TimelineId
from pagestore.services.permissions import CHECKED_INSIDE, NEEDED, OPEN, check_ids, check_method
from pagestore.tokens import Claims, Scope
from pagestore.v1 import page_pb2 as pb

TENANT, TIMELINE = TenantId(b"t" * 16), TimelineId(b"l" * 16)
OPERATOR = Claims(Scope.OPERATOR, 1)
COMPUTE = Claims(Scope.TIMELINE, 1, 0, TENANT, TIMELINE)
OWNER = Claims(Scope.TENANT, 1, 0, TENANT)
GET_PAGES = "/pagestore.v1.PageService/GetPages"


def methods() -> Iterator[MethodDescriptor]:
    """Of every service in proto/."""
    for module in pkgutil.iter_modules(v1.__path__):
        if module.name.endswith("_pb2"):
            found = importlib.import_module(f"pagestore.v1.{module.name}")
            for service in found.DESCRIPTOR.services_by_name.values():
                yield from service.methods


METHODS = {f"/{m.containing_service.full_name}/{m.name}": m for m in methods()}


def reason(method: str, claims: Claims) -> str:
    with pytest.raises(PermissionDenied) as caught:
        check_method(method, claims)
    return caught.value.reason


def test_every_method_has_a_row_and_every_row_a_method() -> None:
    assert len(METHODS) > 50
    assert set(METHODS) == set(NEEDED), "see pagestore/services/permissions.py"


def test_a_tenants_token_opens_only_what_names_a_tenant() -> None:
    for path, needed in NEEDED.items():
        fields = METHODS[path].input_type.fields_by_name
        if path in CHECKED_INSIDE - {GET_PAGES}:
            continue
        if needed & {Scope.TENANT, Scope.TIMELINE}:
            assert "tenant_id" in fields, path
        if Scope.TIMELINE in needed:
            assert "timeline_id" in fields, path


def test_what_a_compute_holds_opens_reads_of_pages_and_nothing_else() -> None:
    opened = {path.rpartition("/")[2] for path, needed in NEEDED.items() if COMPUTE.scope in needed}
    assert opened == {"GetPages", "GetRelSize", "GetDbSize", "GetSlruSegment"}


def test_where_a_safekeeper_connects_to_is_said_by_nobody_but_who_starts_computes() -> None:
    path = "/pagestore.v1.WalService/AttachCompute"
    assert NEEDED[path] == {Scope.COMPUTE_AGENT}
    for scope in (Scope.PAGESERVER, Scope.SAFEKEEPER, Scope.PROXY):
        assert reason(path, Claims(scope, 1)) == "TOKEN_TOO_NARROW"


def test_a_method_without_a_row_is_open_to_nobody() -> None:
    for path in ("/pagestore.v1.PageService/Forgotten", "/other.Service/Method", ""):
        assert reason(path, OPERATOR) == "METHOD_UNLISTED"
    assert not any(path in OPEN for path in METHODS)


def test_ids_must_be_those_of_the_token() -> None:
    check_ids(OPERATOR, b"", b"anything")
    check_ids(OWNER, TENANT.raw, b"anything")
    check_ids(COMPUTE, TENANT.raw, TIMELINE.raw)
    for claims, tenant, timeline, told in (
        (OWNER, b"", b"", "OTHER_TENANT"),
        (OWNER, b"x" * 16, TIMELINE.raw, "OTHER_TENANT"),
        (COMPUTE, b"x" * 16, TIMELINE.raw, "OTHER_TENANT"),
        (COMPUTE, TENANT.raw, b"x" * 16, "OTHER_TIMELINE"),
        (COMPUTE, TENANT.raw, b"", "OTHER_TIMELINE"),
    ):
        with pytest.raises(PermissionDenied) as caught:
            check_ids(claims, tenant, timeline)
        assert caught.value.reason == told
    assert pb.GetPagesRequest.DESCRIPTOR is METHODS[GET_PAGES].input_type
