"""The WAL that a plain cluster left behind, and what pg_waldump says of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pagestore import _native
from pagestore.errors import DataLoss
from pagestore.ids import format_lsn, parse_lsn
from pagestore.keyspace import SETTINGS
from pagestore.pg_control_values import pack_settings
from pagestore.pgformat import wal
from pagestore.pgformat.versions import Version
from pagestore.v1 import page_pb2
from tests.plain_postgres import BINDIR, VERSION, PlainPostgres, unprivileged


def empty_meta(version: Version = VERSION) -> _native.MetaTable:
    """Nothing but of which Postgres a log is."""
    meta = _native.MetaTable()
    settings = page_pb2.ControlSettings(catalog_version=version.catalog_version)
    meta.put(SETTINGS.pack(), pack_settings(settings))
    return meta


@dataclass(repr=False)
class WalLog:
    """The kept segments of a stopped cluster, as one run of bytes from a segment's start."""

    cluster: PlainPostgres
    start: int
    data: bytes

    @classmethod
    def of(cls, cluster: PlainPostgres) -> WalLog:
        files = sorted(p for p in (cluster.data / "pg_wal").iterdir() if len(p.name) == 24)
        name = files[0].name
        start = int(name[8:16], 16) << 32 | int(name[16:], 16) * wal.SEGMENT_SIZE
        return cls(cluster, start, b"".join(p.read_bytes() for p in files))

    @property
    def system_id(self) -> int:
        return int.from_bytes(self.data[24:32], "little")

    @property
    def first_record(self) -> int:
        """The first end of a record in the log."""
        rem_len = int.from_bytes(self.data[16:20], "little")
        return self.start + (wal.LONG_HEADER + wal.align8(rem_len) if rem_len else 0)

    def slice(self, start: int, end: int) -> bytes:
        return self.data[start - self.start : end - self.start]

    def records(self) -> Iterator[wal.RecordHeader]:
        """By the Python reference, up to the first bytes that are no record."""
        data = self.data[self.first_record - self.start :]
        reader = wal.read_records(data, self.first_record, version=VERSION)
        while True:
            try:
                yield next(reader)
            except (DataLoss, StopIteration):
                return

    def waldump(self, *options: str) -> str:
        return waldump(self.cluster.data / "pg_wal", self.start, *options)


def waldump(directory: Path, start: int, *options: str) -> str:
    """pg_waldump's lines; it always ends with an error, that of reading past the end."""
    command = [str(BINDIR / "pg_waldump"), "-p", str(directory), "-s", format_lsn(start), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **unprivileged())
    return done.stdout


_LINE = re.compile(r"len \(rec/tot\):\s*\d+/\s*(\d+),.*?lsn: (\S+), prev (\S+),")


def framing(dump: str) -> list[tuple[int, int, int]]:
    """(lsn, total length, prev) of each record in pg_waldump's lines."""
    return [(parse_lsn(m[2]), int(m[1]), parse_lsn(m[3])) for m in _LINE.finditer(dump)]
