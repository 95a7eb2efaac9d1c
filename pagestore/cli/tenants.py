"""The verb on tenants: who owns databases, and how much each may have."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli.session import Data, Json, Session, human_bytes, session
from pagestore.cli.watching import watchable
from pagestore.client.byte_counts import byte_count
from pagestore.errors import InvalidInput

if TYPE_CHECKING:
    from pagestore.client.tenants import TenantClient
    from pagestore.v1 import tenant_pb2 as pb

DAY_SECONDS = 86_400
_FIELDS = ("databases", "awake", "own_bytes")
NO_BOUND = "none"


class Action(StrEnum):
    ADD = "add"
    SET = "set"
    LS = "ls"
    RM = "rm"
    TOKEN = "token"  # noqa: S105


@watchable(lambda options: options.get("action") is Action.LS)
def tenant(
    action: Annotated[Action, typer.Argument(metavar="add|set|ls|rm|token", help="What to do.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The tenant.")] = None,
    databases: Annotated[
        str | None, typer.Option(metavar="N", help="At most so many databases; none: any number.")
    ] = None,
    awake: Annotated[
        str | None, typer.Option(metavar="N", help="At most so many awake at a time, or none.")
    ] = None,
    own_bytes: Annotated[
        str | None,
        typer.Option("--bytes", metavar="SIZE", help="At most so much in the store: 10G, or none."),
    ] = None,
    hold: Annotated[
        int, typer.Option("--days", min=1, max=366, help="For how long a token holds.")
    ] = 30,
    if_exists: Annotated[
        bool, typer.Option("--if-exists", help="rm: succeed all the same.")
    ] = False,
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="add: succeed all the same.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Add, bound, list and remove tenants, who own databases; make tokens for them.

    Example: pagestore tenant add acme --databases 10 --awake 3 --bytes 20G
    """
    with session(data, as_json) as run:
        from pagestore.client.tenants import TenantClient

        tenants = TenantClient(run.control)
        given = dict(zip(_FIELDS, (databases, awake, own_bytes), strict=True))
        quota, unbounded = quota_of(given)
        match action:
            case Action.LS:
                _list(run, tenants)
            case Action.ADD:
                made = tenants.add(_named(name), quota, if_not_exists=if_not_exists)
                word = "added" if made.created else "there is"
                run.answer({**tenant_fields(made), "created": made.created}, "", f"{word} {name}")
            case Action.SET:
                done = tenants.set_quota(_named(name), quota, unbounded)
                run.answer(tenant_fields(done), "", f"{name} may have {_words(done.quota)}")
            case Action.RM:
                gone = tenants.remove(_named(name), if_exists=if_exists)
                run.answer({"removed": gone}, "", f"removed {name if gone else 'nothing'}")
            case Action.TOKEN:
                token = tenants.token(_named(name), hold * DAY_SECONDS)
                run.answer({"tenant": name, "token": token}, token)


def quota_of(given: dict[str, str | None]) -> tuple[pb.Quota, list[str]]:
    """A quota of what is a number, and the names of what shall be bounded no more.

    Raises:
        InvalidInput: INVALID_QUOTA.
    """
    from pagestore.v1 import tenant_pb2

    numbers = {
        field: _number(text) for field, text in given.items() if text not in (None, NO_BOUND)
    }
    unbounded = [field for field, text in given.items() if text == NO_BOUND]
    return tenant_pb2.Quota(**numbers), unbounded


def tenant_fields(tenant: pb.Tenant) -> dict[str, Any]:
    return {
        "name": tenant.name,
        "tenant_id": tenant.tenant_id.hex(),
        "quota": {field: _set(tenant.quota, field) for field in _FIELDS},
        "used": {field: _set(tenant.used, field) for field in _FIELDS},
    }


def _list(run: Session, tenants: TenantClient) -> None:
    found = tenants.tenants()
    if run.as_json:
        run.answer({"tenants": [tenant_fields(item) for item in found]})
        return
    rows = [(item.name, *(_cell(item, field) for field in _FIELDS)) for item in found]
    run.table(("name", "databases", "awake", "own bytes"), rows)


def _cell(tenant: pb.Tenant, field: str) -> str:
    shown = human_bytes if field == "own_bytes" else str
    used, most = _set(tenant.used, field), _set(tenant.quota, field)
    has = "?" if used is None else shown(used)
    return has if most is None else f"{has} of {shown(most)}"


def _words(quota: pb.Quota) -> str:
    return ", ".join(f"{field} {_set(quota, field) or 'as there is'}" for field in _FIELDS)


def _set(quota: pb.Quota, field: Any) -> int | None:
    return int(getattr(quota, field)) if quota.HasField(field) else None


def _number(text: str | None) -> int:
    """`10G`, `10GiB` or `10737418240`."""
    found = byte_count(text or "")
    if found is None:
        raise InvalidInput(
            "INVALID_QUOTA", f"{text!r} is no bound.", "A number, for bytes also 500M or 10G; none."
        )
    return found


def _named(name: str | None) -> str:
    if name is None:
        raise InvalidInput("USAGE", "Which tenant?", "pagestore tenant ls lists them.")
    return name
