"""Verbs on roles of apps, over a client of the control plane."""

from __future__ import annotations

from typing import Any, TypeVar

from pagestore.client.control import ControlClient
from pagestore.v1 import role_pb2 as pb

_T = TypeVar("_T")


class RoleClient:
    """Of one database."""

    def __init__(self, control: ControlClient, database: str) -> None:
        self._control = control
        self._of: dict[str, Any] = {"tenant_id": control.tenant.raw, "database": database}

    def add(self, role: str) -> pb.RoleAccess:
        return self._call("AddRole", pb.AddRoleRequest(**self._of, role=role), pb.RoleAccess)

    def reset_password(self, role: str) -> pb.RoleAccess:
        request = pb.ResetRolePasswordRequest(**self._of, role=role)
        return self._call("ResetRolePassword", request, pb.RoleAccess)

    def roles(self) -> list[pb.Role]:
        request = pb.ListRolesRequest(**self._of)
        return [*self._call("ListRoles", request, pb.ListRolesResponse).roles]

    def remove(self, role: str, *, with_data: bool = False, if_exists: bool = False) -> bool:
        """Whether there was one."""
        request = pb.RemoveRoleRequest(
            **self._of, role=role, with_data=with_data, if_exists=if_exists
        )
        return self._call("RemoveRole", request, pb.RemoveRoleResponse).removed

    def _call(self, method: str, request: Any, answer: type[_T]) -> _T:
        return self._control.call(method, request, answer, "RoleService")
