"""The tables of what databases have cost; usage.py says what is in them."""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator

from pagestore.control.records import HourRecord, SourceRecord
from pagestore.control.tables import Tables, WrittenTables
from pagestore.ids import TenantId

_TENANT_BYTES = 16
_USAGE = struct.Struct(">QI")


class UsageRead(Tables):
    def usage(
        self, tenant: TenantId | None = None, hours: Container[int] | None = None
    ) -> Iterator[tuple[TenantId, int, int, HourRecord]]:
        """Tenant, when the database was created, hour; in this order.

        Args:
            hours: those that are wanted; None for all.
        """
        for key, raw in self._scan("usage", tenant.raw if tenant else b""):
            created, hour = _USAGE.unpack_from(key, _TENANT_BYTES)
            if hours is not None and hour not in hours:
                continue
            yield TenantId(key[:16]), created, hour, HourRecord.decode(raw, f"usage {key!r}")

    def usage_source(self, source: str) -> SourceRecord | None:
        return self._one(SourceRecord, "usage_sources", source.encode())


class UsageWritten(UsageRead, WrittenTables):
    def add_usage(self, tenant: TenantId, created: int, hour: int, more: HourRecord) -> None:
        key = tenant.raw + _USAGE.pack(created, hour)
        before = self._one(HourRecord, "usage", key) or HourRecord()
        self._put("usage", key, before.and_more(more).encode())

    def put_usage_source(self, source: str, record: SourceRecord) -> None:
        self._put("usage_sources", source.encode(), record.encode())

    def remove_usage_before(self, hour: int) -> None:
        for key, _ in self._scan("usage", b""):
            if _USAGE.unpack_from(key, _TENANT_BYTES)[1] < hour:
                self._delete("usage", key)

    def remove_sources_before(self, micros: int) -> None:
        for key, raw in self._scan("usage_sources", b""):
            if SourceRecord.decode(raw, f"usage_sources {key!r}").until < micros:
                self._delete("usage_sources", key)
