"""The operator's verbs on tenants, over a client of the control plane."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pagestore.client.control import ControlClient
from pagestore.v1 import tenant_pb2 as pb

_T = TypeVar("_T")


class TenantClient:
    def __init__(self, control: ControlClient) -> None:
        self._control = control

    def add(self, name: str, quota: pb.Quota, *, if_not_exists: bool = False) -> pb.Tenant:
        request = pb.AddTenantRequest(name=name, quota=quota, if_not_exists=if_not_exists)
        return self._call("AddTenant", request, pb.Tenant)

    def get(self, name: str) -> pb.Tenant:
        """Its id."""
        return self._call("GetTenant", pb.GetTenantRequest(name=name), pb.Tenant)

    def tenants(self) -> list[pb.Tenant]:
        request = pb.ListTenantsRequest()
        return [*self._call("ListTenants", request, pb.ListTenantsResponse).tenants]

    def set_quota(self, name: str, quota: pb.Quota, unbounded: Iterable[str] = ()) -> pb.Tenant:
        """What is not set in `quota` stays; `unbounded` names fields that bound no more."""
        request = pb.SetQuotaRequest(name=name, quota=quota, unbounded=unbounded)
        return self._call("SetQuota", request, pb.Tenant)

    def remove(self, name: str, *, if_exists: bool = False) -> bool:
        """Whether there was one."""
        request = pb.RemoveTenantRequest(name=name, if_exists=if_exists)
        return self._call("RemoveTenant", request, pb.RemoveTenantResponse).removed

    def token(self, name: str, seconds: int) -> str:
        request = pb.MakeTenantTokenRequest(name=name, seconds=seconds)
        return self._call("MakeTenantToken", request, pb.MakeTenantTokenResponse).token

    def _call(self, method: str, request: Any, answer: type[_T]) -> _T:
        return self._control.call(method, request, answer, "TenantService")
