"""A systemd unit for an installation: started at boot, and again when its supervisor dies.

The unit's main process is the supervisor (``pagestore up --foreground``). What systemd does by
default would work against ours in three places, so the unit says otherwise:

- *KillMode=process.* When the supervisor dies, parts and computes go on, and the next one adopts
  them; any other mode kills them with it. At a stop the supervisor ends all of them, in order.
- *Restart=on-failure.* A kill, an OOM or a fault starts it again; after `pagestore down`, which
  ends it cleanly, it stays down.
- *TimeoutStopSec* is longer than an orderly stop may take, and *StartLimitIntervalSec=0* never
  gives up.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pagestore import durable
from pagestore.client.credentials import standard_data_dir
from pagestore.errors import AlreadyExists, FailedPrecondition, NotFound
from pagestore.installation.layout import Installation
from pagestore.installation.lifecycle import START_SECONDS, STOP_SECONDS

MARK = "# Written by `pagestore service install`."
SYSTEM_UNITS = Path("/etc/systemd/system")


@dataclass(frozen=True)
class Service:
    """The unit of one data directory, of the whole machine or of one user."""

    data: Path
    user: bool
    """For the user manager of whoever asks (`systemctl --user`), rather than for the machine."""

    @property
    def name(self) -> str:
        """`pagestore.service` for the standard data directory; others carry a digest of theirs."""
        if self.data == standard_data_dir():
            return "pagestore.service"
        words = re.sub(r"[^A-Za-z0-9]+", "-", self.data.name).strip("-")[:30] or "data"
        return f"pagestore-{words}-{hashlib.sha256(os.fsencode(self.data)).hexdigest()[:6]}.service"

    @property
    def path(self) -> Path:
        if not self.user:
            return SYSTEM_UNITS / self.name
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return home / "systemd/user" / self.name

    @property
    def text(self) -> str:
        program = " ".join(map(_quoted, (sys.executable, "-m", "pagestore.cli.main")))
        data = _quoted(str(self.data))
        settings = [
            f"Environment={_quoted(f'{name}={value}')}"
            for name, value in sorted(os.environ.items())
            if name.startswith("PAGESTORE_") and name != "PAGESTORE_DATA"
        ]
        return "\n".join(
            [
                MARK,
                "[Unit]",
                f"Description=pagestore on {str(self.data).replace('%', '%%')}",
                *(() if self.user else ("After=network.target local-fs.target",)),
                "StartLimitIntervalSec=0",
                "",
                "[Service]",
                "Type=notify",
                *settings,
                f"ExecStart={program} up --foreground --data {data}",
                "ExecReload=/bin/kill -HUP $MAINPID",
                "Restart=on-failure",
                "RestartSec=1",
                "KillMode=process",
                f"TimeoutStartSec={START_SECONDS + 60:.0f}",
                f"TimeoutStopSec={STOP_SECONDS + 60:.0f}",
                "OOMPolicy=continue",
                "LimitNOFILE=65536",
                "",
                "[Install]",
                f"WantedBy={'default.target' if self.user else 'multi-user.target'}",
                "",
            ]
        )

    def install(self) -> bool:
        """Writes the unit, and lets the manager know; whether a manager was there to be told.

        Raises:
            AlreadyExists: UNIT_NOT_OURS: somebody else's unit has that name.
            OSError: it cannot be written.
        """
        self._refuse_foreign()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(self.path, self.text.encode("utf-8", "surrogateescape"), mode=0o644)
        return self._manager("daemon-reload") and self._manager("enable", self.name)

    def remove(self) -> bool:
        """Removes the unit; what runs goes on. Whether there was one.

        Raises:
            AlreadyExists: UNIT_NOT_OURS.
        """
        self._refuse_foreign()
        if not self.path.exists():
            return False
        self._manager("disable", self.name)
        self.path.unlink()
        durable.sync_directory(self.path.parent)
        self._manager("daemon-reload")
        return True

    def state(self) -> str:
        """As `systemctl is-active` says it; "not installed", "unknown" without a manager."""
        if not self.path.exists():
            return "not installed"
        done = self._systemctl("is-active", self.name)
        return done.stdout.strip() or "unknown" if done is not None else "unknown"

    def _refuse_foreign(self) -> None:
        if self.path.exists() and MARK not in self.path.read_text(errors="replace"):
            raise AlreadyExists(
                "UNIT_NOT_OURS",
                f"{self.path} was not written by pagestore.",
                "Remove it yourself, if nobody needs it.",
            )

    def _manager(self, *words: str) -> bool:
        done = self._systemctl(*words)
        return done is not None and done.returncode == 0

    def _systemctl(self, *words: str) -> subprocess.CompletedProcess[str] | None:
        program = shutil.which("systemctl")
        if program is None:
            return None
        whose = ["--user"] if self.user else []
        return subprocess.run(
            [program, *whose, *words], capture_output=True, text=True, check=False, timeout=60
        )


def service_of(installation: Installation, *, user: bool | None) -> Service:
    """
    Args:
        user: None chooses the machine's for root, and the user's own for others.

    Raises:
        FailedPrecondition: NOT_ROOT.
    """
    root = os.geteuid() == 0
    if user is None:
        user = not root
    if not user and not root:
        raise FailedPrecondition(
            "NOT_ROOT", "Only root installs a service of the machine.", "Use --user, or sudo."
        )
    return Service(installation.data, user)


def installed(service: Service) -> Service:
    """
    Raises:
        NotFound: NO_SERVICE.
    """
    if not service.path.exists():
        raise NotFound(
            "NO_SERVICE", f"There is no {service.path}.", "`pagestore service install` makes it."
        )
    return service


def _quoted(word: str) -> str:
    """A word of a unit's command line: systemd expands % everywhere, $ and backslashes there."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if re.search(r"[^A-Za-z0-9_./=:,@+-]", escaped) else escaped
