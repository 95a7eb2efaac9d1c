"""The command lines of parts, as anyone could type them."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from importlib import metadata

from pagestore.installation.config import SafekeeperConfig
from pagestore.installation.layout import Installation, lib_dir

PROGRAM = (sys.executable, "-m", "pagestore.cli.main")


def part_command(installation: Installation, part: str) -> list[str]:
    config = installation.config
    command = [*PROGRAM, verb_of(part)]
    command += ["--data-dir", str(installation.part_dir(part)), "--listen", config.listen(part)]
    bindir = str(config.computes.postgres_bindir)
    run_as = ["--run-as", installation.run_as] if installation.run_as else []
    match verb_of(part):
        case "pageserver":
            command += _wal_services(config.safekeeper_parts)
            command += ["--postgres-bindir", bindir, *run_as]
            command += ["--redo-library", str(lib_dir() / "pagestore_redo.so")]
            for name in ("memory_bytes", "open_layer_bytes", "redo_helpers"):
                value = getattr(config.pageserver, name)
                if value is not None:
                    command += [f"--{name.replace('_', '-')}", str(value)]
            if config.pageserver.check_wal_images:
                command += ["--check-wal-images"]
        case "safekeeper":
            parts = config.safekeeper_parts
            command += ["--id", str(parts[part].id)]
            peers = [f"{item.id}={item.listen}" for name, item in parts.items() if name != part]
            if peers:
                command += ["--peers", ",".join(peers)]
        case "control":
            command += ["--page-server", config.pageserver.listen]
            command += ["--operator-key", str(installation.operator_key_file)]
            command += _wal_services(config.staying)
            command += ["--compute-dir", str(installation.compute_dir)]
            command += ["--postgres-bindir", bindir, *run_as]
            command += ["--shim-library", str(lib_dir() / "pagestore_shim.so")]
            for name, value in config.computes.settings.items():
                command += ["--set", f"{name}={value}"]
            if config.computes.host:
                command += ["--compute-host", config.computes.host]
    return command


def verb_of(part: str) -> str:
    """A part's verb on the command line: `safekeeper-2` is a `safekeeper`."""
    return "safekeeper" if part.startswith("safekeeper") else part


def recipe(installation: Installation, part: str) -> str:
    """What a part is made of: its command, our version, and the settings in the environment.

    Two processes of one recipe do the same, so one may stay where the other was wanted.
    """
    environment = sorted(item for item in os.environ.items() if item[0].startswith("PAGESTORE_"))
    made = (metadata.version("pagestore"), part_command(installation, part), environment)
    return hashlib.sha256(repr(made).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _wal_services(parts: Mapping[str, SafekeeperConfig]) -> list[str]:
    return [
        word for item in parts.values() for word in ("--wal-service", f"{item.id}={item.listen}")
    ]
