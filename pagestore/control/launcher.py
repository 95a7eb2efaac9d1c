"""The launcher whose computes are a host's agent's: what it says of them, and what it is told.

One stream has the agent's list, at first as a whole and then each change; it is taken up again
when the agent was away. While it is, its computes are taken to be as they were last: they go on by
themselves. One in the list that nobody here knows is of a start whose answer was lost, and is
discarded, as is, once the agent is back, what was to be discarded while it was away.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from pagestore import tasks
from pagestore.client.computes import AWAY_SECONDS, ComputeClient, no_answer
from pagestore.control import credentials
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
from pagestore.control.operator_key import OperatorKey
from pagestore.control.records import DatabaseRecord
from pagestore.control.session_keys import SessionKeys
from pagestore.errors import DeadlineExceeded, NotFound, PagestoreError
from pagestore.ids import TimelineId
from pagestore.pauses import Pauses
from pagestore.pgformat import versions
from pagestore.postgres.server_log import ServerFailed
from pagestore.postgres.settings import SOCKET_PREFIX
from pagestore.v1 import compute_pb2 as pb

AGAIN_SECONDS = 0.2
"""Until an agent that went away is looked for again."""
LONGEST_PAUSE = 5.0
GENERATIONS = 30
"""Numbers for changes of members that are sent at a time."""
LOST = "its agent does not know it any more"

_log = structlog.get_logger(__name__)


class AgentCompute:
    """A compute as its agent last described it."""

    def __init__(self, launcher: AgentLauncher, said: pb.Compute) -> None:
        self.name = said.name
        self.timeline = TimelineId(said.timeline_id)
        self._launcher, self._agent = launcher, launcher.agent
        self._said = said
        self._ended = asyncio.Event()
        self.update(said)

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    @property
    def complaint(self) -> str:
        return self._said.complaint

    @property
    def remarks(self) -> tuple[str, ...]:
        return tuple(self._said.remarks)

    @property
    def fenced(self) -> bool:
        return self._said.fenced

    @property
    def place(self) -> Place:
        said = self._said
        host = f"[{said.host}]" if ":" in said.host else said.host
        return Place(
            said.pid,
            said.directory,
            f"{said.socket_directory}/{SOCKET_PREFIX}{said.port}",
            f"{host}:{said.port}" if host else "",
        )

    @property
    def cost(self) -> Cost:
        found = self._said.measured
        return Cost(found.started_unix_micros, found.until_unix_micros, found.cpu_micros)

    async def strangers(self) -> int:
        return await self._agent.count_strangers(self.name)

    def update(self, said: pb.Compute) -> None:
        self._said = said
        if not said.alive:
            self._ended.set()

    def measured(self, said: pb.Compute) -> None:
        self._said.measured.CopyFrom(said.measured)

    def lost(self) -> None:
        """The agent has no trace of it."""
        said = pb.Compute()
        said.CopyFrom(self._said)
        said.alive, said.why = False, said.why or LOST
        self.update(said)

    async def wait_exit(self) -> str:
        await self._ended.wait()
        return self._said.why

    async def user_settings(self) -> Mapping[str, str] | None:
        try:
            found = await self._agent.settings(self.name)
        except NotFound:
            return None
        return dict(found.settings) if found.known else None

    async def tell(self, values: Mapping[str, str], reset: Iterable[str]) -> Told:
        request = pb.ChangeComputeSettingsRequest(name=self.name, set=values, reset=reset)
        told = await self._agent.change_settings(request)
        return Told(dict(told.settings) if told.known else None, tuple(told.after_restart))

    async def set_owner(self, record: DatabaseRecord, secret: str, how: Owner) -> str:
        database = record.postgres_database
        return await self._agent.set_owner(
            pb.SetOwnerRequest(
                name=self.name,
                password=secret,
                database=database,
                rename_spare=how is Owner.OF_NEW,
                strictly=how is Owner.OF_IMPORT and bool(database),
            )
        )

    async def entry(self, record: DatabaseRecord, secret: str) -> Entry:
        request = pb.GetEntryRequest(
            name=self.name,
            database_name=record.name,
            password=secret,
            database=record.postgres_database,
        )
        entry = await self._agent.entry(request)
        return Entry(entry.url_fault, entry.conninfo)

    async def add_role(self, record: DatabaseRecord, role: str, secret: str) -> None:
        request = self._of_app(record, role=role, password=secret)
        await self._agent.app_roles("AddAppRole", request)

    async def reset_role(self, record: DatabaseRecord, role: str, secret: str) -> None:
        request = self._of_app(record, role=role, password=secret)
        await self._agent.app_roles("ResetAppRole", request)

    async def roles(self, record: DatabaseRecord) -> list[AppRole]:
        answer = await self._agent.app_roles("ListAppRoles", self._of_app(record))
        return [
            AppRole(item.name, item.owns_schema, item.may_log_in, item.tables)
            for item in answer.roles
        ]

    async def remove_role(
        self, record: DatabaseRecord, role: str, *, with_data: bool, if_exists: bool
    ) -> bool:
        request = self._of_app(record, role=role, with_data=with_data, if_exists=if_exists)
        return (await self._agent.app_roles("RemoveAppRole", request)).changed

    def _of_app(self, record: DatabaseRecord, **more: Any) -> pb.AppRoleRequest:
        return pb.AppRoleRequest(
            name=self.name,
            database_name=record.name,
            database=record.postgres_database,
            **more,
        )

    async def stop(self) -> CarriedFiles:
        try:
            stopped = await self._agent.stop(self.name)
        except NotFound:
            return CarriedFiles()
        carried = stopped.carried
        if stopped.HasField("measured"):
            self._said.measured.CopyFrom(stopped.measured)
        return CarriedFiles(
            dict(carried.files), dict(carried.settings) if carried.settings_known else None
        )

    async def discard(self) -> None:
        self._launcher.let_go(self.name)
        # Whoever waits for its end need not wait for what is said of it no more.
        self.lost()
        try:
            await self._agent.discard(self.name)
        except PagestoreError as error:
            # It is nobody's from now on, and so goes with the next whole list.
            _log.info("a compute is discarded later", compute=self.name, error=str(error))


def _oldest(_: TimelineId) -> int:
    return versions.OLDEST.major


class AgentLauncher:
    """Belongs to one event loop; close it at the end.

    Args:
        generations: gives so many numbers for changes of members away, above another one, and
            tells the first.
    """

    def __init__(
        self,
        agent: ComputeClient,
        generations: Callable[[int], int],
        key: OperatorKey,
        session_keys: SessionKeys | None = None,
        major_of: Callable[[TimelineId], int] = _oldest,
    ) -> None:
        self.agent = agent
        self._generations = generations
        self._key, self._session_keys = key, session_keys
        self._major_of = major_of
        self._known: dict[str, AgentCompute] = {}
        self._starting: dict[str, pb.Compute | None] = {}
        """What the list says of those whose start has not been answered yet."""
        self._there = asyncio.Event()
        self._found: list[Compute] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._granting: asyncio.Task[None] | None = None
        self._generations_above = 0

    async def leftovers(self) -> list[Compute]:
        await self._is_there()
        assert self._found is not None
        return self._found

    async def start(self, record: DatabaseRecord, carried: CarriedFiles) -> Compute:
        await self._is_there()
        name = f"{str(record.timeline)[:10]}-{secrets.token_hex(3)}"
        self._starting[name] = None
        try:
            answer = await self.agent.start(self._request(name, record, carried))
            if answer.HasField("failure"):
                raise _failed(answer.failure)
            compute = self._known[name] = AgentCompute(self, answer.compute)
            later = self._starting[name]
            if later is not None:
                compute.update(later)
            return compute
        except (asyncio.CancelledError, DeadlineExceeded):
            # It may have come about just then.
            tasks.errand(self._discard_stranger(name), "discard a compute")
            raise
        finally:
            del self._starting[name]

    async def measure(self) -> None:
        """Hears what those that run have cost by now.

        Raises:
            Unavailable: COMPUTE_AGENT_AWAY.
        """
        for said in (await self.agent.measure()).computes:
            known = self._known.get(said.name)
            if known is not None:
                known.measured(said)

    def forget(self, timeline: TimelineId) -> None:
        tasks.errand(self._forget(timeline), "forget timeline")

    def let_go(self, name: str) -> None:
        """From now on it is nobody's."""
        self._known.pop(name, None)

    async def close(self) -> None:
        running = [task for task in (self._watching, self._granting) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _is_there(self) -> None:
        """
        Raises:
            Unavailable: COMPUTE_AGENT_AWAY.
        """
        if self._watching is None:
            self._watching = tasks.endless(self._watch_for_ever(), "watch computes")
        try:
            async with asyncio.timeout(AWAY_SECONDS):
                await self._there.wait()
        except TimeoutError as error:
            raise no_answer(self.agent.address) from error

    async def _watch_for_ever(self) -> None:
        while True:
            try:
                async for update in self.agent.watch():
                    await self._take(update)
            except PagestoreError as error:
                _log.info("an agent is away", error=str(error))
            self._there.clear()
            await asyncio.sleep(AGAIN_SECONDS)

    async def _take(self, update: pb.ComputesUpdate) -> None:
        if self._found is None:
            self._known = {said.name: AgentCompute(self, said) for said in update.computes}
            self._found = [*self._known.values()]
        else:
            self._take_changes(update)
        self._there.set()
        if update.generations_above:
            self._generations_above = max(self._generations_above, update.generations_above)
            if self._granting is None or self._granting.done():
                self._granting = tasks.errand(self._grant(), "grant generations")

    async def _grant(self) -> None:
        """Once they can be written down: until then whoever needs one waits, and all else goes
        on."""
        pauses = Pauses(AGAIN_SECONDS, LONGEST_PAUSE)
        while True:
            try:
                first = self._generations(self._generations_above)
                await self.agent.grant_generations(first, GENERATIONS)
                return
            except PagestoreError as error:
                _log.warning("generations are granted later", error=str(error))
            await pauses.sleep()

    def _take_changes(self, update: pb.ComputesUpdate) -> None:
        for said in update.computes:
            if said.name in self._starting:
                self._starting[said.name] = None if said.gone else said
            elif said.gone:
                self._lost(said.name)
            elif said.name in self._known:
                self._known[said.name].update(said)
            elif update.whole:
                tasks.errand(self._discard_stranger(said.name), "discard a compute")
        if update.whole:
            for name in self._known.keys() - {said.name for said in update.computes}:
                tasks.errand(self._ask_after(name), "ask after a compute")

    async def _ask_after(self, name: str) -> None:
        """The list may be older than the answer to a start, which came by another way."""
        try:
            await self.agent.settings(name)
        except NotFound:
            self._lost(name)
        except PagestoreError as error:
            # Once it is there again, it has another list.
            _log.info("an agent is away", error=str(error))

    def _lost(self, name: str) -> None:
        compute = self._known.pop(name, None)
        if compute is not None:
            compute.lost()

    async def _discard_stranger(self, name: str) -> None:
        _log.info("discarding a compute that nobody waits for", compute=name)
        try:
            await self.agent.discard(name)
        except PagestoreError as error:
            _log.warning("a compute is not discarded", compute=name, error=str(error))

    def _request(
        self, name: str, record: DatabaseRecord, carried: CarriedFiles
    ) -> pb.StartComputeRequest:
        reset, keys = record.password_was_reset, self._session_keys
        return pb.StartComputeRequest(
            name=name,
            tenant_id=record.tenant.raw,
            timeline_id=record.timeline.raw,
            owner=str(record.created_micros),
            carried=pb.CarriedFiles(files=carried.files, settings=carried.settings or {}),
            wal_password=credentials.wal_password(self._key, record),
            password=credentials.password(self._key, record) if reset else "",
            session_key=keys.key(record) if keys is not None else "",
            postgres_major=self._major_of(record.timeline),
        )

    async def _forget(self, timeline: TimelineId) -> None:
        try:
            await self.agent.forget_timeline(timeline.raw)
        except PagestoreError as error:
            _log.warning("a log is left", timeline=str(timeline), error=str(error))


def _failed(failure: pb.StartFailure) -> ServerFailed:
    return ServerFailed.told(
        failure.message,
        failure.hint,
        complaint=failure.complaint,
        status=failure.status if failure.status_known else None,
    )
