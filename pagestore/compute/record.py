"""The record of a compute: which process it is, what it runs, and what else is its own.

It lies where its server cannot write::

    DIR/<name>/                     ours; the server's user may pass through
    DIR/<name>/compute.json         the record: ours alone
    DIR/<name>/pg_hba.conf, pg_ident.conf, pagestore.synchronous.conf, pagestore.token
                                    ours; the server reads them
    DIR/<name>/data/                the server's: whatever is in here is data, see
                                    :mod:`pagestore.postgres.untrusted`
    DIR/<name>/run/                 the server's: its Unix socket

By the record a control plane that was restarted finds the computes that outlived it, and ends
those that nobody should have. It is also the mark of a directory: one without it is not ours to
remove. So it is written before anything else in there, with a process that is none yet.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import structlog

from pagestore import durable
from pagestore._native import crc32c
from pagestore.compute.sandbox import NOBODY, Sandbox, WalledServer
from pagestore.errors import PagestoreError
from pagestore.ids import TenantId, TimelineId
from pagestore.postgres.process import Identity, ServerProcess
from pagestore.postgres.settings import SOCKET_PREFIX
from pagestore.postgres.untrusted import open_root, read_regular
from pagestore.postgres.wal_role import WAL_ROLE
from pagestore.tokens import Signer

RECORD_FILE = "compute.json"
_VERSION = 2
_LONGEST = 65_536
_CONNECT_SECONDS = 10
"""Whoever listens on the socket need not be a server."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ComputeRecord:
    """The content of compute.json.

    Args:
        name: the compute's; empty where it is the directory's.
        outside: directories of this compute alone that lie elsewhere.
        sandbox: the processes around the server; None where there are no walls.
        groups: control groups of this compute alone.
        uid: the user that the server runs as, where it has one of its own; else 0.
        certificate: what the server shows at `host`, as base64url of DER.
        ready: commits have worked.
    """

    tenant: TenantId
    timeline: TimelineId
    port: int
    socket_directory: str
    log: str
    name: str = ""
    outside: tuple[str, ...] = ()
    process: Identity = NOBODY
    sandbox: Sandbox | None = None
    uid: int = 0
    groups: tuple[str, ...] = ()
    term: int = 0
    start_lsn: int = 0
    read_lsn: int = 0
    """As of which it reads what it has not fetched yet; 0 where an earlier version started it."""
    system_id: int = 0
    superuser: str = ""
    database: str = ""
    host: str = ""
    wal_password: str = field(default="", repr=False)
    certificate: str = ""
    ready: bool = False
    started_micros: int = 0
    """When it became ready, since 1970; 0 where an earlier version started it."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.alive

    def of_process(self, pid: int) -> ComputeRecord:
        return replace(self, process=Identity.of(pid) or NOBODY)

    def of_outer(self, pid: int) -> ComputeRecord:
        """With the outermost process of its walls; the others are not known yet."""
        return replace(self, sandbox=Sandbox(Identity.of(pid) or NOBODY))

    def of_server(self, server: WalledServer) -> ComputeRecord:
        return replace(self, process=server.server, sandbox=server.sandbox)

    def server(self) -> ServerProcess | None:
        """The server that runs; None when it, or what holds it within its walls, is gone."""
        if self.sandbox is None:
            return ServerProcess.find(self.process)
        return WalledServer.of(self.sandbox, self.process)

    def end_sandbox(self) -> None:
        """Ends what a superuser's programs have left running within the walls."""
        if self.sandbox is not None:
            self.sandbox.end()

    def now_ready(self) -> ComputeRecord:
        return replace(self, ready=True, started_micros=time.time_ns() // 1000)

    @property
    def socket(self) -> Path:
        """Where the server listens."""
        return Path(self.socket_directory) / f"{SOCKET_PREFIX}{self.port}"

    def conninfo(self) -> str:
        """libpq keywords for the superuser over the Unix socket."""
        return _conninfo(
            host=self.socket_directory,
            port=str(self.port),
            user=self.superuser,
            dbname=self.database,
            connect_timeout=str(_CONNECT_SECONDS),
        )

    def wal_conninfo(self) -> str:
        """Keywords, as of libpq, by which safekeepers reach the walsender. May hold a password."""
        port = str(self.port)
        if not self.host:
            return _conninfo(host=self.socket_directory, port=port, user=self.superuser)
        words = {"user": WAL_ROLE, "password": self.wal_password, "certificate": self.certificate}
        return _conninfo(host=self.host, port=port, **words)

    def signed_for_safekeepers(self, signer: Signer | None) -> str:
        """The same, as they believe it."""
        if signer is None:
            return self.wal_conninfo()
        return signer.sign_address(self.tenant, self.timeline, self.term, self.wal_conninfo())

    def save(self, directory: Path) -> None:
        facts = asdict(self) | {
            "version": _VERSION,
            "tenant": str(self.tenant),
            "timeline": str(self.timeline),
        }
        facts["crc32c"] = _checksum(facts)
        temporary = directory / f"{RECORD_FILE}.tmp"
        with durable.begin(temporary) as file:
            file.write(json.dumps(facts, indent=1).encode())
        temporary.replace(directory / RECORD_FILE)

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """None when there is none that is ours and can be read."""
        facts = facts_in(directory, os.geteuid())
        try:
            if facts.pop("version") != _VERSION:
                return None
            facts.pop("crc32c", None)
            facts["tenant"] = TenantId.parse(str(facts["tenant"]))
            facts["timeline"] = TimelineId.parse(str(facts["timeline"]))
            process = _identity(facts.pop("process"))
            if (sandbox := facts.pop("sandbox", None)) is not None:
                sandbox = Sandbox(*map(_identity, sandbox))
            facts["outside"] = tuple(map(str, facts["outside"]))
            facts["groups"] = tuple(map(str, facts.get("groups", ())))
            return cls(process=process, sandbox=sandbox, **facts)
        except (ValueError, TypeError, KeyError, PagestoreError):
            return None


def _identity(words: Any) -> Identity:
    pid, ticks, boot = words
    return Identity(int(pid), int(ticks), str(boot))


def facts_in(directory: Path, owner: int) -> dict[str, Any]:
    """What stands in the record of a directory that belongs to a user; nothing where there
    is none that can be read."""
    try:
        root = open_root(directory)
    except OSError:
        return {}
    try:
        text = read_regular(root, RECORD_FILE, _LONGEST)
        is_owners = os.fstat(root).st_uid == owner
    finally:
        os.close(root)
    try:
        facts = json.loads(text or b"{}") if is_owners else {}
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or facts.get("crc32c", _checksum(facts)) != _checksum(facts):
        _log.error(
            "a compute's record is damaged: what it names is left alone",
            file=str(directory / RECORD_FILE),
            hint="End its Postgres by hand, if it runs, and remove the directory.",
        )
        return {}
    return facts


def _checksum(facts: Mapping[str, Any]) -> int:
    """Of everything but itself, in whatever order it stands."""
    others = {name: value for name, value in facts.items() if name != "crc32c"}
    return crc32c(json.dumps(others, sort_keys=True).encode())


def running_computes(computes: Path) -> list[ComputeRecord]:
    """The computes that run now, by the records in a directory of computes' directories."""
    found = (ComputeRecord.load(directory) for directory in sorted(computes.glob("*/")))
    return [record for record in found if record is not None and record.is_running]


def _conninfo(**words: str) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in words.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
