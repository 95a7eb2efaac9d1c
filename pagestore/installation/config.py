"""Settings of an installation: ``DATA/pagestore.toml``, and the environment over it.

``PAGESTORE_PAGESERVER__LISTEN=127.0.0.1:7500`` stands for ``listen`` in ``[pageserver]``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from pagestore import durable
from pagestore.errors import FailedPrecondition
from pagestore.installation.ports import CLIENTS_PORT, choose_ports, first_free, one_more
from pagestore.postgres import majors


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PageserverConfig(_Section):
    listen: str
    memory_bytes: int | None = None
    """Bound of the page server's whole process; 272 MiB by default."""
    open_layer_bytes: int | None = None
    redo_helpers: int | None = None
    check_wal_images: bool = False
    """Compare pages with the images of wal_consistency_checking as they are taken in."""


class SafekeeperConfig(_Section):
    listen: str
    id: int = 1
    elsewhere: bool = False
    """It runs on another host, or under another supervisor."""
    leaving: bool = False
    """Another takes its place: it runs until no database needs it."""


class TlsConfig(_Section):
    """For parts that other machines reach; files in PEM. Without it, what `pagestore certificate`
    made is used."""

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    """Whom clients of this data directory believe."""


class ControlConfig(_Section):
    listen: str


class ProxyConfig(_Section):
    listen: str
    """Where clients connect."""
    service: str
    """Where the proxy itself is asked, as other parts are."""
    address: str = ""
    """What URLs say, where clients know it by another address than `listen`."""
    certificate: Path | None = None
    key: Path | None = None
    """For TLS, in PEM; without them the proxy listens on loopback only."""
    idle: float | Literal["never"] = 60.0
    """Seconds without activity until a database sleeps."""
    awake: int = 50
    """Databases that may be awake at a time."""


class ExporterConfig(_Section):
    """Where Prometheus asks; there is an exporter only where the file has this section."""

    http: str = "127.0.0.1:9464"


DEFAULT_UIDS = "1900000000-1900065535"


class ComputesConfig(_Section):
    listen: str = ""
    """Of the agent; by default a Unix socket that nobody else can reach."""
    run_as: str = "postgres"
    """The user of Postgres's processes that have no walls, where pagestore itself is root."""
    walls: Literal["bubblewrap", "none"] = "bubblewrap"
    uids: str = DEFAULT_UIDS
    """First and last of the users that computes run as under root, each as one of its own."""
    network: bool | Literal["host"] = False
    """Whether computes within walls have the machine's: for dblink, foreign data wrappers and
    subscriptions. They have it in any case where `host` is set."""
    memory_bytes: int | None = Field(default=None, ge=256 << 20)
    """What a compute may take within its walls; a quarter of the machine's by default."""
    processes: int | None = Field(default=None, ge=64)
    """1024 by default; more than max_connections."""
    cpus: float | None = Field(default=None, gt=0)
    """In cores; by default they share all, each as much as any other."""
    disk_bytes: int | None = Field(default=None, ge=64 << 20)
    """Of local disk; half of the file system by default."""
    directory: Path | None = None
    postgres_bindir: Path = majors.BINDIR
    """Where Postgres's programs are; with ``{major}`` in it, where each one's are."""
    settings: dict[str, str] = {}
    """For each compute's postgresql.conf."""
    host: str = ""
    """An address of this machine at which other hosts reach the computes."""


class ObjectsConfig(_Section):
    url: str
    """Credentials come from the environment."""
    wal_age: float = Field(default=5.0, gt=0)
    """Seconds within which committed WAL is there."""
    cache_bytes: int | None = Field(default=None, ge=64 << 20)
    """Of layers that stay on this disk; all of them by default."""


class Config(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="PAGESTORE_", env_nested_delimiter="__", extra="ignore"
    )

    pageserver: PageserverConfig
    safekeeper: SafekeeperConfig | None = None
    """The only one, or the first of an installation that began with one."""
    safekeepers: list[SafekeeperConfig] = []
    control: ControlConfig
    proxy: ProxyConfig | None = None
    """None only in a file of before there was one; `up` chooses an address then."""
    computes: ComputesConfig = ComputesConfig()
    exporter: ExporterConfig | None = None
    tls: TlsConfig = TlsConfig()
    objects: ObjectsConfig | None = None

    @model_validator(mode="after")
    def _has_safekeepers(self) -> Self:
        parts = self.safekeeper_parts
        if not self.staying or len({config.id for config in parts.values()}) < len(parts):
            raise ValueError("there must be safekeepers, with different ids")
        return self

    @property
    def safekeeper_parts(self) -> dict[str, SafekeeperConfig]:
        """By the names of their parts."""
        one = {"safekeeper": self.safekeeper} if self.safekeeper else {}
        return {**one, **{f"safekeeper-{config.id}": config for config in self.safekeepers}}

    @property
    def staying(self) -> dict[str, SafekeeperConfig]:
        """Those who shall keep the WAL, by the names of their parts."""
        parts = self.safekeeper_parts
        return {name: config for name, config in parts.items() if not config.leaving}

    @property
    def safekeepers_here(self) -> dict[str, SafekeeperConfig]:
        parts = self.safekeeper_parts
        return {name: config for name, config in parts.items() if not config.elsewhere}

    def listen(self, part: str) -> str:
        """Where a part is asked, by gRPC; empty for what the file does not say."""
        if part == "compute":
            return self.computes.listen
        if part == "exporter":
            return ""
        if part == "proxy":
            return self.proxy.service if self.proxy else ""
        safekeeper = self.safekeeper_parts.get(part)
        return safekeeper.listen if safekeeper else str(getattr(self, part).listen)

    def listens(self, part: str) -> list[str]:
        """All addresses of a part; the first is the one that its users know it by."""
        if part == "proxy" and self.proxy is not None:
            return [self.proxy.listen, self.proxy.service]
        return [self.listen(part)]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (env_settings, init_settings)


def add_proxy(path: Path, taken: Iterable[str]) -> None:
    """For a file of before there was a proxy: its addresses, chosen now, and kept.

    Args:
        taken: the addresses of the other parts.
    """
    ports = [int(listen.rpartition(":")[2]) for listen in taken if listen[-1:].isdigit()]
    text = path.read_text().rstrip("\n")
    lines = [text, *_proxy_section(one_more(ports)), ""]
    durable.replace(path, "\n".join(lines).encode(), mode=path.stat().st_mode & 0o777)


def add_objects(path: Path, url: str) -> None:
    """Of an installation that had no object store."""
    lines = [path.read_text().rstrip("\n"), "", "[objects]", f"url = {json.dumps(url)}", ""]
    durable.replace(path, "\n".join(lines).encode(), mode=path.stat().st_mode & 0o777)


def _proxy_section(port: int) -> list[str]:
    return [
        "",
        "[proxy]",
        f'listen = "127.0.0.1:{first_free(CLIENTS_PORT)}"',
        f'service = "127.0.0.1:{port}"',
    ]


def load(path: Path) -> Config:
    """
    Raises:
        FailedPrecondition: CONFIG_INVALID.
    """
    try:
        from_file = TomlConfigSettingsSource(Config, toml_file=path)()
        return Config(**from_file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        faults = _faults(error) if isinstance(error, ValidationError) else str(error)
        raise FailedPrecondition(
            "CONFIG_INVALID", f"{path}: {faults}.", "Mend the file, or remove it to start afresh."
        ) from error


_WORDS = {
    "int_parsing": "write a whole number, in bytes where it is of bytes: 67108864 for 64 MiB",
}
"""What pydantic says of parsing a string, where one would write something else."""


def _faults(error: ValidationError) -> str:
    """Where in the file, and what: pydantic's own words span lines, and point to its site."""
    found = (
        (
            ".".join(map(str, fault["loc"])),
            _WORDS.get(fault["type"], fault["msg"][:1].lower() + fault["msg"][1:]),
        )
        for fault in error.errors(include_url=False)
    )
    return "; ".join(f"{where}: {what}" if where else what for where, what in found)


def write_first(path: Path, safekeepers: int = 1) -> None:
    """The file of a new installation; see :mod:`pagestore.installation.ports`."""
    if path.exists():
        return
    lines = ["# Written by the first `pagestore up`. Edit it while pagestore is down."]
    several = [["[[safekeepers]]", f"id = {number + 1}"] for number in range(safekeepers)]
    sections = [["[control]"], ["[pageserver]"]]
    sections += several if safekeepers > 1 else [["[safekeeper]"]]
    ports = choose_ports(path.parent.absolute(), len(sections) + 1)
    for head, port in zip(sections, ports[:-1], strict=True):
        lines += ["", *head, f'listen = "127.0.0.1:{port}"']
    lines += _proxy_section(ports[-1])
    lines += ["", "[computes]", '# run_as = "postgres"', '# directory = "/var/tmp/computes"', ""]
    durable.replace(path, "\n".join(lines).encode())
