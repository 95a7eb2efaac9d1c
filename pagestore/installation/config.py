"""Settings of an installation: ``DATA/pagestore.toml``, and the environment over it.

``PAGESTORE_PAGESERVER__LISTEN=127.0.0.1:7500`` stands for ``listen`` in ``[pageserver]``.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from pagestore import durable
from pagestore.errors import FailedPrecondition
from pagestore.installation.ports import choose_ports


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


class ControlConfig(_Section):
    listen: str


class ComputesConfig(_Section):
    run_as: str = "postgres"
    """The user of Postgres's processes, where pagestore itself is root."""
    directory: Path | None = None
    postgres_bindir: Path = Path("/usr/lib/postgresql/15/bin")
    settings: dict[str, str] = {}
    """For each compute's postgresql.conf."""
    host: str = ""
    """An address of this machine at which other hosts reach the computes."""


class Config(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="PAGESTORE_", env_nested_delimiter="__", extra="ignore"
    )

    pageserver: PageserverConfig
    safekeeper: SafekeeperConfig | None = None
    """The only one, or the first of an installation that began with one."""
    safekeepers: list[SafekeeperConfig] = []
    control: ControlConfig
    computes: ComputesConfig = ComputesConfig()

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
        safekeeper = self.safekeeper_parts.get(part)
        return safekeeper.listen if safekeeper else str(getattr(self, part).listen)

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


def _faults(error: ValidationError) -> str:
    """Where in the file, and what: pydantic's own words span lines, and point to its site."""
    found = (
        (".".join(map(str, fault["loc"])), fault["msg"][:1].lower() + fault["msg"][1:])
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
    ports = choose_ports(path.parent.absolute(), len(sections))
    for head, port in zip(sections, ports, strict=True):
        lines += ["", *head, f'listen = "127.0.0.1:{port}"']
    lines += ["", "[computes]", '# run_as = "postgres"', '# directory = "/var/tmp/computes"', ""]
    durable.replace(path, "\n".join(lines).encode())
