"""Which of a user's settings a start tries, and what it means that one worked.

A server that does not start cannot be asked to take a setting back, and neither can a branch of
it or an older state, which has the same ones. So a start whose server ends with a complaint is
tried again without one of the settings that are new since the last that worked, each in its turn;
then with the last that worked, then with none. What worked is what the database has from then on;
what it had besides is *set aside*: shown, with the server's complaint, until its settings change.
So one that is guilty does not take along what was set with it and is in use already. Two that are
guilty do, for to find them costs more starts than it is worth.

Not every end is a setting's fault: a server that was killed, found its port taken or could not
have its pages is no reason to touch what a user has set. And settings that worked before are
given up only when they fail twice.

Pure: no clock, no state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pagestore.control.records import UserSettings
from pagestore.postgres.server_log import ServerFailed

MOST_SUSPECTS = 8
"""New settings of which each is left out in turn: a start that fails costs about 0.2 s."""
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
    wanted, good = settings.wanted, settings.good
    if wanted == good:
        tries = [wanted, wanted, {}]
    else:
        suspects = [name for name in {**wanted, **good} if wanted.get(name) != good.get(name)]
        each = suspects if 1 < len(suspects) <= MOST_SUSPECTS else []
        without = [_as_before(name, wanted, good) for name in each]
        tries = [wanted, *(item for item in without if item), good, {}]
    last = tries.index({})
    return tries[: last + 1]


def _as_before(name: str, wanted: Mapping[str, str], good: Mapping[str, str]) -> dict[str, str]:
    others = {item: value for item, value in wanted.items() if item != name}
    return others | ({name: good[name]} if name in good else {})


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


def unproved(settings: UserSettings) -> UserSettings:
    """For a server of another major: none has worked with it yet, so that each is a suspect."""
    return settings.model_copy(update={"good": {}})


def words(settings: UserSettings) -> str:
    """What was set aside, and why, in one sentence; empty where nothing is."""
    if not settings.set_aside:
        return ""
    aside = ", ".join(f"{name} = {value}" for name, value in settings.set_aside.items())
    return f"Set aside, since Postgres did not start with it: {aside} ({settings.complaint})"
