"""The verb on the systemd unit of an installation."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli.session import Data, Json, Session, session

if TYPE_CHECKING:
    from pagestore.installation.service import Service


class Action(StrEnum):
    INSTALL = "install"
    REMOVE = "remove"
    SHOW = "show"


def service(
    action: Annotated[Action, typer.Argument(metavar="install|remove|show", help="What to do.")],
    user: Annotated[
        bool | None,
        typer.Option("--user/--system", help="Of this user, or of the machine (root's default)."),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Have systemd start pagestore at boot, and again when it dies.

    Example: pagestore service install
    """
    with session(data, as_json) as run:
        from pagestore.installation.service import installed, service_of

        unit = service_of(run.installation, user=user)
        match action:
            case Action.INSTALL:
                _install(run, unit)
            case Action.REMOVE:
                _remove(run, unit)
            case Action.SHOW:
                run.answer(
                    {**_fields(installed(unit)), "text": unit.path.read_text()},
                    unit.path.read_text().rstrip("\n"),
                    f"{unit.path}: {unit.state()}",
                )


def _fields(unit: Service) -> dict[str, Any]:
    return {
        "unit": unit.name,
        "path": str(unit.path),
        "user": unit.user,
        "state": unit.state(),
    }


def _install(run: Session, unit: Service) -> None:
    from pagestore.installation import lifecycle

    lifecycle.prepare(run.installation)
    told = unit.install()
    whose = " --user" if unit.user else ""
    run.answer({**_fields(unit), "enabled": told}, str(unit.path), f"installed {unit.name}")
    if not told:
        run.remark("systemd does not run here: it takes the unit when it does")
    if run.installation.running_supervisor() is not None:
        run.remark(f"`pagestore down` first, then: systemctl{whose} start {unit.name}")
    else:
        run.remark(f"start it now: systemctl{whose} start {unit.name}")
    if unit.user:
        run.remark(
            "to have it at boot, and not only while you are logged in: loginctl enable-linger"
        )


def _remove(run: Session, unit: Service) -> None:
    removed = unit.remove()
    said = f"removed {unit.path}; what runs goes on" if removed else "there was no unit"
    run.answer({"unit": unit.name, "path": str(unit.path), "removed": removed}, "", said)
