"""What a user may set of his server, and what is pagestore's to say.

Two places name settings of a user's own: postgresql.auto.conf, which ALTER SYSTEM writes inside,
and the control plane's record of a database, from which each start lays that file anew. Both are
data that a tenant wrote: read as names and values, nothing else is carried on.

:data:`FIXED` is the one list of what a compute cannot do without. The shim is handed it at each
start and refuses such an ALTER SYSTEM, or ALTER DATABASE or ROLE SET, by name (settings.c); here
it keeps the same out of what is laid, imported or set from outside. Whatever else keeps a
server from starting is set aside by the control plane (control/setting_aside.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pagestore.errors import InvalidInput

LIBRARIES = ("shared_preload_libraries", "session_preload_libraries", "local_preload_libraries")
PRELOADED = LIBRARIES[0]
MIN_WAL_SENDERS = 10
MIN_REPLICATION_SLOTS = 10
MIN_WORKER_PROCESSES = 4
LONGEST_FILE = 1 << 18
"""Bytes of a user's settings, as a file."""
_OURS = ("pagestore_shim", "pagestore_session")
"""Libraries that every compute loads."""
_LISTS = (*LIBRARIES, "search_path", "temp_tablespaces")


@dataclass(frozen=True, slots=True)
class Fixed:
    """A setting that is not the user's, or not every value of it.

    Args:
        least: the lowest value allowed; None where none is.
        unwanted: the only value that is not allowed.
        exists: its libraries must be on this machine.
    """

    why: str
    least: int | None = None
    unwanted: str = ""
    exists: bool = False

    @property
    def rule(self) -> str:
        """As the shim is told; empty for a setting that is fixed altogether."""
        if self.exists:
            return "libraries"
        return (
            f">={self.least}" if self.least is not None else self.unwanted and f"!{self.unwanted}"
        )


_QUORUM = "It names the safekeepers that make commits durable; pagestore sets it."
_CACHE = "A compute's directory is a cache: what is durable is at the WAL service."
_PLACE = "Where a compute listens is in its URL, which pagestore keeps."
_FILES = "A compute's directory is made anew for each start, with the files that pagestore needs."
_RECOVERY = (
    "A compute has nothing to recover; `pagestore restore` and `pagestore branch --at` go to a"
    " point of the past."
)
_STREAM = "pagestore's own streams of WAL depend on it."
_SHIM_OWN = "It is how the compute finds its pages."
_SEAL = "It seals the state of sessions that outlive their compute."
_INSTALLED = "A library that is not there would keep sessions, or the server, from starting."


def _all(why: str, *names: str) -> dict[str, Fixed]:
    return dict.fromkeys(names, Fixed(why))


FIXED: Mapping[str, Fixed] = {
    "synchronous_standby_names": Fixed(_QUORUM),
    **_all(_CACHE, "fsync", "full_page_writes", "restart_after_crash", "archive_mode"),
    **_all(_PLACE, "listen_addresses", "port", "unix_socket_directories", "unix_socket_group"),
    **_all(_PLACE, "unix_socket_permissions", "db_user_namespace"),
    **_all(_FILES, "data_directory", "config_file", "hba_file", "ident_file", "external_pid_file"),
    "logging_collector": Fixed("pagestore keeps the server's log, outside its directory."),
    **_all(_RECOVERY, "restore_command", "archive_cleanup_command", "recovery_end_command"),
    **_all(_RECOVERY, "recovery_target", "recovery_target_action", "recovery_target_inclusive"),
    **_all(_RECOVERY, "recovery_target_lsn", "recovery_target_name", "recovery_target_time"),
    **_all(_RECOVERY, "recovery_target_timeline", "recovery_target_xid"),
    **_all(_RECOVERY, "primary_conninfo", "primary_slot_name", "promote_trigger_file"),
    **_all(_RECOVERY, "sync_replication_slots"),
    **_all(_STREAM, "wal_sender_timeout", "max_slot_wal_keep_size", "summarize_wal"),
    **_all(_STREAM, "idle_replication_slot_timeout", "synchronized_standby_slots"),
    "wal_level": Fixed(_STREAM, unwanted="minimal"),
    "max_wal_senders": Fixed(_STREAM, least=MIN_WAL_SENDERS),
    "max_replication_slots": Fixed(_STREAM, least=MIN_REPLICATION_SLOTS),
    "max_worker_processes": Fixed("The shim's own worker is one.", least=MIN_WORKER_PROCESSES),
    **dict.fromkeys(LIBRARIES, Fixed(_INSTALLED, exists=True)),
    **_all(_SHIM_OWN, "pagestore.page_server", "pagestore.tenant_id", "pagestore.timeline_id"),
    **_all(_SHIM_OWN, "pagestore.lsn", "pagestore.remote_map", "pagestore.start_fd"),
    "pagestore.fixed_settings": Fixed(_SHIM_OWN),
    **_all(_SEAL, "pagestore_session.key", "pagestore_session.state"),
}


def for_the_shim() -> str:
    """:data:`FIXED` as the value of pagestore.fixed_settings: a line an entry, which is
    ``name TAB rule TAB why``."""
    return "\n".join(f"{name}\t{fixed.rule}\t{fixed.why}" for name, fixed in FIXED.items())


def fault(name: str, value: str, libraries: Path | None = None) -> str:
    """Why a user cannot have this setting; empty when he can.

    Args:
        libraries: where Postgres's libraries are, to look for those that `value` names.
    """
    fixed = FIXED.get(name.lower())
    if fixed is None:
        return ""
    if fixed.exists:
        missing = [item for item in listed(value) if not _is_there(item, libraries)]
        return f"There is no library {missing[0]!r} in {libraries}." if missing else ""
    if fixed.unwanted:
        return fixed.why if value.strip().lower() == fixed.unwanted else ""
    if fixed.least is not None:
        low = re.fullmatch(r"\s*-?\d+\s*", value) is not None and int(value) < fixed.least
        return f"It must be {fixed.least} or more. {fixed.why}" if low else ""
    return fixed.why


def check(values: Mapping[str, str], libraries: Path | None = None) -> None:
    """
    Raises:
        InvalidInput: SETTING_FIXED, or INVALID_SETTING for what cannot be in a file.
    """
    for name, value in values.items():
        quoted(name, value)
        why = fault(name, value, libraries)
        if why:
            raise InvalidInput("SETTING_FIXED", f"{name} cannot be set to {value[:80]!r}: {why}")


def allowed(values: Mapping[str, str]) -> dict[str, str]:
    """Those of a user's settings that are his to say."""
    return {name: value for name, value in values.items() if not fault(name, value)}


def _is_there(library: str, directory: Path | None) -> bool:
    if directory is None or not directory.is_dir() or _is_ours(library):
        return True
    path = Path(library.replace("$libdir", str(directory)))
    path = path if path.is_absolute() else directory / path
    return path.exists() or path.with_name(path.name + ".so").exists()


# The file


def parse(text: bytes) -> dict[str, str]:
    """The settings of a configuration file, by their lower-case names; the last one wins.

    Takes what Postgres's own scanner takes of a line: ``name [=] value [# comment]``. Includes,
    and lines that are none of this, are passed over, as is all behind LONGEST_FILE bytes.
    """
    values = {}
    for line in text[:LONGEST_FILE].decode(errors="replace").splitlines():
        found = _LINE.match(line)
        if found is not None and found["name"].lower() not in _INCLUDES:
            values[found["name"].lower()] = _unquoted(found["value"])
    return values


def includes(text: bytes) -> list[str]:
    """The files and directories that a configuration file includes."""
    found = map(_LINE.match, text[:LONGEST_FILE].decode(errors="replace").splitlines())
    return [_unquoted(item["value"]) for item in found if item and item["name"] in _INCLUDES]


def render(values: Mapping[str, str]) -> str:
    """Lines of a configuration file.

    Raises:
        InvalidInput: INVALID_SETTING.
    """
    return "".join(f"{name} = {quoted(name, value)}\n" for name, value in values.items())


def quoted(name: str, value: str) -> str:
    """
    Raises:
        InvalidInput: INVALID_SETTING; nothing breaks out of its line.
    """
    if "\n" in value or "\r" in value or "\0" in value or not _NAME.fullmatch(name):
        raise InvalidInput("INVALID_SETTING", f"The setting {name!r} cannot be written to a file.")
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


_INCLUDES = ("include", "include_dir", "include_if_exists")
_NAME = re.compile(r"[A-Za-z_][\w$]*(\.[A-Za-z_][\w$]*)*", re.ASCII)
_LINE = re.compile(
    rf"\s*(?P<name>{_NAME.pattern})\s*(?:=\s*|(?<=\s))"
    r"(?P<value>'(?:[^'\\]|\\.|'')*'|[^\s#']+)\s*(?:#.*)?$",
    re.ASCII,
)
_ESCAPE = re.compile(r"''|\\([0-7]{1,3}|.)", re.DOTALL)
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _unquoted(value: str) -> str:
    """As GUC_scanstr of guc-file.l."""
    if not value.startswith("'"):
        return value

    def plain(escape: re.Match[str]) -> str:
        behind = escape[1]
        if behind is None:
            return "'"
        return chr(int(behind, 8) & 0xFF) if behind.isdigit() else _CONTROL.get(behind, behind)

    return _ESCAPE.sub(plain, value[1:-1])


# Lists


def listed(value: str) -> list[str]:
    """The items of a list of file names, as SplitDirectoriesString takes it."""
    return [item for item in _items(value) if item]


def _items(value: str) -> Iterator[str]:
    for found in re.finditer(r'"((?:[^"]|"")*)"|([^,"]+)', value):
        yield found[1].replace('""', '"') if found[1] is not None else found[2].strip()


def joined(items: Iterable[str]) -> str:
    """The inverse of :func:`listed`."""
    return ", ".join('"' + item.replace('"', '""') + '"' for item in items)


def preloaded(ours: Iterable[Path], value: str) -> str:
    """shared_preload_libraries of a compute: ours, then the user's own list. One that was copied
    from what the server shows names ours too."""
    own = [item for item in listed(value) if not _is_ours(item)]
    return joined([*map(str, ours), *own])


def _is_ours(library: str) -> bool:
    return any(name in library for name in _OURS)


def is_list(name: str) -> bool:
    """Whether ALTER SYSTEM takes the items of this setting one by one."""
    return name.lower() in _LISTS
