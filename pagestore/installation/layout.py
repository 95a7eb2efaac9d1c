"""One data directory: where its parts keep their files, their addresses and their logs.

::

    DATA/pagestore-installation   says that this directory is pagestore's
    DATA/pagestore.toml       addresses and settings; written at the first `up`, yours to edit
    DATA/operator-key         seals passwords; in no copy of DATA/control
    DATA/recovering           while `pagestore recover` has not ended
    DATA/lock                 held by the running supervisor; holds its process id
    DATA/parts.json           which processes the parts are, written by the supervisor
    DATA/log/<part>.log
    DATA/keys, DATA/tokens    by which parts and users are known; see keys.py
    DATA/tls                  certificates, where other machines reach parts; see certificates.py
    DATA/pageserver, DATA/compute, DATA/control, DATA/proxy
    DATA/computes             the directories of computes
    DATA/safekeeper, or DATA/safekeeper-1, -2, -3
    DATA/last-safekeeper-id   so that no number is given twice
    DATA/run                  Unix sockets of page server and safekeepers, for computes
    DATA/compute-dir          where computes are, if Postgres's user cannot reach DATA
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import re
import stat
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from pagestore import durable, locks
from pagestore.client.credentials import Credentials
from pagestore.errors import DataLoss, FailedPrecondition, Unavailable
from pagestore.installation import ownership
from pagestore.postgres import majors

if TYPE_CHECKING:
    from pagestore.compute.record import ComputeRecord
    from pagestore.installation.config import Config

_ADDRESS = re.compile(r"unix:[^\s\0]+|[^\s\0:]*(:[^\s\0:]*)*:\d{1,5}")
MAX_SOCKET_PATH = 107
MAX_COMPUTE_DIR = 60
"""Characters: below it lie a directory a compute, and Unix sockets of at most 107."""


@dataclass(frozen=True)
class Installation:
    data: Path

    @property
    def config_file(self) -> Path:
        return self.data / "pagestore.toml"

    @property
    def operator_key_file(self) -> Path:
        return self.data / "operator-key"

    @property
    def recovering_file(self) -> Path:
        """There as long as `pagestore recover` has not ended: all else is what it has left."""
        return self.data / "recovering"

    @property
    def lock_file(self) -> Path:
        return self.data / "lock"

    @property
    def parts_file(self) -> Path:
        return self.data / "parts.json"

    @property
    def credentials(self) -> Credentials:
        """The operator's, unless the environment names others."""
        return Credentials.of_data_dir(self.data)

    @property
    def part_names(self) -> tuple[str, ...]:
        """In the order in which they start."""
        optional = {"proxy": self.config.proxy, "exporter": self.config.exporter}
        last = [part for part, section in optional.items() if section is not None]
        return "pageserver", *self.config.safekeepers_here, "compute", "control", *last

    @property
    def safekeeper_id_file(self) -> Path:
        return self.data / "last-safekeeper-id"

    @property
    def last_safekeeper_id(self) -> int:
        """The highest number that was given to a safekeeper after the first ones; 0 for none.

        Raises:
            DataLoss: FILE_CORRUPT.
        """
        try:
            text = self.safekeeper_id_file.read_bytes()
        except FileNotFoundError:
            return 0
        if not text.strip().isdigit():
            raise DataLoss(
                "FILE_CORRUPT",
                f"{self.safekeeper_id_file} holds no number: no safekeeper's number may be given "
                "twice.",
                "Write into it the highest number that a safekeeper of this installation ever had.",
            )
        return int(text)

    def note_safekeeper_id(self, number: int) -> None:
        """It has been given to a safekeeper."""
        if number > self.last_safekeeper_id:
            durable.replace(self.safekeeper_id_file, f"{number}\n".encode())

    def part_dir(self, part: str) -> Path:
        return self.data / part

    def log_file(self, part: str) -> Path:
        return self.data / "log" / f"{part}.log"

    @cached_property
    def config(self) -> Config:
        """
        Raises:
            FailedPrecondition: CONFIG_INVALID.
        """
        from pagestore.installation import config

        return config.load(self.config_file)

    def forget_config(self) -> None:
        """The file was written anew."""
        self.__dict__.pop("config", None)

    @property
    def run_as(self) -> str | None:
        """The user of Postgres's processes, where this one is root."""
        return self.config.computes.run_as if os.geteuid() == 0 else None

    @property
    def compute_dir(self) -> Path:
        """Below the data directory where Postgres's user can reach that, else in /var/tmp.

        Raises:
            Unavailable: NOT_RUNNING; it was never up, so there is none yet.
        """
        place = self._compute_dir
        if place is None:
            raise not_running(self.data)
        return place

    @property
    def _compute_dir(self) -> Path | None:
        inside = self._compute_dir_inside
        return inside if inside is not None else ownership.outside(self._compute_dir_file)

    def socket(self, part: str) -> Path | None:
        """The Unix socket on which a part serves computes; None for a part that has none, and
        where its path would be too long for one."""
        place = self.run_dir
        if place is None or not part.startswith(("pageserver", "safekeeper")):
            return None
        path = place / f"{part}.sock"
        return path if len(os.fsencode(path)) <= MAX_SOCKET_PATH else None

    @property
    def page_socket(self) -> Path | None:
        """The page server's, for computes that have no network; None where they have one."""
        computes = self.config.computes
        has_network = bool(computes.network or computes.host) or computes.walls == "none"
        return None if has_network else self.socket("pageserver")

    @property
    def run_dir(self) -> Path | None:
        """Where these sockets are: where Postgres's user can pass, and only we can write."""
        if _reachable(self.data, self.run_as):
            return self.data / "run"
        made = ownership.outside(self._compute_dir_file)
        return made / "run" if made is not None else None

    @property
    def certificate(self) -> tuple[Path, Path] | None:
        """What parts show to other machines, and its key: as configured, or of our own making."""
        tls = self.config.tls
        if tls.certificate is not None and tls.key is not None:
            return tls.certificate, tls.key
        made = self.data / "tls/certificate.pem", self.data / "tls/key.pem"
        return made if all(path.exists() for path in made) else None

    def settle_compute_dir(self) -> None:
        """Makes the place for computes, where it is not below the data directory."""
        if self._compute_dir_inside is None:
            import hashlib

            digest = hashlib.sha256(str(self.data).encode()).hexdigest()[:8]
            earlier = Path(f"/var/tmp/pagestore-{os.geteuid()}-{digest}")  # noqa: S108
            ownership.make_outside(self._compute_dir_file, earlier)

    @property
    def _compute_dir_inside(self) -> Path | None:
        if self.config.computes.directory is not None:
            return self.config.computes.directory
        inside = self.data / "computes"
        fits = len(str(inside)) <= MAX_COMPUTE_DIR
        return inside if fits and _reachable(self.data, self.run_as) else None

    @property
    def _compute_dir_file(self) -> Path:
        return self.data / "compute-dir"

    def listen(self, part: str) -> str:
        """Where a part is asked, by gRPC."""
        # gRPC takes what follows for a part of a URL.
        return self.config.listen(part) or f"unix:{quote(os.fsencode(self._socket(part)))}"

    def listens(self, part: str) -> list[str]:
        """All addresses of a part; the first is the one that its users know it by."""
        return [address or self.listen(part) for address in self.config.listens(part)]

    def _socket(self, part: str) -> Path:
        """A Unix socket of a part, in a directory that is closed to others."""
        inside = self.part_dir(part) / "socket"
        if len(os.fsencode(inside)) <= MAX_SOCKET_PATH:
            return inside
        return self.compute_dir / part / "socket"

    def address(self, part: str) -> str:
        """Where a part serves.

        Raises:
            Unavailable: NOT_RUNNING. DataLoss: FILE_CORRUPT.
        """
        path = self.part_dir(part) / "address"
        try:
            address = path.read_bytes().decode(errors="replace").strip()
        except OSError as error:
            unwritten = self._unwritten_address(part)
            if unwritten is None:
                raise not_running(self.data) from error
            return unwritten
        if not _ADDRESS.fullmatch(address):
            raise DataLoss(
                "FILE_CORRUPT",
                f"{path} holds no address.",
                "`pagestore down`, then `up`: the part writes it anew.",
            )
        return address

    def _unwritten_address(self, part: str) -> str | None:
        """Of a part that runs on a disk where there was no room to write where it serves."""
        note = self.parts().get(part)
        if note is None or not note.pid:
            return None
        from pagestore.postgres.process import start_ticks

        if start_ticks(note.pid) != note.start_ticks:
            return None
        listen = self.listen(part)
        return None if listen.endswith(":0") else listen

    def forget_address(self, part: str) -> None:
        """Until the part has written it anew, nobody takes another's service for it.

        Raises:
            OSError: it is not forgotten.
        """
        (self.part_dir(part) / "address").unlink(missing_ok=True)

    def running_supervisor(self) -> int | None:
        """The process id of the supervisor that holds the lock, if one does."""
        try:
            with self.lock_file.open("rb") as file:
                for _ in range(100):
                    if not locks.is_held(file.fileno()):
                        return None
                    file.seek(0)
                    if pid := int(file.read() or b"0"):
                        return pid
                    # It has taken the lock, and not yet written who it is.
                    time.sleep(0.01)
        except FileNotFoundError:
            pass
        return None

    def take_lock(self) -> IO[bytes] | None:
        """The lock, held while the file stays open; None when another process holds it.

        On a file system that has become read-only it is taken without saying by whom.
        """
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            file: IO[bytes] = os.fdopen(os.open(self.lock_file, flags, 0o600), "ab+")
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            file = self.lock_file.open("rb")
        if not locks.lock(file.fileno()):
            file.close()
            return None
        if file.writable():
            file.truncate(0)
            # A full disk has room for this: it stands where the last one did.
            with contextlib.suppress(OSError):
                file.write(str(os.getpid()).encode())
                file.flush()
        return file

    def parts(self) -> dict[str, PartProcess]:
        """What the supervisor last wrote of its parts; nothing, where it cannot be understood."""
        try:
            found = json.loads(self.parts_file.read_text())
            return {part: PartProcess(**fields) for part, fields in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def write_parts(self, parts: dict[str, PartProcess]) -> None:
        """
        Raises:
            OSError: it is not written; the parts are found by their command lines then.
        """
        text = json.dumps({name: asdict(part) for name, part in parts.items()})
        durable.replace(self.parts_file, text.encode())

    def walls(self) -> list[str] | None:
        """What stands around each compute, as the agent has last written; None where it has not."""
        try:
            found = json.loads((self.part_dir("compute") / "walls.json").read_text())
            return [str(name) for name in found["walls"]]
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def running_computes(self) -> list[ComputeRecord]:
        """The Postgres servers that run in this installation's compute directory."""
        from pagestore.compute.record import running_computes

        place = self._compute_dir
        return [] if place is None else running_computes(place)

    def open_log(self, part: str) -> BinaryIO:
        """A part's log, to append to; for its owner's eyes."""
        return open(self.log_file(part), "ab", opener=_for_its_owner)

    def log_tail(self, part: str, lines: int = 8) -> str:
        try:
            text = self.log_file(part).read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


ENDED_FOR_GOOD = "ENDED_FOR_GOOD"
"""Of a part: it has said that another start will not help, and has none for a long while."""


@dataclass(frozen=True, slots=True)
class PartProcess:
    pid: int
    """0 for a part that could not be started."""
    supervisor: int
    """The process id of the supervisor that keeps it."""
    start_ticks: int = 0
    recipe: str = ""
    """See :func:`pagestore.installation.commands.recipe`."""
    restarts: int = 0
    """In a row: without the part having served for a while in between."""
    last_exit: str = ""
    reason: str = ""
    """Why it could not be started, or is not started again, for programs; empty while it runs."""


def not_running(data: Path) -> Unavailable:
    return Unavailable(
        "NOT_RUNNING",
        f"pagestore is not running on {data}.",
        "Start it with `pagestore up` (with the same --data or PAGESTORE_DATA).",
    )


def lib_dir() -> Path:
    """The folder of the Postgres modules.

    Raises:
        FailedPrecondition: MODULES_MISSING.
    """
    package = Path(__file__).resolve().parent.parent
    configured = os.environ.get("PAGESTORE_LIB_DIR")
    candidates = [package.parent / "native/postgres", package / "_lib"]
    if configured:
        candidates.insert(0, Path(configured))
    for folder in candidates:
        if any(folder.glob(majors.library("shim").replace("{major}", "*"))):
            return folder
    raise FailedPrecondition(
        "MODULES_MISSING",
        f"pagestore_shim is in none of {', '.join(map(str, candidates))}.",
        "Build it with `make setup`, or say where it is in PAGESTORE_LIB_DIR.",
    )


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _reachable(path: Path, user: str | None) -> bool:
    """Whether `user` may pass through `path` and everything above it."""
    if user is None:
        return True
    entry = pwd.getpwnam(user)
    groups = set(os.getgrouplist(user, entry.pw_gid))
    existing = [folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists()]
    return all(_may_pass(folder.stat(), entry.pw_uid, groups) for folder in existing)


def _may_pass(status: os.stat_result, uid: int, groups: set[int]) -> bool:
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid in groups:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
