"""Which call needs which token: one row for each method of each service.

The operator's token opens every method that has a row; a method without one is refused to
everybody, so that nothing is open because it was forgotten (`tests/unit/services/
test_permissions.py` walks all services). Add a row when you add a method.

A tenant's and a compute's token open a method only for what is theirs: the request's `tenant_id`,
for a compute's its `timeline_id` too, must be those that the token names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pagestore.errors import PermissionDenied
from pagestore.tokens import Claims, Scope

Needed = frozenset[Scope]
"""Whose token opens a method besides the operator's."""

_PAGESERVER, _SAFEKEEPER, _PROXY = Scope.PAGESERVER, Scope.SAFEKEEPER, Scope.PROXY
_EXPORTER = Scope.EXPORTER
_AGENT, _TENANT, _TIMELINE = Scope.COMPUTE_AGENT, Scope.TENANT, Scope.TIMELINE

OPEN = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})
"""To whoever asks, without a token."""
DESCRIBING = frozenset(
    {
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    }
)
"""To any token that holds: what is said is the same for all."""
CHECKED_INSIDE = frozenset(
    {"/pagestore.v1.PageService/GetPages", "/pagestore.v1.TenantService/GetTenant"}
)
"""Methods that check themselves whether what is named is the caller's (:func:`check_ids`): one sees
bytes, the other a name."""


def _rows(service: str, rows: Mapping[str, Iterable[Scope]]) -> dict[str, Needed]:
    return {f"/pagestore.v1.{service}/{name}": frozenset(needs) for name, needs in rows.items()}


NEEDED: Mapping[str, Needed] = {
    **_rows(
        "PageService",
        {
            "GetPages": [_TIMELINE, _AGENT],
            "GetRelSize": [_TIMELINE, _AGENT],
            "GetDbSize": [_TIMELINE, _AGENT],
            "GetSlruSegment": [_TIMELINE, _AGENT],
            # Who may enter a compute is read by its host (agent/entering.py).
            "GetRelationMap": [_AGENT],
            "GetBaseBackup": [_AGENT],
            "LeaseLsn": [_AGENT],
        },
    ),
    **_rows(
        "TimelineService",
        {
            "CreateTimeline": [],
            "DeleteTimeline": [],
            "GetTimeline": [_AGENT],
            "ListTimelines": [],
            "ImportTimeline": [_AGENT],
            "GetLsnByTime": [],
            "GetLastCommit": [],
            "FlushTimeline": [],
            "VerifyLayers": [],
            "SetRetention": [],
            "DetachTimeline": [],
            "ScrubStore": [],
            "GetUpkeep": [],
            "GetChangedBlocks": [],
        },
    ),
    **_rows(
        "WalService",
        {
            "CreateTimeline": [_AGENT],
            "DeleteTimeline": [],
            "GetStatus": [_PAGESERVER, _SAFEKEEPER, _AGENT],
            "Vote": [_AGENT],
            "AppendWal": [_AGENT],
            # Whoever can say where a safekeeper connects to: nobody but who starts computes.
            "AttachCompute": [_AGENT],
            "DetachCompute": [_AGENT],
            "ReadWal": [_PAGESERVER, _AGENT],
            "WatchCommits": [_PAGESERVER],
            "AlignLsn": [_AGENT],
            "Elect": [_AGENT],
            "Fill": [_AGENT],
            "ReadLog": [_SAFEKEEPER],
            "WatchPositions": [_SAFEKEEPER],
            "ReleaseWal": [_PAGESERVER],
            "ChangeMembers": [_AGENT],
        },
    ),
    **_rows(
        "ControlService",
        {
            "CreateDatabase": [_TENANT],
            "BranchDatabase": [_TENANT],
            "GetDatabase": [_TENANT],
            "ListDatabases": [_TENANT],
            "WatchDatabases": [_TENANT],
            "DeleteDatabase": [_TENANT],
            "RenameDatabase": [_TENANT],
            "CreateCheckpoint": [_TENANT],
            "DeleteCheckpoint": [_TENANT],
            "RestoreDatabase": [_TENANT],
            "ResetDatabase": [_TENANT],
            "PromoteDatabase": [_TENANT],
            "UndoDatabase": [_TENANT],
            "RedoDatabase": [_TENANT],
            "UpgradeDatabase": [_TENANT],
            "ListLog": [_TENANT],
            "WakeDatabase": [_TENANT],
            "StopDatabase": [_TENANT],
            "GetSettings": [_TENANT],
            "ChangeSettings": [_TENANT],
            "ChangeIdle": [_TENANT],
            "KeepDatabase": [_TENANT],
            "ChangeRetention": [_TENANT],
            "DetachDatabase": [_TENANT],
            "ResetPassword": [_TENANT],
            "StopComputes": [],
            "BeginImport": [],
            "RegisterDatabase": [],
            "ResolvePoint": [_TENANT],
            "GetSystemStatus": [],
            "GetMembersStatus": [],
        },
    ),
    **_rows(
        "PlaceService",
        {
            "LookUpRole": [_PROXY],
            "FindPlace": [_PROXY],
            "StartPlace": [_PROXY],
            "StopPlace": [_PROXY],
            "ListAwakePlaces": [_PROXY],
            "CountQueries": [_PROXY],
        },
    ),
    **_rows(
        "TenantService",
        {
            "AddTenant": [],
            "GetTenant": [_TENANT],
            "ListTenants": [],
            "SetQuota": [],
            "RemoveTenant": [],
            "MakeTenantToken": [],
        },
    ),
    **_rows(
        "RoleService",
        {
            "AddRole": [_TENANT],
            "ResetRolePassword": [_TENANT],
            "ListRoles": [_TENANT],
            "RemoveRole": [_TENANT],
        },
    ),
    # The control plane shows the operator's.
    **_rows(
        "ComputeService",
        {
            "StartCompute": [],
            "StopCompute": [],
            "DiscardCompute": [],
            "WatchComputes": [],
            "MeasureComputes": [],
            "GetComputeSettings": [],
            "ChangeComputeSettings": [],
            "SetOwner": [],
            "GetEntry": [],
            "CountStrangers": [],
            "AddAppRole": [],
            "ResetAppRole": [],
            "ListAppRoles": [],
            "RemoveAppRole": [],
            "MakeTemplate": [],
            "UpgradeTimeline": [],
            "ForgetTimeline": [],
            "GrantGenerations": [],
        },
    ),
    **_rows("NameService", {"TellNames": []}),
    **_rows("MetricsService", {"GetMetrics": [_EXPORTER]}),
    **_rows("UsageService", {"GetUsage": [_TENANT], "GetUsageOfAll": []}),
    **_rows("ProxyService", {"CarryOut": [], "GetProxyStatus": []}),
}


def check_method(method: str, claims: Claims) -> None:
    """
    Raises:
        PermissionDenied: METHOD_UNLISTED, TOKEN_TOO_NARROW.
    """
    if method in DESCRIBING:
        return
    needed = NEEDED.get(method)
    if needed is None:
        raise PermissionDenied(
            "METHOD_UNLISTED",
            f"Nobody may call {method}: no row says which token it needs.",
            "If it is a method of pagestore, add its row to pagestore/services/permissions.py.",
        )
    if claims.scope is not Scope.OPERATOR and claims.scope not in needed:
        raise PermissionDenied(
            "TOKEN_TOO_NARROW",
            f"{method} is not open to the token of {claims.whose}.",
            "It needs the operator's: on its machine, DATA/tokens/operator.",
        )


def check_request(claims: Claims, request: Any) -> None:
    """That what a request names is the caller's; of a message with ids."""
    if claims.tenant is None:
        return
    timeline = request.timeline_id if claims.timeline is not None else b""
    check_ids(claims, request.tenant_id, timeline)


def check_ids(claims: Claims, tenant: bytes, timeline: bytes) -> None:
    """
    Raises:
        PermissionDenied: OTHER_TENANT, OTHER_TIMELINE.
    """
    if claims.tenant is not None and claims.tenant.raw != tenant:
        raise PermissionDenied(
            "OTHER_TENANT", f"The token of {claims.whose} is not one of the tenant that was named."
        )
    if claims.timeline is not None and claims.timeline.raw != timeline:
        raise PermissionDenied(
            "OTHER_TIMELINE",
            f"The token of {claims.whose} is for timeline {claims.timeline} alone.",
            "What a timeline inherits is read by its own name.",
        )
