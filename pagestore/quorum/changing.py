"""Carries a change of members out, while the compute goes on.

The decisions are pagestore.consensus.change's. Here are the calls, the compute's rule, and the
attaching of learners: they have to follow the compute before anybody counts on them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from pagestore.consensus.change import Action, Admit, MembershipChange, RuleIs, Send, SetRule
from pagestore.consensus.election import Blank, Declined, Fill, Message, Reached
from pagestore.errors import Aborted, PagestoreError, Unavailable
from pagestore.quorum.safekeepers import Key, Safekeepers

PATIENCE = 0.5
"""Seconds between two askings."""
STUCK_SECONDS = 30.0
"""Without any answer, it is given up: whoever tries again finds how far it came."""


class Follows(Protocol):
    """What a change needs of the running compute."""

    async def set_rule(self, rule: str) -> int:
        """Whom commits wait for; the end of all that was committed by another rule."""
        ...

    async def attach(self, number: int, lsn: int) -> None:
        """Has a safekeeper follow the compute from the end of its log on."""
        ...


class Changing:
    """One change under way.

    Args:
    """

    def __init__(
        self,
        safekeepers: Safekeepers,
        key: Key,
        change: MembershipChange,
        compute: Follows,
    ) -> None:
        self._safekeepers, self._key = safekeepers, key
        self._change, self._compute = change, compute
        self._asked: dict[int, asyncio.Task[Message]] = {}
        self._attached: set[int] = set()
        self._filling: set[int] = set()
        self._said: dict[int, str] = {}

    async def run(self) -> None:
        """
        Raises:
            Aborted: STALE_TERM.
            Unavailable: CHANGE_STUCK.
        """
        loop = asyncio.get_running_loop()
        progress, deadline = self._progress(), loop.time() + STUCK_SECONDS
        try:
            await self._do(self._change.retry())
            while not self._change.done:
                if progress != (progress := self._progress()) or self._is_filling():
                    deadline = loop.time() + STUCK_SECONDS
                if loop.time() > deadline:
                    raise self._stuck()
                if not await self._some():
                    await self._do(self._change.retry())
        finally:
            for task in self._asked.values():
                task.cancel()
            await asyncio.gather(*self._asked.values(), return_exceptions=True)

    def _progress(self) -> tuple[object, ...]:
        """Changes when somebody has done what is waited for."""
        change = self._change
        return change.stage, change.configuration.generation, change.waiting_for

    def _is_filling(self) -> bool:
        """That takes as long as it takes."""
        return bool(self._filling & self._asked.keys())

    async def _some(self) -> bool:
        """Takes in the answers that come; whether there were any but failures."""
        if not self._asked:
            await asyncio.sleep(PATIENCE / 5)
            return False
        waiting = self._asked.values()
        done, _ = await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        answered = False
        for number, task in list(self._asked.items()):
            if task in done:
                del self._asked[number]
                answered |= await self._take(number, task)
        if done and not answered:
            # Who is away may refuse at once, and would be asked thousands of times a second.
            await asyncio.sleep(PATIENCE / 5)
        return answered

    async def _take(self, number: int, task: asyncio.Task[Message]) -> bool:
        error = task.exception()
        if isinstance(error, PagestoreError):
            self._said[number] = str(error)
            return False
        message = task.result()
        if isinstance(message, Declined):
            raise Aborted("STALE_TERM", f"Term {message.term} of {self._key[1]} has been promised.")
        assert isinstance(message, Reached | Blank)
        if isinstance(message, Reached) and message.flush_lsn >= self._change.level:
            await self._follow(message)
        await self._do(self._change.step(message))
        return True

    async def _follow(self, message: Reached) -> None:
        number = message.member.number
        is_member = message.member in self._change.configuration.members
        if is_member or number in self._attached:
            return
        await self._compute.attach(number, message.flush_lsn)
        self._attached.add(number)

    async def _do(self, actions: Iterable[Action]) -> None:
        """One question at a time to each."""
        for action in actions:
            if isinstance(action, SetRule):
                lsn = await self._compute.set_rule(action.configuration.standby_names)
                await self._do(self._change.step(RuleIs(action.configuration.generation, lsn)))
            elif action.number not in self._asked:
                self._ask(action)

    def _ask(self, action: Admit | Fill | Send) -> None:
        self._filling -= {action.number}
        if isinstance(action, Fill):
            self._filling.add(action.number)
        asking = self._safekeepers.ask(action, self._key, self._change.level)
        self._asked[action.number] = asyncio.create_task(asking)

    def _stuck(self) -> PagestoreError:
        waiting = ", ".join(map(str, self._change.waiting_for))
        said = "; ".join(f"{number}: {text}" for number, text in sorted(self._said.items()))
        return Unavailable(
            "CHANGE_STUCK",
            f"The members of {self._key[1]} do not change: waiting for safekeeper {waiting}, "
            f"stage {self._change.stage.value}. {said}".rstrip(),
        )
