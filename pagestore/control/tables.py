"""Records in tables, over any way of getting values."""

from __future__ import annotations

from typing import TypeVar

from pagestore.control.records import Record

_R = TypeVar("_R", bound=Record)


class Tables:
    def _get(self, table: str, key: bytes) -> bytes | None:
        raise NotImplementedError

    def _scan(self, table: str, prefix: bytes) -> list[tuple[bytes, bytes]]:
        raise NotImplementedError

    def _has(self, table: str, prefix: bytes) -> bool:
        raise NotImplementedError

    def _one(self, kind: type[_R], table: str, key: bytes) -> _R | None:
        raw = self._get(table, key)
        return None if raw is None else kind.decode(raw, f"{table} {key!r}")

    def _all(self, kind: type[_R], table: str, prefix: bytes) -> list[_R]:
        return [kind.decode(raw, f"{table} {key!r}") for key, raw in self._scan(table, prefix)]


class WrittenTables(Tables):
    """Within one transaction."""

    def _put(self, table: str, key: bytes, value: bytes) -> None:
        raise NotImplementedError

    def _delete(self, table: str, key: bytes) -> None:
        raise NotImplementedError
