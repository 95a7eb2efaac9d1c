"""What a timeline needs of the safekeeper around it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pagestore.consensus.acceptor import Attachment, Heard, State
from pagestore.errors import DataLoss
from pagestore.walservice.compute_address import ComputeAddress
from pagestore.walservice.owner import Owner


class TimelineHost(Protocol):
    owner: Owner

    def share(self, spare: int) -> int:
        """So many bytes of its files nobody needs; how many of them may stay."""

    def moved(self, state: State) -> None:
        """A position or the term has changed; `state` is what others may be told of."""

    def recall(self) -> Iterable[Heard]:
        """What peers have told of this timeline."""

    def ask(self) -> None:
        """Has peers say how far they are, before it is their time."""

    def is_on_trial(self, state: State) -> bool:
        """Whether the log may be an older copy, or is one (trial.py)."""

    async def end_trial(self, state: State) -> None:
        """Returns when it is known to be none; raises DataLoss, Unavailable."""

    def fault(self, state: State) -> DataLoss | None:
        """What the peers remember, and the log does not have."""

    def believed(self, attachment: Attachment) -> ComputeAddress:
        """Where the compute is; raises PermissionDenied, InvalidInput, FailedPrecondition if it may
        not be believed."""
