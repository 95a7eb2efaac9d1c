"""What a compute's server is told: postgresql.conf, pg_hba.conf, the command line.

Three ranks. What keeps the directory usable is on the command line, where neither ALTER SYSTEM
nor a user's file can change it. Whose confirmation a commit waits for is in a file of its own,
since it changes with the safekeepers while the server runs: postgresql.conf includes it last,
and the shim refuses it to ALTER SYSTEM. Everything else is in postgresql.conf, and what the user
has set in postgresql.auto.conf (:mod:`pagestore.postgres.user_settings`).

That file and those of who may log in lie outside the data directory, where the server can read
and not write: we replace the first while it runs.

A setting that Postgres keeps in its control file is taken over from the timeline, raised
where a compute needs more; so a restart logs no PARAMETER_CHANGE record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.pgformat import versions
from pagestore.pgformat.versions import Version
from pagestore.postgres import remote_map
from pagestore.postgres.user_settings import (
    MIN_WAL_SENDERS,
    MIN_WORKER_PROCESSES,
    PRELOADED,
    allowed,
    for_the_shim,
    preloaded,
    quoted,
    render,
)
from pagestore.postgres.wal_role import WAL_ROLE
from pagestore.v1 import page_pb2 as pb

WAL_LEVELS = ("minimal", "replica", "logical")
MIN_CONNECTIONS = 100
MIN_PREPARED_XACTS = 64

DEFAULTS = {
    "shared_buffers": "128MB",
    "datestyle": "iso, mdy",
    "timezone": "Etc/UTC",
    "log_timezone": "Etc/UTC",
    "lc_messages": "C",
    "lc_monetary": "C.UTF-8",
    "lc_numeric": "C.UTF-8",
    "lc_time": "C.UTF-8",
    "default_text_search_config": "pg_catalog.english",
    "password_encryption": "scram-sha-256",
    "log_checkpoints": "off",
    "log_autovacuum_min_duration": "-1",
    "log_line_prefix": "%m [%p] ",
    "min_wal_size": "32MB",
    "max_wal_size": "1GB",
    # Local WAL is not durable anyway: new segments are sparse instead of written with zeros.
    "wal_init_zero": "off",
}

_SYNCHRONOUS = "synchronous_standby_names"
SYNCHRONOUS_FILE = "pagestore.synchronous.conf"
"""Replaced as a whole, then read again at a SIGHUP."""
TOKEN_FILE = "pagestore.token"  # noqa: S105  (a name)
"""What the server shows the page server; renewed while it runs."""
AUTHORITY_FILE = "pagestore.authority.pem"
"""Whose certificates the server believes, where the page server is on another machine."""
CERTIFICATE_FILE, KEY_FILE = "pagestore.certificate.pem", "pagestore.key.pem"
"""What the server shows safekeepers on other hosts."""
AUTO_CONF = "postgresql.auto.conf"
HBA_FILE = "pg_hba.conf"
IDENT_FILE = "pg_ident.conf"
OF_SEVERAL = {
    # Each has peers that fill it: a compute need not keep its WAL for ever.
    "max_slot_wal_keep_size": "1GB",
    # One that is frozen delays nobody for long who has to end all streams.
    "wal_sender_timeout": "5s",
}
"""Settings where there are several safekeepers."""

SOCKET_PORT = 5432
"""In the name of the socket of a server that no other host reaches: its directory has no other."""
SOCKET_PREFIX = ".s.PGSQL."
"""Of a socket's name, before the port."""
_MAP = "pagestore"
_HBA = """\
# pagestore's own user needs no password: the kernel says who knocks. All servers of this
# machine may run as one user, so that user is nobody here.
local  all          {superuser}        peer map={map}
local  replication  {superuser}        peer map={map}
"""
_HBA_ROLE = """\
local  all          {role}  peer map={map}
"""
_HBA_OTHERS = """\
local  all          all                scram-sha-256
"""
_HBA_ANYWHERE = f"""\
# The address is one that other hosts reach, and is there for safekeepers alone.
hostssl  replication  {WAL_ROLE}  all  scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where a server listens and which pages it reads.

    Args:
        host: an address of this machine that other hosts reach; empty for its socket alone.
        files: the directory of HBA_FILE, IDENT_FILE, TOKEN_FILE and SYNCHRONOUS_FILE; with
            `host`, of CERTIFICATE_FILE and KEY_FILE.
        encrypted: what goes to the page server, by AUTHORITY_FILE, which is in `files` then.
    """

    port: int
    socket_directory: Path
    page_server: str
    shim_library: Path
    files: Path
    host: str = ""
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class SessionLibrary:
    """pagestore_session.so, readable by the server's user, and what seals sessions there."""

    path: Path
    key: str = field(repr=False)


def hba(superuser: str, host: str, roles: Iterable[str] = ()) -> str:
    """pg_hba.conf of a server that listens at `host` too, if not empty.

    Args:
        roles: as which our own user enters, too, whatever their passwords are by now: for the
            proxy, which asks for those that the database has now, wherever the server stands.
    """
    local = _HBA.format(superuser=_role(superuser), map=_MAP)
    local += "".join(_HBA_ROLE.format(role=_role(role), map=_MAP) for role in roles)
    return local + _HBA_OTHERS + (_HBA_ANYWHERE if host else "")


def ident(superuser: str, users: Iterable[str], roles: Iterable[str] = ()) -> str:
    """pg_ident.conf: these users of the system are the superuser, and any of `roles`."""
    names = [superuser, *roles]
    return "".join(f"{_MAP}  {_role(user)}  {_role(name)}\n" for user in users for name in names)


def _role(name: str) -> str:
    """As pg_hba.conf and pg_ident.conf take any name."""
    return '"' + name.replace('"', '""') + '"'


def control_settings(settings: pb.ControlSettings) -> dict[str, str]:
    """The settings that the control file of a compute names."""
    level = max(settings.wal_level, WAL_LEVELS.index("replica"))
    return {
        "wal_level": WAL_LEVELS[level],
        "wal_log_hints": _on(settings.wal_log_hints),
        "max_connections": str(max(settings.max_connections, MIN_CONNECTIONS)),
        "max_worker_processes": str(max(settings.max_worker_processes, MIN_WORKER_PROCESSES)),
        "max_wal_senders": str(max(settings.max_wal_senders, MIN_WAL_SENDERS)),
        "max_prepared_transactions": str(max(settings.max_prepared_xacts, MIN_PREPARED_XACTS)),
        "max_locks_per_transaction": str(settings.max_locks_per_xact),
        "track_commit_timestamp": _on(settings.track_commit_timestamp),
    }


def postgresql_conf(settings: pb.ControlSettings, overrides: Mapping[str, str], files: Path) -> str:
    """The file's text; later wins: defaults, the timeline's settings, `overrides`.

    Args:
        files: the directory of SYNCHRONOUS_FILE.
    """
    values = {**DEFAULTS, **control_settings(settings), **overrides}
    included = quoted("include", str(files / SYNCHRONOUS_FILE))
    return render(values) + f"include {included}\n"


def quorum_rule(needed: int, standbys: Iterable[str]) -> str:
    """Commits wait for `needed` of these."""
    return f"ANY {needed} ({', '.join(standbys)})"


def synchronous_conf(rule: str) -> str:
    """The text of SYNCHRONOUS_FILE."""
    return render({_SYNCHRONOUS: rule})


def auto_conf(user: Mapping[str, str]) -> str:
    """postgresql.auto.conf, which Postgres reads after all else: a user's settings, without what
    is not his to say."""
    return "# Do not edit this file manually!\n" + render(allowed(user))


def pages_settings(tenant: TenantId, timeline: TimelineId, lsn: int) -> dict[str, str]:
    """What a parked server is told of its pages: whose they are, and at which LSN they are read."""
    return {
        "pagestore.tenant_id": str(tenant),
        "pagestore.timeline_id": str(timeline),
        "pagestore.lsn": format_lsn(lsn),
    }


def line_settings(
    shim: Path, user: Mapping[str, str], session: SessionLibrary | None
) -> dict[str, str]:
    """What it is told besides: the libraries, the user's own behind ours, what it must refuse him,
    and the key of his sessions, which stands in no file and on no command line."""
    ours = [shim, session.path] if session is not None else [shim]
    return {
        PRELOADED: preloaded(ours, user.get(PRELOADED, "")),
        "pagestore.fixed_settings": for_the_shim(),
        **({"pagestore_session.key": session.key} if session is not None else {}),
    }


def command_line(place: ServerPlace, version: Version = versions.OLDEST) -> dict[str, str]:
    """Settings that nothing inside the server may change."""
    return {
        "listen_addresses": place.host,
        "port": str(place.port),
        "unix_socket_directories": str(place.socket_directory),
        "hba_file": str(place.files / HBA_FILE),
        "ident_file": str(place.files / IDENT_FILE),
        "fsync": "off",
        "full_page_writes": "off",
        "restart_after_crash": "off",
        "archive_mode": "off",
        **(_encryption(place.files) if place.host else {}),
        **dict(version.pinned_settings),
        PRELOADED: str(place.shim_library),
        "pagestore.page_server": place.page_server,
        "pagestore.token_file": str(place.files / TOKEN_FILE),
        "pagestore.authority_file": str(place.files / AUTHORITY_FILE) if place.encrypted else "",
        "pagestore.remote_map": remote_map.FILE_NAME,
    }


def _encryption(files: Path) -> dict[str, str]:
    return {
        "ssl": "on",
        "ssl_cert_file": str(files / CERTIFICATE_FILE),
        "ssl_key_file": str(files / KEY_FILE),
        "ssl_ca_file": "",
    }


def _on(value: bool) -> str:
    return "on" if value else "off"
