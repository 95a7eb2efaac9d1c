"""The command lines of parts, as anyone could type them."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Mapping
from importlib import metadata

from pagestore.client.addresses import is_anywhere, is_near
from pagestore.client.credentials import AUTHORITY
from pagestore.installation.config import SafekeeperConfig
from pagestore.installation.keys import PUBLIC_KEYS, SIGNING_KEY, token_file
from pagestore.installation.layout import Installation, lib_dir
from pagestore.objects.environment import says_how
from pagestore.postgres import majors

WITH_OBJECTS = ("pageserver", "control")
"""Parts that keep something in the object store."""
PROGRAM = (sys.executable, "-m", "pagestore.cli.main")


def part_command(installation: Installation, part: str) -> list[str]:
    verb = verb_of(part)
    options = {
        "pageserver": _pageserver_options,
        "safekeeper": _safekeeper_options,
        "compute": _compute_options,
        "control": _control_options,
        "proxy": _proxy_options,
        "exporter": _exporter_options,
    }
    return [
        *PROGRAM,
        verb,
        *("--data-dir", str(installation.part_dir(part))),
        *("--listen", installation.listens(part)[0]),
        *_known_by(installation, part),
        *options[verb](installation, part),
    ]


def _known_by(installation: Installation, part: str) -> list[str]:
    """By what it knows callers, and is known; and where computes without a network find it."""
    data = installation.data
    words = ["--keys", str(data / PUBLIC_KEYS)]
    words += ["--token-file", str(data / token_file(verb_of(part)))]
    if (data / AUTHORITY).exists():
        words += ["--tls-authority", str(data / AUTHORITY)]
    if (shown := installation.certificate) is not None:
        words += ["--tls-certificate", str(shown[0]), "--tls-key", str(shown[1])]
    socket = installation.socket(part)
    return words if socket is None else [*words, "--listen-unix", str(socket)]


def _pageserver_options(installation: Installation, _: str) -> list[str]:
    config = installation.config
    words = _wal_services(config.safekeeper_parts)
    words += _postgres(installation)
    words += ["--redo-library", str(lib_dir() / majors.library("redo"))]
    for name in ("memory_bytes", "open_layer_bytes", "redo_helpers"):
        value = getattr(config.pageserver, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    if config.pageserver.check_wal_images:
        words += ["--check-wal-images"]
    if config.objects is not None:
        words += ["--objects", config.objects.url, "--wal-age", str(config.objects.wal_age)]
        if config.objects.cache_bytes is not None:
            words += ["--cache-bytes", str(config.objects.cache_bytes)]
    return words


def _safekeeper_options(installation: Installation, part: str) -> list[str]:
    parts = installation.config.safekeeper_parts
    words = ["--id", str(parts[part].id)]
    peers = [f"{item.id}={item.listen}" for name, item in parts.items() if name != part]
    return [*words, "--peers", ",".join(peers)] if peers else words


def _compute_options(installation: Installation, _: str) -> list[str]:
    config = installation.config
    words = ["--page-server", config.pageserver.listen]
    words += ["--signing-key", str(installation.data / SIGNING_KEY)]
    words += _wal_services(config.staying)
    words += ["--compute-dir", str(installation.compute_dir)]
    words += _postgres(installation)
    words += ["--shim-library", str(lib_dir() / majors.library("shim"))]
    for name, value in config.computes.settings.items():
        words += ["--set", f"{name}={value}"]
    words += ["--walls", config.computes.walls, "--uids", config.computes.uids]
    if (socket := installation.page_socket) is not None:
        words += ["--page-socket", str(socket)]
    for name in ("memory_bytes", "processes", "cpus", "disk_bytes"):
        if (value := getattr(config.computes, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    host = config.computes.host
    return [*words, "--compute-host", host] if host else words


def _control_options(installation: Installation, _: str) -> list[str]:
    config = installation.config
    words = ["--page-server", config.pageserver.listen]
    words += ["--operator-key", str(installation.operator_key_file)]
    words += ["--signing-key", str(installation.data / SIGNING_KEY)]
    words += _wal_services(config.staying)
    words += ["--compute-agent", installation.listen("compute")]
    if config.proxy is not None:
        words += ["--address", config.proxy.address or reached_at(config.proxy.listen)]
        words += ["--proxy", config.proxy.service]
    if config.objects is not None:
        words += ["--objects", config.objects.url]
    return [*words, "--postgres-bindir", str(config.computes.postgres_bindir)]


def part_environment(installation: Installation, part: str) -> dict[str, str]:
    """Of a part: credentials for the object store have only those who write there."""
    with_store = installation.config.objects is not None and part in WITH_OBJECTS
    return {name: value for name, value in os.environ.items() if with_store or not says_how(name)}


def _proxy_options(installation: Installation, _: str) -> list[str]:
    config = installation.config
    proxy = config.proxy
    assert proxy is not None, "a part that there is has a section"
    words = ["--service", proxy.service, "--control", config.control.listen]
    words += ["--idle", str(proxy.idle), "--awake", str(proxy.awake)]
    certificate, key = proxy.certificate, proxy.key
    if certificate is None and key is None and not is_near(proxy.listen):
        certificate, key = installation.certificate or (None, None)
    if certificate is not None:
        words += ["--certificate", str(certificate)]
    if key is not None:
        words += ["--key", str(key)]
    return words


def reached_at(listen: str) -> str:
    """What URLs say where the proxy listens on every address, and nobody has said which is known:
    this machine's name, if it leads anywhere."""
    if not is_anywhere(listen):
        return listen
    port = listen.rpartition(":")[2]
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, port)
    except OSError:
        name = "127.0.0.1"
    return f"{name}:{port}"


def _exporter_options(installation: Installation, _: str) -> list[str]:
    exporter = installation.config.exporter
    assert exporter is not None, "a part that there is has a section"
    words = ["--http", exporter.http]
    for part, address in parts_to_watch(installation).items():
        words += ["--part", f"{part}={address}"]
    return words


def parts_to_watch(installation: Installation) -> dict[str, str]:
    """Where each part is asked what it says of itself, safekeepers on other hosts too."""
    config = installation.config
    names = dict.fromkeys((*installation.part_names, *config.safekeeper_parts))
    return {part: installation.listen(part) for part in names if part != "exporter"}


def _postgres(installation: Installation) -> list[str]:
    run_as = ["--run-as", installation.run_as] if installation.run_as else []
    return ["--postgres-bindir", str(installation.config.computes.postgres_bindir), *run_as]


def verb_of(part: str) -> str:
    """A part's verb on the command line: `safekeeper-2` is a `safekeeper`."""
    return "safekeeper" if part.startswith("safekeeper") else part


def recipe(installation: Installation, part: str) -> str:
    """What a part is made of: its command, our version, and the settings in the environment.

    Two processes of one recipe do the same, so one may stay where the other was wanted.
    """
    environment = sorted(
        item
        for item in part_environment(installation, part).items()
        if item[0].startswith("PAGESTORE_") or says_how(item[0])
    )
    made = (metadata.version("pagestore"), part_command(installation, part), environment)
    return hashlib.sha256(repr(made).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _wal_services(parts: Mapping[str, SafekeeperConfig]) -> list[str]:
    return [
        word for item in parts.values() for word in ("--wal-service", f"{item.id}={item.listen}")
    ]
