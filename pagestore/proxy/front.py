"""The proxy's own life: clients come, log in, are parked, released, joined, and leave.

A task exists for a client only while it logs in or is parked. Once joined with a backend its
bytes pass in the relay, and what remains here is a :class:`Session` in a set.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Collection, Coroutine
from typing import Any

import structlog

from pagestore import tasks
from pagestore._native import RELAY_METERS, TlsContext
from pagestore.client import tracing
from pagestore.errors import PagestoreError
from pagestore.pauses import Pauses
from pagestore.pgwire import messages
from pagestore.pgwire.messages import MessageReader, ProtocolViolation, read_error
from pagestore.pgwire.startup import CancelRequest
from pagestore.proxy.backend import Declined
from pagestore.proxy.cancels import CancelKeys
from pagestore.proxy.carrying import CarryFailed
from pagestore.proxy.counts import Counts
from pagestore.proxy.ending import Ending
from pagestore.proxy.fleet import Action, Fleet, Limits, Refuse, Release, Start, State, Stop
from pagestore.proxy.links import Activity, Event, Link, LinkEnded, Links, drive
from pagestore.proxy.login import Admitted, Refused, Security, login
from pagestore.proxy.meters import Meters
from pagestore.proxy.needs import FindRole, Need, Role
from pagestore.proxy.parting import PAUSE_SECONDS, Parting
from pagestore.proxy.places import Address, Place, Places
from pagestore.proxy.session import GONE, BackendGone, NoRoom, NotReady, Session
from pagestore.proxy.status import PlaceStatus, describe

LOGIN_SECONDS = 60.0
"""As Postgres's authentication_timeout."""
ENTRIES = 5
"""Attempts to enter a place that goes away again while one enters it."""
RECOVERY_SECONDS = 60.0
"""For a server that says that it cannot take anybody in now."""
LISTENERS_SECONDS = 10.0
"""For those that listen to be back in a place that woke, before others enter it."""
CANCEL_PAUSES = (0.05, 0.2, 1.0)
"""Before each try to cancel what a session does that was asleep when its client spoke."""
TICK_SECONDS = 1.0
ADOPT_SECONDS = 2.0
"""How often it is asked what others have started."""
WRITE_DOWN_SECONDS = 1.0
"""After so long at rest a session's state is kept."""
MAX_WORDS = 64 * 1024
LAST_WORDS_SECONDS = 1.0
"""For a control plane to hear what was asked."""
_SQLSTATES = {
    "NOT_FOUND": "3D000",
    "INVALID_ARGUMENT": "22023",
    "OUT_OF_RANGE": "22003",
    "RESOURCE_EXHAUSTED": "53300",
}
"""Of an error of ours that a client is told; 58000 (system error) for the rest."""
_NOT_NOW = {"UPGRADE_UNDER_WAY": "57P03"}
"""By reasons of such as pass: cannot_connect_now, which drivers may take for a word to wait."""
_TERMINATE = b"X"
_IDLE_TOO_LONG = "57P05"
"""What a backend ends with whose session has said nothing for its idle_session_timeout."""
_log = structlog.get_logger(__name__)

_Fleet = Fleet[Place, Session, Address]
_Action = Action[Place, Session, Address]


class _Refusal(Exception):
    """What a client is told before its connection is closed."""

    def __init__(self, told: bytes) -> None:
        super().__init__()
        self.told = told


class Front:
    """Use it on one event loop; `close` ends every session."""

    def __init__(
        self,
        places: Places,
        limits: Limits,
        *,
        tls: TlsContext | None = None,
        tls_required: bool = False,
        threads: int = 1,
    ) -> None:
        self._places = places
        self._fleet: _Fleet = Fleet(limits)
        self._tls = tls
        hashed = tls.certificate_hash if tls is not None else None
        self._security = Security(hashed, tls_required=tls_required)
        self._keys: CancelKeys[Session] = CancelKeys()
        self._sessions: dict[int, Session] = {}
        """Those that are joined, by their client's number."""
        self._entering: set[Session] = set()
        """Those that are just being brought to a backend."""
        self._released: dict[Session, asyncio.Future[tuple[Address, int]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self._ending = Ending()
        self._parting = Parting(self.sessions, self._is_entered, self._take_up)
        self.hindrances = self._parting.hindrances
        full = messages.error_response("53300", "sorry, too many clients already")
        self.links = Links(self._accept, threads=threads, full=full, gone=GONE)
        self._meters = Meters(self.links.queries, RELAY_METERS)
        self.counts = Counts()
        self._held(tasks.endless(self._watch(), "watch sessions"))
        self._held(tasks.endless(self._meters.tell_for_ever(places.count), "tell of queries"))
        self._held(tasks.endless(self._adopt_for_ever(), "take up computes"))

    @property
    def queries(self) -> int:
        """That clients have asked."""
        return self._meters.total()

    def queries_of(self, place: Place) -> int:
        return self._meters.read(place.database)

    def state(self, place: Place) -> State:
        return self._fleet.state(place)

    def described(self) -> list[PlaceStatus]:
        """Places that are not just asleep, or that somebody has a session at."""
        return describe(self._fleet, self._sessions.values(), self.hindrances, self._loop.time())

    def sessions(self) -> Collection[Session]:
        """Those that are logged in and not parked for the first time."""
        return self._sessions.values()

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._meters.tell(self._places.count)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.links.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._held(tasks.errand(coroutine, getattr(coroutine, "__qualname__", "errand")))

    def _held(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Clients

    def _accept(self, link: Link, peer: str) -> None:
        self._spawn(self._serve(link, peer))

    async def _serve(self, link: Link, peer: str) -> None:
        """One client, until it is joined or gone."""
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                security = login(self._security)
                outcome = await drive(security, link, tls=self._tls, answer=self._answer)
            match outcome:
                case CancelRequest(process, key):
                    await self._cancel(process, key)
                case Refused():
                    self.counts.logins["refused"] += 1
                    _log.info("refused", peer=peer, user=outcome.user, reason=outcome.message)
                    link.send(outcome.told)
                case Admitted():
                    await self._admit(link, outcome)
                    self.counts.logins["admitted"] += 1
                    return
        except _Refusal as refusal:
            self.counts.logins["unserved"] += 1
            link.send(refusal.told)
        except PagestoreError as error:
            self.counts.logins["unserved"] += 1
            told = messages.error_response(_sqlstate(error), error.message, hint=error.hint or "")
            link.send(told)
        except TimeoutError:
            self.counts.logins["slow"] += 1
            link.send(messages.error_response("08006", "the login took too long"))
        except LinkEnded:
            self.counts.logins["left"] += 1
            return
        except Exception as error:
            self.counts.logins["failed"] += 1
            _log.error("a login failed", peer=peer, exc_info=error)
            link.send(messages.error_response("XX000", "the proxy failed; its log says why"))
        link.close()

    async def _answer(self, need: Need) -> Role:
        assert isinstance(need, FindRole), f"a login asks for nothing else: {need}"
        return await self._places.role(need.target, need.user)

    async def _cancel(self, process: int, key: bytes) -> None:
        session = self._keys.find(process, key)
        if session is None:
            return
        if session.coming is None:
            await session.cancel()
            return
        # What its client wants cancelled is not with a backend yet. Its own connection stays
        # open meanwhile, so nothing else can be meant.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([session.coming])
        for pause in CANCEL_PAUSES:
            await asyncio.sleep(pause)
            if all(
                item.client != session.client.number or item.at_rest
                for item in self.links.activity()
            ):
                return
            await session.cancel()

    async def _admit(self, link: Link, admitted: Admitted) -> None:
        link.send(messages.authentication_ok())
        destination = await self._places.find(admitted.target)
        link.meter = self._meters.of(destination.place.database)
        key = self._keys.issue(admitted.version)
        try:
            session = Session(link, admitted, destination, key)
            self._keys.assign(key, session)
            await self._enter(session, admitted.rest)
        except BaseException:
            self._keys.revoke(key)
            raise

    async def _enter(self, session: Session, said: bytes) -> None:
        """Parks it, and joins it with a backend once its place is awake."""
        # Whoever wakes it may not have heard yet that it is gone.
        pauses = Pauses(5 * PAUSE_SECONDS, 1.0)
        for _ in range(ENTRIES):
            if await self._enter_at(session, *(await self._parked(session)), said):
                return
            await pauses.sleep()
        raise _Refusal(
            messages.error_response(
                "57P03",
                "the database goes away again whenever it was woken",
                hint="`pagestore show` and its log say why.",
            )
        )

    async def _enter_at(
        self, session: Session, address: Address, attempt: int, said: bytes
    ) -> bool:
        """Joins it with a backend there; False if nothing is there any more."""
        self._entering.add(session)
        try:
            declined = await self._admitted(session, address, attempt, said)
        except (BackendGone, NotReady) as gone:
            _log.info("place lost", place=str(session.destination.place), why=str(gone))
            now = self._loop.time()
            self._carry_out(self._fleet.lost(session.destination.place, attempt, now))
            return False
        except NoRoom as error:
            full = messages.error_response("53300", "sorry, too many clients already")
            raise _Refusal(full) from error
        finally:
            self._entering.discard(session)
        if isinstance(declined, Declined):
            raise _Refusal(declined.told)
        self._sessions[session.client.number] = session
        session.client.watcher = self._happened
        if session.client.ended:
            self._forget(session)
        return True

    async def _admitted(
        self, session: Session, address: Address, attempt: int, said: bytes
    ) -> Declined | None:
        """As :meth:`Session.enter`, with patience for a server that recovers."""
        deadline = self._loop.time() + RECOVERY_SECONDS
        pauses = Pauses(PAUSE_SECONDS, 1.0)
        while True:
            try:
                return await session.enter(self.links, address, attempt, said)
            except NotReady:
                if self._loop.time() > deadline or session.client.ended:
                    raise
            await pauses.sleep()

    async def _parked(self, session: Session) -> tuple[Address, int]:
        """
        Raises:
            _Refusal: it cannot be served.
            LinkEnded: the client has left.
        """
        released = self._released[session] = self._loop.create_future()
        destination = session.destination
        try:
            now = self._loop.time()
            self._carry_out(self._fleet.arrive(destination.place, session, now, destination.idle))
            if not released.done():
                await self._wait_parked(session.client, released)
            outcome: tuple[Address, int] = await released
            return outcome
        finally:
            del self._released[session]
            self._fleet.leave(session)

    async def _wait_parked(self, client: Link, released: asyncio.Future[Any]) -> None:
        """
        Raises:
            LinkEnded: the client has left.
        """
        leaving = asyncio.ensure_future(client.readable())
        try:
            await asyncio.wait([released, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not released.done():
                await leaving  # who left, raises; who only says something early, waits on
        finally:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)

    def _happened(self, link: Link, event: Event, data: bytes) -> None:
        """To a client that is joined, or was."""
        session = self._sessions.get(link.number)
        if session is None:
            return
        if event is Event.LEFT:
            self._left(session, spoken=data[:1] == b"\1", words=data[1:])
        elif event is Event.AT_REST:
            session.go_on()  # nobody waits for it any more
        elif event is Event.READABLE and session.backend_link is None:
            self._take_up(session)
        elif event is Event.READABLE:
            session.spoke = True
        elif event is Event.ENDED:
            self._forget(session)

    def _left(self, session: Session, *, spoken: bool, words: bytes) -> None:
        """Its backend ended while it was at rest. Its state holds if nothing was said since."""
        if session.state is None or spoken or _said(words) == _IDLE_TOO_LONG:
            session.lose(words or GONE)
            return
        address, attempt, place = session.address, session.attempt, session.destination.place
        session.let_go()
        if session.state.listens and address is not None and self.state(place) is State.AWAKE:
            # Others go on there, and may notify; or it is all gone, which then shows.
            self._bring(session, self._bring_back(session, address, attempt))

    def _take_up(self, session: Session) -> None:
        """A session that slept: its client has spoken."""
        if session.coming is None:
            self._bring(session, self._return(session))
        else:
            session.spoke = True  # for somebody who brings it back unasked, and may fail

    def _bring(self, session: Session, coming: Coroutine[Any, Any, None]) -> None:
        session.coming = self._spawn(coming)

    async def _return(self, session: Session) -> None:
        """Takes it up for what its client says: where that is good-bye, nobody is woken."""
        link = session.client
        try:
            said = await link.read()
            if said[:1] == _TERMINATE:
                link.close()
            else:
                await self._enter(session, said)
        except _Refusal as refusal:
            link.send(refusal.told)
            link.close()
        except CarryFailed as error:
            told = messages.error_response(
                "57P01",
                f"the session could not be taken up again: {error}",
                hint="Connect anew: the database itself is well.",
            )
            link.send(told)
            link.close()
        except LinkEnded:
            self._forget(session)
        except Exception as error:
            _log.error("a return failed", exc_info=error)
            link.send(messages.error_response("XX000", "the proxy failed; its log says why"))
            link.close()
        finally:
            session.coming = None

    async def _bring_back(self, session: Session, address: Address, attempt: int) -> None:
        """Takes it up unasked; if that fails, it sleeps on."""
        try:
            await self._enter_at(session, address, attempt, b"")
        except (_Refusal, CarryFailed, LinkEnded) as error:
            _log.warning("a listener stays away", error=str(error))
        except Exception as error:
            _log.error("a return failed", exc_info=error)
        finally:
            session.coming = None
        self._parting.heed(session)

    async def _bring_listeners_back(self, place: Place, address: Address, attempt: int) -> None:
        """Before others are let in, who could notify them."""
        listeners = [item for item in self._parting.at(place) if item.state and item.state.listens]
        for session in listeners:
            if session.coming is None and session.backend_link is None:
                self._bring(session, self._bring_back(session, address, attempt))
        deadline = self._loop.time() + LISTENERS_SECONDS
        while self._loop.time() < deadline:
            coming = [session for session in listeners if session.coming is not None]
            if not coming:
                return
            for session in coming:  # some are parked, since their clients have spoken
                self._settle(session, (address, attempt))
            await asyncio.sleep(PAUSE_SECONDS)

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.client.number, None)
        self._keys.revoke(session.cancel_key)

    # Places

    def _carry_out(self, actions: list[_Action]) -> None:
        for action in actions:
            match action:
                case Start(place, attempt):
                    self._spawn(self._start(place, attempt))
                case Stop(place, attempt):
                    self._spawn(self._stop(place, attempt))
                case Release(session, address, attempt):
                    self._settle(session, (address, attempt))
                case Refuse(session, sqlstate, message, hint):
                    told = messages.error_response(sqlstate, message, hint=hint)
                    self._settle(session, _Refusal(told))

    def _settle(self, session: Session, outcome: tuple[Address, int] | _Refusal) -> None:
        future = self._released.get(session)
        if future is None or future.done():
            return
        if isinstance(outcome, _Refusal):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    async def _start(self, place: Place, attempt: int) -> None:
        began = self._loop.time()
        try:
            with tracing.span("wake", database=place.name, point=place.point):
                address = await self._places.start(place)
        except PagestoreError as error:
            self.counts.failed_wakes += 1
            hint = error.hint or ""
            told = self._fleet.failed(
                place, attempt, _sqlstate(error), error.message, hint, self._loop.time()
            )
        except Exception as error:
            self.counts.failed_wakes += 1
            _log.error("a start failed", place=str(place), exc_info=error)
            told = self._fleet.failed(
                place, attempt, "XX000", "the proxy failed; its log says why", "", self._loop.time()
            )
        else:
            await self._bring_listeners_back(place, address, attempt)
            took = self.counts.latest[place] = self._loop.time() - began
            self.counts.wakes.add(took)
            told = self._fleet.started(place, attempt, address, self._loop.time())
        self._carry_out(told)

    async def _stop(self, place: Place, attempt: int) -> None:
        now = self._loop.time
        if not await self._parting.take_down(place):
            self._carry_out(self._fleet.kept_awake(place, attempt, now()))
            return
        try:
            hindrance = await self._places.stop(place)
        except PagestoreError as error:
            _log.warning("a stop failed", place=str(place), error=str(error))
            hindrance = error.message
        if hindrance:
            self.hindrances[place] = hindrance
            self._carry_out(self._fleet.kept_awake(place, attempt, now()))
        else:
            self.hindrances.pop(place, None)
            self.counts.latest.pop(place, None)
            self._carry_out(self._fleet.stopped(place, attempt, now()))

    async def carry_out(
        self, place: Place, words: bytes, seconds: float, *, end_all: bool = False
    ) -> tuple[int, int]:
        """What runs there is about to be ended by somebody else, who has a next compute for the
        place or none. Parts every session from its backend; how many go on, and how many ended.

        Args:
            words: what sessions that cannot be carried are told.
            seconds: for sessions at work to come to rest.
            end_all: none goes on.
        """
        now = self._loop.time()
        self._ending.begin(place, self._fleet.address(place), now)
        self._carry_out(self._fleet.left(place, now))
        if end_all:
            self._places.forget(place)
            return 0, await self._parting.end_all(place, words)
        return await self._parting.carry_out(place, words, seconds)

    def _is_entered(self, place: Place) -> bool:
        """Whether somebody was released into a place, and is not joined yet."""
        released = [item for item, future in self._released.items() if future.done()]
        return any(item.destination.place == place for item in (*self._entering, *released))

    async def _watch(self) -> None:
        """Tells the fleet what sessions do, and the time."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._loop.time()
            activity = self.links.activity()
            occupied = self._activity(activity, now)
            for place, (attempt, active_at, busy) in occupied.items():
                self._fleet.activity(place, attempt, active_at, busy=busy)
            self._fleet.unoccupied(occupied)
            self._carry_out(self._fleet.tick(now))
            self._write_all_down(activity)

    async def _adopt_for_ever(self) -> None:
        """Takes up what others have started, and loses what others have ended."""
        while True:
            before, asked_at = self._fleet.awake(), self._loop.time()
            try:
                found = await self._places.awake()
            except PagestoreError as error:
                _log.warning("who is awake is not known", error=str(error))
            else:
                self._adopt(found, before, asked_at)
            await asyncio.sleep(ADOPT_SECONDS)

    def _adopt(
        self,
        found: list[tuple[Place, Address, float | None]],
        before: dict[Place, int],
        asked_at: float,
    ) -> None:
        """
        Args:
            before: who was awake when it was asked what is.
        """
        now, running = self._loop.time(), {place for place, _, _ in found}
        for place, attempt in before.items():
            if place not in running:
                self.counts.latest.pop(place, None)
                self._carry_out(self._fleet.lost(place, attempt, now))
        for place, address, idle in found:
            if not self._ending.concerns(place, address, asked_at):
                self._fleet.adopt(place, address, now, idle)

    def _write_all_down(self, activity: list[Activity]) -> None:
        """The sessions that have come to rest, where nothing else is about to happen."""
        for item in activity:
            session = self._sessions.get(item.client)
            if session is None or session.going_down:
                continue
            changed = item.spoken or not session.tried
            rests = item.at_rest and item.idle_seconds >= WRITE_DOWN_SECONDS
            if changed and rests and self.state(session.destination.place) is State.AWAKE:
                self._spawn(self._parting.write_down(session))

    def _activity(
        self, activity: list[Activity], now: float
    ) -> dict[Place, tuple[int, float, bool]]:
        found: dict[Place, tuple[int, float, bool]] = {}
        for item in activity:
            session = self._sessions.get(item.client)
            if session is None:
                continue
            place = session.destination.place
            _, active_at, busy = found.get(place, (0, -math.inf, False))
            latest = max(active_at, now - item.idle_seconds)
            found[place] = (session.attempt, latest, busy or not item.at_rest)
        return found


def _said(words: bytes) -> str:
    """The SQLSTATE of a backend's last words; nothing where those say none."""
    try:
        found = MessageReader(MAX_WORDS).feed(words)
    except ProtocolViolation:
        return ""
    return next((read_error(item.body).get("C", "") for item in found if item.kind == b"E"), "")


def _sqlstate(error: PagestoreError) -> str:
    return _NOT_NOW.get(error.reason) or _SQLSTATES.get(error.code, "58000")
