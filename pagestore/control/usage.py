"""What databases have cost: time awake, CPU, queries, wakes, by hours.

Who measures (the agent of a compute, the proxy) tells what it has come to since it began, again and
again, and never less. Here what was told before is subtracted, and the rest is added to the hours
in which it was, in one transaction: so to be told something twice, or only after a crash, counts
it once. A *source* is what began: a compute, or a proxy's counts of one database.

What was told last of a source is kept until long after its end, so that one that is heard of late
is not counted anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pagestore.control.records import HourRecord, SourceRecord
from pagestore.control.state import Change, ControlState, now_micros
from pagestore.ids import TenantId

HOUR = 3_600_000_000
"""Microseconds."""
KEPT_HOURS = 400 * 24
REMEMBERED_MICROS = 30 * 24 * HOUR
"""Of a source that is not heard of any more."""


@dataclass(frozen=True, slots=True)
class Whose:
    """A database, by what outlives a change of its name."""

    tenant: TenantId
    created: int
    name: str = ""
    """Now; empty where that is not known."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a source has come to since it began; times in microseconds since 1970."""

    started: int
    until: int
    cpu: int = 0
    """Microseconds."""
    queries: int = 0
    awake: bool = True
    """Whether the time between is one in which the database was awake."""


@dataclass(frozen=True, slots=True)
class Used:
    whose: Whose
    awake_micros: int
    cpu_micros: int
    queries: int
    wakes: int


class Usage:
    def __init__(self, state: ControlState) -> None:
        self._state = state

    def note(self, told: Iterable[tuple[Whose, str, Told]]) -> None:
        """Of sources, by their names; in one transaction."""
        with self._state.change() as change:
            for whose, source, each in told:
                _note(change, whose, source, each)

    def between(self, since: int, until: int, tenant: TenantId | None = None) -> list[Used]:
        """By databases, of the hours that the two times are in and those between."""
        found: dict[tuple[TenantId, int], Used] = {}
        hours = range(since // HOUR, until // HOUR + 1)
        for key_tenant, created, _, record in self._state.view().usage(tenant, hours):
            whose = Whose(key_tenant, created, record.name)
            before = found.get((key_tenant, created), Used(whose, 0, 0, 0, 0))
            found[key_tenant, created] = _sum(before, record)
        return [*found.values()]

    def forget_old(self) -> None:
        """Hours and sources of which nobody asks any more."""
        now = now_micros()
        with self._state.change() as change:
            change.remove_usage_before(now // HOUR - KEPT_HOURS)
            change.remove_sources_before(now - REMEMBERED_MICROS)


def _note(change: Change, whose: Whose, source: str, told: Told) -> None:
    known = change.usage_source(source)
    before = known or SourceRecord(until=told.started)
    if known is not None and (told.until, told.queries) <= (known.until, known.queries):
        return
    start, end = before.until, max(told.until, before.until)
    cpu = max(told.cpu - before.cpu, 0)
    left = cpu
    for hour, micros in _hours(start, end):
        is_last = hour == end // HOUR
        part = left if is_last else cpu * micros // max(end - start, 1)
        left -= part
        more = HourRecord(
            name=whose.name,
            awake=micros if told.awake else 0,
            cpu=part,
            queries=max(told.queries - before.queries, 0) if is_last else 0,
            wakes=1 if told.awake and known is None and hour == start // HOUR else 0,
        )
        change.add_usage(whose.tenant, whose.created, hour, more)
    seen = SourceRecord(until=end, cpu=max(told.cpu, before.cpu), queries=told.queries)
    change.put_usage_source(source, seen)


def _hours(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Each hour that a time is in, with how much of it; at least the one it ends in."""
    while start // HOUR < end // HOUR:
        next_hour = (start // HOUR + 1) * HOUR
        yield start // HOUR, next_hour - start
        start = next_hour
    yield end // HOUR, end - start


def _sum(before: Used, record: HourRecord) -> Used:
    whose = before.whose
    if record.name:  # hours come in their order: the latest name is the last
        whose = Whose(whose.tenant, whose.created, record.name)
    return Used(
        whose,
        before.awake_micros + record.awake,
        before.cpu_micros + record.cpu,
        before.queries + record.queries,
        before.wakes + record.wakes,
    )
