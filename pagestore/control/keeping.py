"""What the control plane keeps of databases for their computes: ports, files, settings.

**A port is part of a URL**, and so is for a database's life. Another program that listens on it
keeps the database from starting: that is an error which names the program, not another URL that
nobody was told of. Only `start --new-port`, or a database whose URL nobody has yet, gets another.

**Settings are the database's.** They stay with its name over stop, start, restore and undo; a
branch begins with a copy of its parent's, as they are at that moment, and goes its own way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import structlog

from pagestore.control.compute import CarriedFiles
from pagestore.control.computes import Slotted
from pagestore.control.ports import Ports, listener
from pagestore.control.records import DatabaseRecord, EventRecord, UserSettings, Verb
from pagestore.control.setting_aside import changed, words
from pagestore.control.state import Change, ControlState, now_micros
from pagestore.errors import FailedPrecondition
from pagestore.ids import TimelineId
from pagestore.postgres.listening import is_free
from pagestore.postgres.user_settings import allowed, parse

_log = structlog.get_logger(__name__)


class Keeping:
    """
    Args:
        hosts: the addresses at which computes listen.
    """

    def __init__(self, state: ControlState, ports: Ports, hosts: Iterable[str]) -> None:
        self._state = state
        self.ports = ports
        self._hosts = [*hosts]
        _take_old_settings(state)

    def wanted(self, name: Slotted) -> DatabaseRecord | None:
        record = self._state.view().database(*name)
        return record if record is not None and record.wanted else None

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

    def with_usable_port(self, record: DatabaseRecord) -> DatabaseRecord:
        """See :class:`pagestore.control.computes.Memory`."""
        taken = self._taken_at(record.port)
        if not taken:
            return record
        if self._state.view().database(record.tenant, record.name) is None:
            return self._moved(record)
        by = listener(record.port)
        raise FailedPrecondition(
            "PORT_IN_USE",
            f"Port {record.port}, which is {record.name!r}'s own, is taken at {taken}"
            + (f" by {by}." if by else "."),
            f"End that program; or give up the URL: pagestore start {record.name} --new-port",
        )

    def with_free_port(self, record: DatabaseRecord) -> DatabaseRecord:
        """The record, with another port if its own is taken; the log says so."""
        if not self._taken_at(record.port):
            return record
        moved = self._moved(record)
        detail = f"from {record.port}, on which another program listens, to {moved.port}"
        _log.warning("a database has another port now", name=record.name, detail=detail)
        with self._state.change() as change:
            current = change.known_database(record.tenant, record.name)
            moved = current.model_copy(update={"port": moved.port})
            change.put_database(moved)
            event = EventRecord(
                verb=Verb.PORT,
                timeline=record.timeline,
                lsn=record.branch_lsn,
                created_micros=now_micros(),
                detail=detail,
            )
            change.add_event(record.tenant, record.name, event)
        return moved

    def _taken_at(self, port: int) -> str:
        return next((host for host in self._hosts if not is_free(port, host)), "")

    def _moved(self, record: DatabaseRecord) -> DatabaseRecord:
        moved = record.model_copy(update={"port": self.ports.choose()})
        self.ports.release(record.port)
        return moved


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
