"""Points of a database's history as users write them.

``head`` is the commit LSN of now; ``0/16B3748`` an LSN; ``2026-11-23T10:15:00+01:00`` a
time (without an offset: local time; a space may stand for the T); ``10m ago`` or ``-1h30m``
a time counted back from now (units s, m, h, d, w). Everything else is a checkpoint's name.
Nothing is ambiguous, because no checkpoint may have a name that reads as one of the others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from pagestore.errors import InvalidInput
from pagestore.ids import Lsn, format_lsn, parse_lsn


@dataclass(frozen=True, slots=True)
class Head:
    def __str__(self) -> str:
        return "head"


@dataclass(frozen=True, slots=True)
class AtLsn:
    lsn: Lsn

    def __str__(self) -> str:
        return format_lsn(self.lsn)


@dataclass(frozen=True, slots=True)
class AtTime:
    unix_micros: int

    def __str__(self) -> str:
        return datetime.fromtimestamp(self.unix_micros / 1e6).astimezone().isoformat(" ")


@dataclass(frozen=True, slots=True)
class AtCheckpoint:
    name: str

    def __str__(self) -> str:
        return f"checkpoint {self.name}"


Point = Head | AtLsn | AtTime | AtCheckpoint

_SPAN = r"(?:\d+(?:\.\d+)?[smhdw])+"
_AGO = re.compile(rf"-({_SPAN})|({_SPAN}) ago")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*")
_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_point(text: str, now: datetime | None = None) -> Point:
    """What a user wrote for ``--at``.

    Args:
        now: what relative times count from; the clock's time by default.

    Raises:
        InvalidInput: INVALID_TIME or INVALID_LSN.
    """
    if text == "head":
        return Head()
    if "/" in text:
        return AtLsn(parse_lsn(text))
    ago = _AGO.fullmatch(text)
    if ago:
        now = now or datetime.now().astimezone()
        try:
            return AtTime(_micros(now - _span(ago[1] or ago[2])))
        except (OverflowError, ValueError) as error:
            raise InvalidInput("INVALID_TIME", f"{text[:40]!r} lies too far back.") from error
    if _TIME.fullmatch(text):
        return AtTime(_micros(_parse_time(text)))
    return AtCheckpoint(text)


def reads_as_point(text: str) -> bool:
    """Whether `text` means something else than a checkpoint."""
    return text == "head" or any(form.fullmatch(text) for form in (_LSN, _AGO, _TIME))


def _span(text: str) -> timedelta:
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", text)
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))


def _parse_time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(
            "INVALID_TIME",
            f"{text[:40]!r} is not a time: {error}.",
            "Write it as 2026-11-23T10:15:00+01:00, or as a span: 10m ago.",
        ) from error
    return moment.astimezone()


def _micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)
