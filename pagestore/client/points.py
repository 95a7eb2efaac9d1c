"""Points of a database's history as users write them.

``head`` and ``now`` are the commit LSN of now; ``0/16B3748`` an LSN. Times:

- ``2026-11-23T10:15:00+01:00``: a space may stand for the T, seconds may be left out, and the
  offset may be ``Z``, ``UTC`` or missing: local time;
- ``today``, ``yesterday``: where that day begins in local time, as in Postgres; a time of day and
  an offset may follow these too;
- ``5 minutes ago``, ``10m ago``, ``-1h30m``: counted back from now, in units from seconds to
  weeks, by their first letter or written out.

Everything else is a checkpoint's name. Nothing is ambiguous, because no checkpoint may have a
name that reads as one of the others. A bare date may: ``2026-11-23`` is the checkpoint of that
name or, where there is none, the beginning of that day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pagestore.errors import InvalidInput, OutOfRange
from pagestore.ids import Lsn, format_lsn, parse_lsn

FORMS = (
    "A point is a checkpoint, an LSN (0/16B3748), head, or a time: 2026-11-23T10:15:00+01:00, "
    "'2026-11-23 10:15 UTC', 2026-11-23, yesterday, '5 minutes ago', -1h30m."
)


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
        return format_time(self.unix_micros, " ")


@dataclass(frozen=True, slots=True)
class AtCheckpoint:
    name: str
    or_micros: int | None = None
    """The time that is meant where no checkpoint has the name, if it reads as one."""

    def __str__(self) -> str:
        return f"checkpoint {self.name}"


Point = Head | AtLsn | AtTime | AtCheckpoint

_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400),
}
_PART = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)")
_AGO = re.compile(r"-(\S+)|(.+) ago")
_DAY = r"\d{4}-\d\d-\d\d|today|yesterday"
_TIME = re.compile(rf"({_DAY})[T ](\d\d?:\d\d.*)|(today|yesterday)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_HEAD = ("head", "now")


def parse_point(text: str, now: datetime | None = None) -> Point:
    """What a user wrote for ``--at``.

    Args:
        now: what relative times count from; the clock's time by default.

    Raises:
        InvalidInput: INVALID_POINT, INVALID_TIME or INVALID_LSN.
        OutOfRange: TIME_IN_FUTURE.
    """
    if not text.strip():
        raise InvalidInput("INVALID_POINT", "An empty point is no point of the past.", FORMS)
    if text in _HEAD:
        return Head()
    if "/" in text:
        return AtLsn(parse_lsn(text))
    now = now or datetime.now().astimezone()
    if _DATE.fullmatch(text):
        return AtCheckpoint(text, _day(text, now))
    moment = _moment(text, now)
    return AtCheckpoint(text) if moment is None else AtTime(moment)


def lasting(point: str | datetime | None, lsn: int) -> str:
    """Words that lead there by a URL, too, and an hour later: what was said, unless it counts from
    now. An LSN alone is one of the history that a database has now, while a checkpoint or a time
    from before a restore stands in another one.

    Args:
        point: what a user wrote, or a time; None for the head.
        lsn: what the control plane found there.

    Raises:
        InvalidInput, OutOfRange: as :func:`parse_point`.
    """
    if isinstance(point, datetime):
        return point.astimezone(UTC).isoformat()
    match Head() if point is None else parse_point(point):
        case AtCheckpoint(name):
            return name
        case AtTime(unix_micros):
            return format_time(unix_micros)
        case _:
            return format_lsn(lsn)


def reads_as_point(text: str) -> bool:
    """Whether `text` means something else than a checkpoint."""
    if text in _HEAD or _LSN.fullmatch(text) or _TIME.fullmatch(text):
        return True
    return _seconds_ago(text) is not None


def format_time(unix_micros: int, separator: str = "T") -> str:
    """Local time to the microsecond, with its offset: :func:`parse_point` takes it back."""
    seconds, micros = divmod(unix_micros, 1_000_000)
    try:
        moment = datetime.fromtimestamp(seconds).astimezone().replace(microsecond=micros)
    except (OverflowError, ValueError, OSError):
        return f"{unix_micros} microseconds since 1970"  # beyond the calendar
    return moment.isoformat(separator, timespec="microseconds")


def _moment(text: str, now: datetime) -> int | None:
    """Unix microseconds, if `text` is a time."""
    ago, absolute = _seconds_ago(text), _TIME.fullmatch(text)
    if ago is None and absolute is None:
        return None
    try:
        if absolute is None:
            return _micros(now - timedelta(seconds=ago or 0))
        day, clock = absolute[1] or absolute[3], absolute[2] or "00:00"
        moment = _micros(_absolute(day, clock, now))
    except (OverflowError, ValueError) as error:
        raise InvalidInput(
            "INVALID_TIME", f"{text[:40]!r} is not a time: {error}.", FORMS
        ) from error
    if moment > _micros(now):
        raise OutOfRange(
            "TIME_IN_FUTURE",
            f"{text[:40]!r} lies in the future; it is {now.isoformat(' ', 'seconds')}.",
            f"Leave it out to take the head. {FORMS}",
        )
    return moment


def _seconds_ago(text: str) -> float | None:
    ago = _AGO.fullmatch(text)
    span = (ago[1] or ago[2]) if ago else ""
    parts = _PART.findall(span)
    between = _PART.sub("", span).replace("and", "").strip()
    if not parts or between or any(unit not in _UNITS for _, unit in parts):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _absolute(day: str, clock: str, now: datetime) -> datetime:
    if day in ("today", "yesterday"):
        back = timedelta(days=1 if day == "yesterday" else 0)
        day = (now.astimezone().date() - back).isoformat()
    clock = re.sub(r" ?(Z|UTC|GMT)$", "+00:00", clock).replace(" ", "")
    if clock[1] == ":":
        clock = "0" + clock
    return datetime.fromisoformat(f"{day}T{clock}").astimezone()


def _day(text: str, now: datetime) -> int | None:
    """Where a day begins; None for a date that the calendar has not."""
    try:
        return _micros(_absolute(text, "00:00", now))
    except (OverflowError, ValueError):
        return None


def _micros(moment: datetime) -> int:
    """Exactly: a float of seconds has not all the microseconds."""
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 1_000_000 + moment.microsecond
