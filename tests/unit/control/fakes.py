"""The parts that the control plane leans on, in memory and with no processes.

All of them stand on one :class:`Logs`: for each timeline the records that were written to it. A
record is a commit, with what it says, or something that nobody sees (a checkpoint record at the
start or stop of a compute). So :meth:`Logs.content` is what a client would read at a position, and
tests compare that, not LSNs. The state is a real ControlState, on LMDB in a directory of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pagestore.control.compute import (
    AppRole,
    CarriedFiles,
    Compute,
    Cost,
    Entry,
    Owner,
    Place,
    Told,
)
from pagestore.control.computes import Computes
from pagestore.control.keeping import Keeping
from pagestore.control.operator_key import KEY_BYTES, OperatorKey
from pagestore.control.plane import ControlPlane
from pagestore.control.records import (
    DatabaseRecord,
    TemplateRecord,
    TimelineRecord,
    TimelineState,
)
from pagestore.control.sessions import NoSessions, Sessions
from pagestore.control.state import ControlState
from pagestore.control.tenants import Tenants
from pagestore.control.upgrade import Upgrades
from pagestore.errors import (
    FailedPrecondition,
    NotFound,
    OutOfRange,
    PagestoreError,
    Unavailable,
)
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.v1 import compute_pb2, page_pb2, wal_pb2
from tests.unit import virtual_time

TENANT = DEFAULT_TENANT
TEMPLATE = TimelineId(b"template" * 2)
RECORD_BYTES = 64
FIRST_LSN = 1 << 20
UPGRADE_BYTES = 1 << 24
"""By which an upgraded cluster's WAL begins beyond the old one's."""
KEY = OperatorKey(bytes(KEY_BYTES))


@dataclass(frozen=True)
class Written:
    end: int
    said: str = ""
    """What a commit says; empty for what is no commit."""
    micros: int = 0


@dataclass
class Log:
    parent: TimelineId | None
    start: int
    records: list[Written] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.records[-1].end if self.records else self.start


class Logs:
    """Every timeline's records; `micros` is the clock of the computes."""

    def __init__(self) -> None:
        self.timelines: dict[TimelineId, Log] = {TEMPLATE: Log(None, FIRST_LSN)}
        self.micros = 1_800_000_000_000_000

    def write(self, timeline: TimelineId, said: str = "") -> int:
        log = self.timelines[timeline]
        self.micros += 1_000
        log.records.append(Written(log.end + RECORD_BYTES, said, self.micros))
        return log.end

    def commits(self, timeline: TimelineId, lsn: int) -> list[Written]:
        """Up to an LSN, oldest first, those of the ancestors included."""
        log = self.timelines[timeline]
        before = self.commits(log.parent, min(log.start, lsn)) if log.parent else []
        return before + [item for item in log.records if item.said and item.end <= lsn]

    def content(self, timeline: TimelineId, lsn: int | None = None) -> list[str]:
        lsn = self.timelines[timeline].end if lsn is None else lsn
        return [item.said for item in self.commits(timeline, lsn)]


class FakeWal:
    def __init__(self, logs: Logs) -> None:
        self.logs = logs
        self.behind: dict[TimelineId, int] = {}
        """Bytes at the end of a log that are not committed yet, as far as it knows."""
        self.known: set[TimelineId] = {TEMPLATE}
        self.numbers: tuple[int, ...] = (1,)
        self.members: dict[TimelineId, tuple[int, ...] | None] = {}
        """That were named when a log was made."""
        self.begins: dict[TimelineId, int] = {}
        """Where a log is kept from, if not from its timeline's first LSN on."""
        self.asked: list[str] = []

    async def create_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        start_lsn: int,
        *,
        members: tuple[int, ...] | None = None,
        **_: int,
    ) -> None:
        self.asked.append("create")
        assert start_lsn == self.logs.timelines[timeline].start
        self.known.add(timeline)
        self.members.setdefault(timeline, members)

    async def remove_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        self.asked.append("remove")
        self.known.discard(timeline)

    async def is_committed(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> bool:
        self.asked.append("is committed")
        return self._log(timeline).end >= lsn

    async def get_status(self, tenant: TenantId, timeline: TimelineId) -> Any:
        self.asked.append("status")
        await asyncio.sleep(0)
        end = self._log(timeline).end - self.behind.get(timeline, 0)
        return wal_pb2.WalTimelineStatus(commit_lsn=end)

    async def align_lsn(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> tuple[int, int]:
        self.asked.append("align")
        log = self._log(timeline)
        if lsn < self.begins.get(timeline, 0):
            raise OutOfRange("LSN_TOO_OLD", "It is before the log's start.")
        end = max((item.end for item in log.records if item.end <= lsn), default=log.start)
        return end, end - RECORD_BYTES

    def _log(self, timeline: TimelineId) -> Log:
        if timeline not in self.known:
            raise NotFound("TIMELINE_NOT_FOUND", f"No log of {timeline}.")
        return self.logs.timelines[timeline]


class FakePages:
    """`stuck` is where it reads no further, if anywhere."""

    def __init__(self, logs: Logs) -> None:
        self.logs = logs
        self.away = False
        self.bytes = 0
        """Of each timeline."""
        self.stuck: int | None = None
        self.slots: list[str] = []
        """Of each timeline."""
        self.detached: list[TimelineId] = []
        self.told: list[page_pb2.SetRetentionRequest] = []

    async def detach_timeline(
        self, tenant: TenantId, timeline: TimelineId, *, wait_ms: int
    ) -> bool:
        """Done when it is asked for the second time."""
        if self.away:
            raise Unavailable("SERVICE_UNAVAILABLE", "The page server is away.")
        self.detached.append(timeline)
        return self.detached.count(timeline) > 1

    async def set_retention(
        self, request: page_pb2.SetRetentionRequest
    ) -> page_pb2.SetRetentionResponse:
        if self.away:
            raise Unavailable("SERVICE_UNAVAILABLE", "The page server is away.")
        self.told.append(request)
        return page_pb2.SetRetentionResponse()

    async def create_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        parent: TimelineId,
        branch_lsn: int,
        **_: int,
    ) -> None:
        if self.away:
            raise Unavailable("SERVICE_UNAVAILABLE", "The page server is away.")
        self.logs.timelines[timeline] = Log(parent, branch_lsn)

    async def delete_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        if self.logs.timelines.pop(timeline, None) is None:
            raise NotFound("TIMELINE_NOT_FOUND", f"No pages of {timeline}.")

    async def get_timeline(
        self, tenant: TenantId, timeline: TimelineId, *, slots: bool = False
    ) -> Any:
        log = self.logs.timelines[timeline]
        return page_pb2.TimelineInfo(
            timeline_id=timeline.raw,
            branch_lsn=log.start,
            last_record_lsn=log.end if self.stuck is None else self.stuck,
            slots=[page_pb2.ReplicationSlot(name=name) for name in self.slots if slots],
        )

    async def list_timelines(self, tenant: TenantId | None) -> list[page_pb2.TimelineInfo]:
        """All of them, whoever asks."""
        if self.away:
            raise Unavailable("SERVICE_UNAVAILABLE", "The page server is away.")
        return [
            page_pb2.TimelineInfo(timeline_id=timeline.raw, physical_bytes=self.bytes)
            for timeline in self.logs.timelines
        ]

    async def last_commit(self, tenant: TenantId, timeline: TimelineId, lsn: int, **_: int) -> int:
        commits = self.logs.commits(timeline, lsn)
        return commits[-1].end if commits else 0

    async def lsn_by_time(self, tenant: TenantId, timeline: TimelineId, unix_micros: int) -> Any:
        commits = self.logs.commits(timeline, self.logs.timelines[timeline].end)
        older = [item for item in commits if item.micros <= unix_micros]
        newer = [item for item in commits if item.micros > unix_micros]
        end = self.logs.timelines[timeline].end
        if not older:
            return page_pb2.GetLsnByTimeResponse(before_history=True, after_head=not newer)
        last = max(older, key=lambda item: item.micros)
        return page_pb2.GetLsnByTimeResponse(
            lsn=last.end if newer else end,
            commit_lsn=last.end,
            commit_unix_micros=last.micros,
            after_head=not newer,
        )


def put_template(state: ControlState, timeline: TimelineId, tenant: TenantId) -> None:
    """A tenant's, as if it had been made."""
    with state.change() as change:
        change.put_timeline(
            TimelineRecord(
                timeline=timeline,
                tenant=tenant,
                state=TimelineState.LIVE,
                database="",
                parent=None,
                branch_lsn=FIRST_LSN,
                created_micros=1,
            )
        )
        record = TemplateRecord(timeline=timeline, lsn=FIRST_LSN, prev_record_lsn=FIRST_LSN - 64)
        change.put_template(record, tenant)


class WithoutPostgres:
    """What a compute that is no Postgres answers to questions in SQL."""

    async def strangers(self) -> int:
        return 0

    async def add_role(self, record: DatabaseRecord, role: str, secret: str) -> None: ...
    async def reset_role(self, record: DatabaseRecord, role: str, secret: str) -> None: ...
    async def roles(self, record: DatabaseRecord) -> list[AppRole]:
        return []

    async def remove_role(
        self, record: DatabaseRecord, role: str, *, with_data: bool, if_exists: bool
    ) -> bool:
        return False

    async def entry(self, record: DatabaseRecord, secret: str) -> Entry:
        return Entry()


class FakeCompute(WithoutPostgres):
    """Its sessions end when it does."""

    def __init__(
        self, logs: Logs, record: DatabaseRecord, settings: Mapping[str, str] | None
    ) -> None:
        self.settings = dict(settings or {})
        """What a session changes by ALTER SYSTEM."""
        self.timeline = record.timeline
        self.name = f"{record.name}-{len(logs.timelines[record.timeline].records)}"
        self.cost = Cost()
        self.place = Place(4711, "/nowhere", "/nowhere/.s.PGSQL.5432")
        self.told: list[str] = []
        """Its owner's passwords."""
        self.complaint = ""
        self.fenced = False
        self.remarks: tuple[str, ...] = ()
        self._logs = logs
        self._ended = asyncio.Event()

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    def commit(self, said: str) -> None:
        """What a session does while the compute lives."""
        assert self.alive, f"no session may say {said!r} any more"
        self._logs.write(self.timeline, said)

    async def wait_exit(self) -> str:
        await self._ended.wait()
        return "ended by the test"

    async def stop(self) -> CarriedFiles:
        if self.alive:
            self._logs.write(self.timeline)
        self._ended.set()
        await asyncio.sleep(0)
        return CarriedFiles(settings=self.settings)

    async def user_settings(self) -> Mapping[str, str]:
        return self.settings

    async def tell(self, values: Mapping[str, str], reset: Iterable[str]) -> Told:
        self.settings |= values
        for name in reset:
            self.settings.pop(name, None)
        return Told(self.settings)

    async def set_owner(self, record: DatabaseRecord, secret: str, how: Owner) -> str:
        self.told.append(secret)
        return record.postgres_database or "imported"

    async def discard(self) -> None:
        self._ended.set()


class FakeLauncher:
    """`refuse` says of a record why its compute does not start, if it does not."""

    def __init__(self, logs: Logs) -> None:
        self.logs = logs
        self.started: list[FakeCompute] = []
        self.refuse: Callable[[DatabaseRecord], PagestoreError | None] = lambda record: None
        self.left: list[Compute] = []

    async def start(self, record: DatabaseRecord, kept: CarriedFiles) -> Compute:
        await asyncio.sleep(0)
        error = self.refuse(record)
        if error is not None:
            raise error
        self.logs.write(record.timeline)
        self.started.append(FakeCompute(self.logs, record, kept.settings))
        return self.started[-1]

    async def leftovers(self) -> list[Compute]:
        return self.left


class FakeUpgrader:
    """An agent whose pg_upgrade brings over what the old timeline says. `meanwhile` is done while
    it is at work; what that raises, it fails by."""

    def __init__(self, logs: Logs, remarks: Iterable[str] = ()) -> None:
        self.logs = logs
        self.asked: list[compute_pb2.UpgradeTimelineRequest] = []
        self.remarks = remarks
        self.meanwhile: Callable[[], Awaitable[None]] = _nothing

    async def upgrade(
        self, request: compute_pb2.UpgradeTimelineRequest, told: Callable[[str, int, int], None]
    ) -> compute_pb2.UpgradedTimeline:
        self.asked.append(request)
        told("exporting", 0, 100)
        await self.meanwhile()
        if not request.new_timeline_id:
            return compute_pb2.UpgradedTimeline(remarks=self.remarks)
        old = self.logs.commits(TimelineId(request.timeline_id), request.lsn)
        start = request.lsn + UPGRADE_BYTES
        log = Log(None, start, [Written(start, item.said, item.micros) for item in old])
        self.logs.timelines[TimelineId(request.new_timeline_id)] = log
        return compute_pb2.UpgradedTimeline(
            lsn=start, prev_record_lsn=start - RECORD_BYTES, system_id=4711, remarks=self.remarks
        )


class FakeMajors:
    """Those that are installed."""

    def __init__(self, *there: int) -> None:
        self.there = there

    def require(self, major: int) -> None:
        if major not in self.there:
            raise FailedPrecondition("POSTGRES_MISSING", f"There is no Postgres {major}.")


async def _nothing() -> None:
    pass


class Plane:
    """A ControlPlane over fakes."""

    def __init__(self, directory: Path) -> None:
        self.logs = Logs()
        self.wal, self.pages = FakeWal(self.logs), FakePages(self.logs)
        self.launcher = FakeLauncher(self.logs)
        self.state = ControlState(directory)
        self.key = KEY
        put_template(self.state, TEMPLATE, TENANT)
        self.plane = self.new_plane()

    def new_plane(self, sessions: Sessions | None = None) -> ControlPlane:
        """As a control plane that starts again on the same state."""
        pages: Any = self.pages
        wal: Any = self.wal
        self.tenants = Tenants(self.state, pages)
        self.computes = Computes(self.launcher, Keeping(self.state), self.tenants)
        return ControlPlane(
            *(self.state, pages, wal, self.computes, self.key, self.tenants),
            sessions=sessions,
        )

    def upgrades(self, agent: Any, sessions: Sessions | None = None) -> Upgrades:
        """Of a machine with three majors."""
        plane: Any = self.plane
        pages: Any = self.pages
        wal: Any = self.wal
        return Upgrades(
            *(self.state, pages, wal, self.computes, plane.history, plane._timelines),
            *(plane._turns, sessions or NoSessions(), agent, FakeMajors(15, 17, 18)),
        )

    def record(self, name: str = "app") -> DatabaseRecord:
        return self.state.view().known_database(TENANT, name)

    def commit(self, said: str, name: str = "app") -> None:
        self.session(name).commit(said)

    def session(self, name: str = "app") -> FakeCompute:
        """The compute that a client of `name` would be connected to."""
        timeline = self.record(name).timeline
        return [item for item in self.launcher.started if item.timeline == timeline][-1]

    def content(self, name: str = "app") -> list[str]:
        return self.logs.content(self.record(name).timeline)

    def live(self) -> set[TimelineId]:
        return {record.timeline for record in self.state.view().live_timelines()}

    async def settled(self) -> None:
        """Until what runs in the background is done."""
        await self.plane._turns.close()

    async def close(self) -> None:
        await self.plane.close()
        self.state.close()


Story = Callable[[Plane], Coroutine[Any, Any, None]]


def play(directory: Path, story: Story) -> None:
    """A story on a plane of its own, from the beginning to the end, in virtual time."""

    async def whole() -> None:
        plane = Plane(directory)
        try:
            await story(plane)
        finally:
            await plane.close()

    virtual_time.play(whole())
