"""Which of a user's settings a start tries, and what it means that one worked.

A server that does not start cannot be asked to take a setting back, and neither can a branch of
it or an older state, which has the same ones. So a start whose server ends with a complaint is
tried again with the last settings that worked, then with none. What worked is what the database
has from then on; what it had besides is *set aside*: shown, with the server's complaint, until
its settings change. Nobody looks for the one that is guilty.

Not every end is a setting's fault: a server that was killed, found its port taken or could not
have its pages is no reason to touch what a user has set. And settings that worked before are
given up only when they fail twice.

Pure: no clock, no state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pagestore.control.records import UserSettings
from pagestore.postgres.server_log import ServerFailed

_REFUSED = 1
"""The exit status of a postmaster that says FATAL."""
_OTHER_FAULTS = (
    "pagestore: ",
    "could not bind ",
    "could not create any ",
    "lock file ",
    "No space left on device",
)


def attempts(settings: UserSettings) -> Sequence[dict[str, str]]:
    """What a start tries, in turn."""
    if settings.wanted == settings.good:
        tries = [settings.wanted, settings.wanted, {}]
    else:
        tries = [settings.wanted, settings.good, {}]
    last = tries.index({})
    return tries[: last + 1]


def is_worth_another(error: ServerFailed) -> bool:
    """Whether other settings may help."""
    if error.status != _REFUSED or not error.complaint:
        return False
    return not any(text in error.complaint for text in _OTHER_FAULTS)


def after_start(settings: UserSettings, used: Mapping[str, str], complaint: str) -> UserSettings:
    """Once a server runs with `used`; `complaint` is of the first that did not."""
    used = dict(used)
    if used == settings.wanted:
        return settings.model_copy(update={"good": used})
    aside = {name: value for name, value in settings.wanted.items() if used.get(name) != value}
    return UserSettings(wanted=used, good=used, set_aside=aside, complaint=complaint)


def changed(settings: UserSettings, values: Mapping[str, str]) -> UserSettings:
    """With other values, by whomever; what was set aside before is forgotten."""
    if dict(values) == settings.wanted:
        return settings
    return UserSettings(wanted=dict(values), good=settings.good)


def words(settings: UserSettings) -> str:
    """What was set aside, and why, in one sentence; empty where nothing is."""
    if not settings.set_aside:
        return ""
    aside = ", ".join(f"{name} = {value}" for name, value in settings.set_aside.items())
    return f"Set aside, since Postgres did not start with it: {aside} ({settings.complaint})"
