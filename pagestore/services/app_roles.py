"""The control plane's gRPC service for roles of apps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pagestore.client.names import role_name
from pagestore.client.urls import with_login
from pagestore.control.app_roles import AppRoles
from pagestore.control.records import DatabaseRecord
from pagestore.ids import TenantId
from pagestore.v1 import role_pb2 as pb


class RoleService:
    """The methods of RoleService, for GrpcServer.add_service.

    Args:
        tenant_of: the tenant that a request names, if there is one.
        url_of: a database's URL, for nobody in particular.
    """

    def __init__(
        self,
        roles: AppRoles,
        tenant_of: Callable[[Any], TenantId],
        url_of: Callable[[DatabaseRecord], str],
    ) -> None:
        self._roles = roles
        self._tenant_of = tenant_of
        self._url_of = url_of

    async def add_role(self, request: pb.AddRoleRequest, _: Any) -> pb.RoleAccess:
        tenant = self._tenant_of(request)
        record, secret = await self._roles.add(tenant, request.database, request.role)
        return self._access(record, request.role, secret)

    async def reset_role_password(
        self, request: pb.ResetRolePasswordRequest, _: Any
    ) -> pb.RoleAccess:
        tenant = self._tenant_of(request)
        record, secret = await self._roles.reset(tenant, request.database, request.role)
        return self._access(record, request.role, secret)

    async def list_roles(self, request: pb.ListRolesRequest, _: Any) -> pb.ListRolesResponse:
        found = await self._roles.listed(self._tenant_of(request), request.database)
        answer = pb.ListRolesResponse()
        for role in found:
            answer.roles.add(
                name=role.name,
                owns_schema=role.owns_schema,
                may_log_in=role.may_log_in,
                tables=role.tables,
            )
        return answer

    async def remove_role(self, request: pb.RemoveRoleRequest, _: Any) -> pb.RemoveRoleResponse:
        removed = await self._roles.remove(
            self._tenant_of(request),
            request.database,
            request.role,
            with_data=request.with_data,
            if_exists=request.if_exists,
        )
        return pb.RemoveRoleResponse(removed=removed)

    def _access(self, record: DatabaseRecord, role: str, secret: str) -> pb.RoleAccess:
        role = role_name(role)
        return pb.RoleAccess(role=role, url=with_login(self._url_of(record), role, secret))
