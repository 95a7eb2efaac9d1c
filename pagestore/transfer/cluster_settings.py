"""Which settings of a plain cluster come with it, and which settings of a database go with it.

A cluster's own settings are in its postgresql.conf and postgresql.auto.conf, where the latter
wins. What is pagestore's to say stays behind, and so does what belongs to the machine that the
cluster was on: certificates, log files, huge pages. Each is named, with the reason. Not spoken of
is what says the same as initdb or an export wrote, and what the cluster's control file has too
(`max_connections`, ...), since that comes with its pages.
"""

from __future__ import annotations

import locale
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pagestore.postgres.settings import AUTO_CONF, DEFAULTS, control_settings
from pagestore.postgres.user_settings import LONGEST_FILE, fault, includes, parse
from pagestore.v1 import page_pb2 as pb

_INITDB = {
    "shared_buffers": "128MB",
    "dynamic_shared_memory_type": "posix",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "listen_addresses": "localhost",
    "unix_socket_permissions": "0700",
}
_IN_CONTROL_FILE = frozenset(control_settings(pb.ControlSettings()))
_MACHINES = (
    *("ssl", "ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file", "ssl_crl_dir"),
    *("ssl_dh_params_file", "krb_server_keyfile", "huge_pages", "shared_memory_type"),
    *("dynamic_shared_memory_type", "dynamic_library_path", "cluster_name", "bonjour"),
    *("bonjour_name", "stats_temp_directory", "log_destination", "log_directory"),
    *("log_filename", "log_file_mode", "log_rotation_age", "log_rotation_size"),
    *("log_truncate_on_rotation", "syslog_facility", "syslog_ident", "archive_command"),
    *("archive_library", "archive_timeout"),
)
_LOCALES = {
    "lc_messages": locale.LC_MESSAGES,
    "lc_monetary": locale.LC_MONETARY,
    "lc_numeric": locale.LC_NUMERIC,
    "lc_time": locale.LC_TIME,
}
_CONF = "postgresql.conf"


@dataclass(frozen=True, slots=True)
class Brought:
    settings: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Why, by name."""


def read_settings(directory: Path, libraries: Path | None = None) -> Brought:
    """Those of a cluster that can come with it.

    Args:
        libraries: where this machine has Postgres's libraries.
    """
    brought = Brought()
    conf = _read(directory / _CONF)
    auto_conf = _read(directory / AUTO_CONF)
    values = parse(conf) | parse(auto_conf)
    for name, value in sorted(values.items()):
        if name in _IN_CONTROL_FILE or value in (_INITDB.get(name), DEFAULTS.get(name)):
            continue
        why = _why_left_out(name, value, libraries)
        if why:
            brought.left_out[name] = why
        else:
            brought.settings[name] = value
    for place in [*includes(conf), *includes(auto_conf)]:
        brought.left_out[f"include {place}"] = "Included files are not read."
    return brought


def settings_to_export(settings: Mapping[str, str]) -> Brought:
    """Those of a database that mean something to plain Postgres."""
    ours = {name: value for name, value in settings.items() if name.startswith("pagestore.")}
    others = {name: value for name, value in settings.items() if name not in ours}
    return Brought(others, dict.fromkeys(ours, "It is a setting of pagestore's computes."))


def _why_left_out(name: str, value: str, libraries: Path | None) -> str:
    if name in _MACHINES:
        return "It belongs to the machine that the cluster was on."
    if name in _LOCALES and not _is_locale(_LOCALES[name], value):
        return f"This machine has no locale {value!r}."
    return fault(name, value, libraries)


def _is_locale(category: int, name: str) -> bool:
    before = locale.setlocale(category)
    try:
        locale.setlocale(category, name)
    except locale.Error:
        return False
    locale.setlocale(category, before)
    return True


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_FILE)
    except OSError:
        return b""
