"""What must never happen, watched by somebody who sees everything."""

from __future__ import annotations

from collections.abc import Iterable

from tests.simulation.world import Record


class Violation(AssertionError):
    """What must never happen did."""


class Stuck(AssertionError):
    """What must happen in the end did not."""


class Ledger:
    """`committed`: every record that anybody called committed, with the lowest term that did.
    `elected`: of every elected term, the log below its start."""

    def __init__(self) -> None:
        self.committed: dict[int, tuple[Record, int]] = {}
        self.elected: dict[int, frozenset[Record]] = {}
        self.acknowledged = 0
        self.cuts = 0
        self.served = 0
        self._last_elected = 0

    def commit(self, records: Iterable[Record], by_term: int, who: str) -> None:
        """A safekeeper's commit LSN, or a compute's answer to its client, has passed these."""
        for record in records:
            known, term = self.committed.get(record.start, (None, by_term + 1))
            if known is not None and known != record:
                raise Violation(f"{who} commits {record}, but {known} was committed there")
            if term <= by_term:
                continue
            self.committed[record.start] = (record, by_term)
            if self._last_elected > by_term:
                self._is_in_later_logs(record, by_term, who)

    def _is_in_later_logs(self, record: Record, by_term: int, who: str) -> None:
        for later, log in self.elected.items():
            if later > by_term and record not in log:
                raise Violation(f"{who} commits {record} in {by_term}; {later} began without")

    def acknowledge(self, records: list[Record], term: int, who: str) -> None:
        self.acknowledged += len(records)
        self.commit(records, term, who)

    def reached(self, term: int, log: frozenset[Record], who: str) -> None:
        """The log of a safekeeper has come to where `term` begins."""
        known = self.elected.get(term)
        if known is not None:
            if known != log:
                raise Violation(f"{who} begins term {term} with another log: {known ^ log}")
            return
        self.elected[term] = log
        self._last_elected = max(self._last_elected, term)
        for record, by_term in self.committed.values():
            if by_term < term and record not in log:
                raise Violation(f"term {term} begins without {record}, committed in {by_term}")

    def cut(self, records: list[Record], who: str) -> None:
        self.cuts += len(records)
        for record in records:
            if self.committed.get(record.start, (None, 0))[0] == record:
                raise Violation(f"{who} cuts {record}, which is committed")

    def read(self, records: Iterable[Record]) -> None:
        """What the page server has ingested can never be taken back."""
        for record in records:
            self.served += 1
            if self.committed.get(record.start, (None, 0))[0] != record:
                raise Violation(f"the reader was given {record}, which is not committed")
