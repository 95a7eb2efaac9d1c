"""Whose databases a verb is about: --tenant, PAGESTORE_TENANT, or the default tenant's."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from pagestore.ids import DEFAULT_TENANT_NAME

VARIABLE = "PAGESTORE_TENANT"
Tenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        metavar="NAME",
        help=f"Whose databases. Default: {VARIABLE}, or the tenant {DEFAULT_TENANT_NAME}.",
    ),
]
_typed: list[str] = []


def for_tenant(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with the option --tenant, which none of them has to hand on: its session asks
    for it (:func:`chosen`)."""
    known = inspect.signature(verb, eval_str=True)

    @functools.wraps(verb)
    def with_tenant(*arguments: Any, tenant: str | None = None, **options: Any) -> None:
        _typed[:] = [tenant] if tenant is not None else []
        verb(*arguments, **options)

    option = inspect.Parameter(
        "tenant", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Tenant
    )
    parameters = [*known.parameters.values(), option]
    marked: Any = with_tenant
    marked.__signature__ = known.replace(parameters=parameters)
    marked.__annotations__ = {item.name: item.annotation for item in parameters}
    return with_tenant


def chosen() -> str:
    """The tenant's name."""
    return _typed[0] if _typed else os.environ.get(VARIABLE) or DEFAULT_TENANT_NAME
