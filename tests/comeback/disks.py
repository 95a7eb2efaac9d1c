"""A whole pagestore whose parts have disks of their own, which fill up and fail.

Each part's directory is a small tmpfs in a mount namespace of its own, which everything that
`up` starts lives in; the tests look into it from outside, by ``/proc/PID/root``. Syncs fail by a
preloaded library, for the files below one part's directory (failing_sync.c).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pagestore.installation.layout import Installation
from tests import access
from tests.integration.failing_disk import preload
from tests.integration.installation import Whole, configure

SIZES = {"pageserver": "96m", "safekeeper": "64m", "control": "16m", "computes": "256m"}
OPEN_LAYER_BYTES = 4 << 20
"""So small that what a test commits has to go into files at once."""
_PLACES = {"compute": "computes"}
"""Of those parts whose directory has another name."""


class Disks:
    """The disks of `whole`, which is up."""

    def __init__(self, whole: Whole, trigger: Path) -> None:
        self.whole = whole
        self._trigger = trigger
        self._full: set[str] = set()

    def place(self, part: str) -> Path:
        return self.whole.installation.data / _PLACES.get(part, part)

    @contextmanager
    def full(self, part: str) -> Iterator[None]:
        """No byte is left on the part's disk."""
        self._full.add(part)
        self.fill(part)
        try:
            yield
        finally:
            self._full.remove(part)
            self._ballast(part).unlink()

    def fill(self, part: str) -> None:
        """Again, what was freed since on a disk that is to be full."""
        if part not in self._full:
            return
        with self._ballast(part).open("ab", buffering=0) as file:
            for size in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def _ballast(self, part: str) -> Path:
        return self.place(part) / "ballast"

    @contextmanager
    def failing(self, part: str) -> Iterator[None]:
        """Every sync below the part's directory fails by EIO."""
        self._trigger.write_text(f"/{_PLACES.get(part, part)}/")
        try:
            yield
        finally:
            self._trigger.unlink()


@contextmanager
def whole_on_small_disks() -> Iterator[Disks]:
    """Up at the start, ended and removed at the end."""
    data = Path(tempfile.mkdtemp(prefix="ps-disks-", dir="/tmp"))
    data.chmod(0o711)
    environment = {"PAGESTORE_PAGESERVER__OPEN_LAYER_BYTES": str(OPEN_LAYER_BYTES)}
    whole = Whole(data, {**environment, **preload(data)})
    configure(whole.installation.config_file, {}, 1)
    access.give_keys(data)
    try:
        with mount_namespace(*_small_disks(data)) as pid:
            whole.within = inside(pid)
            whole.installation = Installation(Path(f"/proc/{pid}/root{data}"))
            try:
                whole.up()
                yield Disks(whole, data / "fail")
            finally:
                whole.run("down", check=False)
    finally:
        shutil.rmtree(data)


@contextmanager
def mount_namespace(*mounts: str) -> Iterator[int]:
    """The id of a process that keeps it; its mounts are gone when all in it have ended.

    Args:
        mounts: command lines by which it begins.
    """
    script = " && ".join([*mounts, "echo mounted", "exec sleep infinity"])
    command = ["unshare", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=os.sep) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"mounted\n"
            yield holder.pid
        finally:
            holder.kill()


def inside(holder: int) -> list[str]:
    """What a command begins with to run in the namespace."""
    return ["nsenter", f"--mount=/proc/{holder}/ns/mnt"]


def _small_disks(data: Path) -> Iterator[str]:
    for name, size in SIZES.items():
        mode = 0o711 if name == "computes" else 0o700
        (data / name).mkdir(mode=mode)
        yield f"mount -t tmpfs -o size={size},mode={mode:o} tmpfs {data / name}"
