"""The verb on roles of apps that share one database."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pagestore.cli.session import Data, Json, Name, session
from pagestore.errors import InvalidInput


class Action(StrEnum):
    ADD = "add"
    LS = "ls"
    RM = "rm"
    PASSWORD = "password"  # noqa: S105


def role(
    action: Annotated[Action, typer.Argument(metavar="add|ls|rm|password", help="What to do.")],
    name: Name,
    who: Annotated[str | None, typer.Argument(metavar="[ROLE]", help="The role.")] = None,
    with_data: Annotated[
        bool, typer.Option("--with-data", help="rm: and what is in its schema.")
    ] = False,
    if_exists: Annotated[
        bool, typer.Option("--if-exists", help="rm: succeed when there is none.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Let several apps share one database: a role with a schema of its own for each.

    It sees no other app's. The URL, with a password that is told this once, is printed; `password`
    makes another one.

    Example: pagestore role add app web
    """
    with session(data, as_json) as run:
        from pagestore.client.roles import RoleClient

        roles = RoleClient(run.control, name)
        if action is Action.LS:
            found = roles.roles()
            rows = [(item.name, item.owns_schema, item.may_log_in, item.tables) for item in found]
            columns = ("role", "schema", "login", "tables")
            if as_json:
                run.answer({"roles": [dict(zip(columns, row, strict=True)) for row in rows]})
            else:
                words = [(a, _yes(b), _yes(c), str(d)) for a, b, c, d in rows]
                run.table(columns, words)
            return
        if who is None:
            raise InvalidInput("USAGE", "Which role?", f"pagestore role {action} {name} ROLE")
        if action is Action.RM:
            gone = roles.remove(who, with_data=with_data, if_exists=if_exists)
            run.answer({"removed": gone}, "", f"removed {who if gone else 'nothing'}")
            return
        made = roles.add(who) if action is Action.ADD else roles.reset_password(who)
        word = "added" if action is Action.ADD else "another password for"
        run.answer({"name": name, "role": made.role, "url": made.url}, made.url, f"{word} {who}")


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"
