"""What the control plane keeps of databases for their computes: files and settings.

**Settings are the database's.** They stay with its name over stop, start, restore and undo; a
branch begins with a copy of its parent's, as they are at that moment, and goes its own way.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from pagestore.control.compute import CarriedFiles
from pagestore.control.computes import Slotted
from pagestore.control.records import DatabaseRecord, EventRecord, UserSettings, Verb
from pagestore.control.setting_aside import changed, words
from pagestore.control.state import Change, ControlState, now_micros
from pagestore.ids import TimelineId
from pagestore.postgres.user_settings import allowed, parse

_log = structlog.get_logger(__name__)


class Keeping:
    """See :class:`pagestore.control.computes.Memory`."""

    def __init__(self, state: ControlState) -> None:
        self._state = state
        _take_old_settings(state)

    def as_set(self, record: DatabaseRecord) -> DatabaseRecord:
        current = self._state.view().database(record.tenant, record.name)
        return current.keep_settings(record) if current is not None else record

    def load(self, timeline: TimelineId) -> Mapping[str, bytes]:
        return self._state.view().kept_files(timeline)

    def save(self, name: Slotted, timeline: TimelineId, carried: CarriedFiles) -> None:
        with self._state.change() as change:
            if carried.files:
                change.put_kept_files(timeline, carried.files)
            record = change.database(*name)
            if record is not None and carried.settings is not None:
                put_settings(change, record, changed(record.settings, carried.settings))

    def settled(self, record: DatabaseRecord, settings: UserSettings) -> None:
        if settings.set_aside != record.settings.set_aside:
            _log.warning("settings are set aside", name=record.name, why=settings.complaint)
        with self._state.change() as change:
            current = change.database(record.tenant, record.name)
            if current is None:
                return  # it is being made: whoever makes it says so
            put_settings(change, current, settings)
            if settings.set_aside != current.settings.set_aside:
                event = set_aside_event(current, settings, now_micros())
                change.add_event(record.tenant, record.name, event)


def put_settings(change: Change, record: DatabaseRecord, settings: UserSettings) -> None:
    if settings != record.settings:
        change.put_database(record.model_copy(update={"settings": settings}))


def set_aside_event(record: DatabaseRecord, settings: UserSettings, micros: int) -> EventRecord:
    return EventRecord(
        verb=Verb.SETTINGS,
        timeline=record.timeline,
        lsn=record.branch_lsn,
        created_micros=micros,
        detail=words(settings),
    )


def _take_old_settings(state: ControlState) -> None:
    """They were kept by name once, and not in the record."""
    with state.change() as change:
        for record in change.databases():
            old = change.old_auto_conf(record)
            if old is not None and not record.settings.wanted:
                put_settings(change, record, changed(record.settings, allowed(parse(old))))
        change.forget_old_auto_confs()
