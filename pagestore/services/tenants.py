"""The control plane's gRPC service for tenants, for the operator."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pagestore.control.plane import ControlPlane
from pagestore.control.records import Quota, TenantRecord
from pagestore.errors import InvalidInput, Unavailable
from pagestore.ids import TenantId
from pagestore.services.guard import caller
from pagestore.services.permissions import check_ids
from pagestore.v1 import tenant_pb2 as pb

MAX_TOKEN_SECONDS = 366 * 86400
MakeToken = Callable[[TenantId, float, float], str]
"""Of a tenant, from now (Unix seconds) on, for so many seconds."""


class TenantService:
    """The methods of TenantService, for GrpcServer.add_service."""

    def __init__(self, plane: ControlPlane, make_token: MakeToken) -> None:
        self._plane = plane
        self._tenants = plane.tenants
        self._make_token = make_token

    async def add_tenant(self, request: pb.AddTenantRequest, _: Any) -> pb.Tenant:
        record, created = await self._tenants.add(
            request.name,
            _quota(request.quota),
            self._plane.make_template,
            if_not_exists=request.if_not_exists,
        )
        return await self._described(record, created=created)

    async def get_tenant(self, request: pb.GetTenantRequest, _: Any) -> pb.Tenant:
        claims = caller.get()
        if claims is not None and claims.tenant is not None:
            # Of others he does not even learn whether they are there.
            own = self._tenants.known(claims.tenant)
            check_ids(claims, own.tenant.raw if own.name == request.name else b"", b"")
        record = self._tenants.known(request.name)
        return pb.Tenant(tenant_id=record.tenant.raw, name=record.name)

    async def list_tenants(self, request: pb.ListTenantsRequest, _: Any) -> pb.ListTenantsResponse:
        records = self._plane.state.view().tenants()
        return pb.ListTenantsResponse(tenants=[await self._described(item) for item in records])

    async def set_quota(self, request: pb.SetQuotaRequest, _: Any) -> pb.Tenant:
        fields = Quota.model_fields
        strange = [name for name in request.unbounded if name not in fields]
        if strange:
            raise InvalidInput(
                "INVALID_QUOTA", f"There is no quota {strange[0][:40]!r}.", ", ".join(fields)
            )
        given = _quota(request.quota).model_dump(exclude_none=True)
        unbounded = dict.fromkeys(request.unbounded)
        record = self._tenants.set_quota(
            request.name, lambda quota: quota.model_copy(update={**given, **unbounded})
        )
        return await self._described(record)

    async def remove_tenant(
        self, request: pb.RemoveTenantRequest, _: Any
    ) -> pb.RemoveTenantResponse:
        removed = self._tenants.remove(request.name, if_exists=request.if_exists)
        return pb.RemoveTenantResponse(removed=removed)

    async def make_tenant_token(
        self, request: pb.MakeTenantTokenRequest, _: Any
    ) -> pb.MakeTenantTokenResponse:
        record = self._tenants.known(request.name)
        if not 0 < request.seconds <= MAX_TOKEN_SECONDS:
            raise InvalidInput(
                "INVALID_LIFETIME", f"A tenant's token holds for 1 to {MAX_TOKEN_SECONDS} seconds."
            )
        token = self._make_token(record.tenant, time.time(), request.seconds)
        return pb.MakeTenantTokenResponse(token=token)

    async def _described(self, record: TenantRecord, *, created: bool = False) -> pb.Tenant:
        awake = self._plane.computes.awake(record.tenant)
        answer = pb.Tenant(
            tenant_id=record.tenant.raw,
            name=record.name,
            quota=pb.Quota(**record.quota.model_dump(exclude_none=True)),
            created_unix_micros=record.created_micros,
            created=created,
        )
        answer.used.databases = self._plane.state.view().count_databases(record.tenant)
        answer.used.awake = awake
        try:
            answer.used.own_bytes = await self._tenants.own_bytes(record.tenant)
        except Unavailable:
            return answer
        return answer


def _quota(message: pb.Quota) -> Quota:
    return Quota(**{field.name: value for field, value in message.ListFields()})
