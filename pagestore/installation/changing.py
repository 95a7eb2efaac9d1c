"""Changes of the safekeepers, as an installation's file says them.

A change is begun by writing it there; :func:`reload` has the supervisor take it, the control plane
brings every timeline over, and :func:`remove_part` takes what is left of one that went.
"""

from __future__ import annotations

import os
import signal

from pagestore.errors import FailedPrecondition, InvalidInput, NotFound
from pagestore.installation import safekeeper_sections
from pagestore.installation.config import SafekeeperConfig
from pagestore.installation.layout import Installation, not_running
from pagestore.installation.ports import one_more


def begin_replacement(installation: Installation, number: int, place: str | None) -> None:
    """
    Args:
        place: ID=HOST:PORT of the new one; on this machine, with the next number, by default.

    Raises:
        NotFound: NO_SUCH_SAFEKEEPER.
        FailedPrecondition: CHANGE_UNDER_WAY.
        InvalidInput: INVALID_SETTING.
    """
    by_id = {item.id: item for item in installation.config.safekeeper_parts.values()}
    if number not in by_id:
        raise NotFound(
            "NO_SUCH_SAFEKEEPER",
            f"There is no safekeeper {number}.",
            "`pagestore safekeepers` shows them.",
        )
    if by_id[number].leaving:
        return
    _refuse_another(installation)
    if place is None:
        new = SafekeeperConfig(id=_next_id(installation), listen=_free_listen(installation, []))
    else:
        other, equals, address = place.partition("=")
        if not equals or not other.isdigit() or int(other) in by_id or ":" not in address:
            raise InvalidInput("INVALID_SETTING", f"{place!r} is not ID=HOST:PORT of another one.")
        new = SafekeeperConfig(id=int(other), listen=address, elsewhere=True)
    installation.note_safekeeper_id(new.id)
    safekeeper_sections.change(installation.config_file, add=[new], leave=number)


def begin_growth(installation: Installation, count: int) -> None:
    """
    Raises:
        FailedPrecondition: OTHER_SAFEKEEPERS, CHANGE_UNDER_WAY.
    """
    _refuse_another(installation)
    staying = installation.config.staying
    if len(staying) > count:
        raise FailedPrecondition(
            "OTHER_SAFEKEEPERS", f"There are {len(staying)} safekeepers already, not fewer."
        )
    first = _next_id(installation)
    new: list[SafekeeperConfig] = []
    for number in range(first, first + count - len(staying)):
        listen = _free_listen(installation, [item.listen for item in new])
        new.append(SafekeeperConfig(id=number, listen=listen))
        installation.note_safekeeper_id(number)
    safekeeper_sections.change(installation.config_file, add=new)


def _free_listen(installation: Installation, new: list[str]) -> str:
    """An address for one more safekeeper here."""
    config = installation.config
    names = ("control", "pageserver", "proxy", *config.safekeeper_parts)
    listens = [*filter(None, map(config.listen, names)), *new]
    taken = [int(port) for _, _, port in (item.rpartition(":") for item in listens)]
    return f"127.0.0.1:{one_more(taken)}"


def _refuse_another(installation: Installation) -> None:
    for item in installation.config.safekeeper_parts.values():
        if item.leaving:
            raise FailedPrecondition(
                "CHANGE_UNDER_WAY",
                f"Safekeeper {item.id} is being replaced.",
                f"`pagestore safekeepers --replace {item.id}` waits for that.",
            )


def _next_id(installation: Installation) -> int:
    """A number that no safekeeper here ever had."""
    used = [item.id for item in installation.config.safekeeper_parts.values()]
    return max(*used, installation.last_safekeeper_id, 0) + 1


def reload(installation: Installation) -> Installation:
    """The supervisor takes the file; returns the installation as that says."""
    pid = installation.running_supervisor()
    if pid is None:
        raise not_running(installation.data)
    os.kill(pid, signal.SIGHUP)
    return Installation(installation.data)
