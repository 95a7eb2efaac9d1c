"""The logs that were found at a start, until the others have said what they remember of them.

The rule is pagestore.consensus.testimony; this has the patience. A log on trial is there and is
read as far as it is known to be committed, but promises, follows and confirms nothing, and its
peers are told nothing of it, but for what they themselves have said. One that turns out to be an
older copy stays like that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from pagestore.consensus.acceptor import Heard, State, position_of
from pagestore.consensus.testimony import contradicts, may_speak
from pagestore.errors import DataLoss, Unavailable
from pagestore.ids import format_lsn
from pagestore.walservice.watch import TimelineKey

PATIENCE_SECONDS = 1.0
"""For those who do not answer, from when they are first asked."""
_log = structlog.get_logger(__name__)


class Trials:
    """Of one event loop.

    Args:
        on_end: a log counts from now on.
        on_late: a peer remembers this of a log that counts; whether it is more than it has, for
            there was no patience to wait for that peer. It is on trial again then.
    """

    def __init__(
        self,
        on_end: Callable[[TimelineKey, State], None],
        on_late: Callable[[TimelineKey, Heard], bool],
    ) -> None:
        self._on_end = on_end
        self._on_late = on_late
        self._on_trial: dict[TimelineKey, State | None] = {}
        self._testimony: dict[TimelineKey, dict[int, Heard]] = {}
        self._spoken: set[int] = set()
        self._heard_from: set[int] = set()
        self._patient_until = float("inf")
        self._change = asyncio.Event()

    def begin(self, keys: Iterable[TimelineKey]) -> None:
        """What was found at the start."""
        self._on_trial.update(dict.fromkeys(keys))

    def start(self) -> None:
        """The peers are asked from now on."""
        self._patient_until = time.monotonic() + PATIENCE_SECONDS
        asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._judge)

    def forget(self, key: TimelineKey) -> None:
        self._on_trial.pop(key, None)
        self._testimony.pop(key, None)

    def spoken(self, number: int, *, all_of_it: bool) -> None:
        """A peer has said something, or all that it remembers."""
        if number in self._spoken or (number in self._heard_from and not all_of_it):
            return
        self._heard_from.add(number)
        if all_of_it:
            self._spoken.add(number)
        self._judge()

    def testify(self, number: int, key: TimelineKey, remembered: Heard) -> None:
        """A peer remembers this of our own log."""
        if key in self._on_trial or self._on_late(key, remembered):
            known = self._testimony.setdefault(key, {})
            known[number] = max(known.get(number, remembered), remembered)

    def note(self, key: TimelineKey, state: State) -> None:
        """What the log on disk says of itself."""
        if key in self._on_trial:
            self._on_trial[key] = state

    def is_on_trial(self, key: TimelineKey, state: State) -> bool:
        if key not in self._on_trial:
            return False
        if self._may_speak(state) and self.fault(key, state) is None:
            self.forget(key)
            return False
        return True

    async def end(self, key: TimelineKey, state: State) -> None:
        """Waits until the log counts.

        Raises:
            DataLoss: LOG_ROLLED_BACK.
            Unavailable: PEERS_SILENT.
        """
        while True:
            fault = self.fault(key, state)
            if fault is not None:
                raise fault
            if not self.is_on_trial(key, state):
                return
            left = self._patient_until - time.monotonic()
            if left <= 0:
                raise self._silence(key, state)
            try:
                async with asyncio.timeout(min(left, PATIENCE_SECONDS)):
                    await self._change.wait()
            except TimeoutError:
                continue

    def fault(self, key: TimelineKey, state: State) -> DataLoss | None:
        """Why the log can never count, as it is."""
        own = position_of(state)
        for number, remembered in self._testimony.get(key, {}).items():
            if contradicts(remembered, own):
                return _rolled_back(key, number, remembered, own)
        return None

    def _may_speak(self, state: State) -> bool:
        if state.alone:
            return True
        patient = time.monotonic() < self._patient_until
        spoken = self._spoken if patient else self._heard_from
        return may_speak(state.member, state.configuration, spoken, patient=patient)

    def _judge(self) -> None:
        for key, state in list(self._on_trial.items()):
            if state is None:
                continue
            fault = self.fault(key, state)
            if fault is not None:
                _log.error("an older copy", timeline=str(key.timeline), error=fault.message)
            elif not self.is_on_trial(key, state):
                self._on_end(key, state)
        self._change.set()
        self._change = asyncio.Event()

    def _silence(self, key: TimelineKey, state: State) -> Unavailable:
        silent = {item.number for item in state.peers} - self._heard_from
        return Unavailable(
            "PEERS_SILENT",
            f"Whether the log of timeline {key.timeline} is an older copy is for its other "
            f"safekeepers to say, and too few answer; away: {', '.join(map(str, sorted(silent)))}.",
            "Start them: `pagestore status` shows which are down. If `pagestore safekeepers` lists "
            "them no more, they were replaced, and this is a copy from before that: remove the "
            "timeline's directory, and the safekeeper comes back as a new member.",
        )


def _rolled_back(key: TimelineKey, number: int, remembered: Heard, own: Heard) -> DataLoss:
    said = (
        f"it once promised term {remembered.promised} and had the log of term {remembered.term} up "
        f"to {format_lsn(remembered.flush_lsn)}; here are {own.promised}, {own.term} and "
        f"{format_lsn(own.flush_lsn)}"
    )
    return DataLoss(
        "LOG_ROLLED_BACK",
        f"The log of timeline {key.timeline} at safekeeper {own.member.number} is an older copy. "
        f"Safekeeper {number} remembers that {said}.",
        "Restore the newest copy of the safekeeper's directory. If there is none, remove the "
        "timeline's directory below it: the safekeeper comes back as a new member, filled by the "
        "others. Nothing was promised, confirmed or cut here.",
    )
