"""A hostile superuser: whatever he does, he does by SQL, as the user that his server runs as."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.integration.installation import Whole, patiently

SECRET = b"work_mem = '66MB' # a secret of root's\n"


@dataclass
class Victims:
    """What is not his."""

    root: Path
    secret: Path
    """A file of root's, for its owner's eyes."""
    tree: Path
    shared: Path
    """A directory that everybody may write to."""
    bystander: subprocess.Popen[bytes]
    """A process of root's, which works in the shared directory."""

    def check(self) -> None:
        """Nothing of it was touched."""
        found = self.secret.lstat()
        assert self.secret.read_bytes() == SECRET
        assert (found.st_mode & 0o7777, found.st_uid, found.st_nlink) == (0o600, 0, 1)
        assert sorted(path.name for path in self.tree.rglob("*")) == ["below", "precious"]
        assert self.bystander.poll() is None

    @property
    def start_ticks(self) -> int:
        text = Path(f"/proc/{self.bystander.pid}/stat").read_text()
        return int(text.rpartition(")")[2].split()[19])


@contextmanager
def victims() -> Iterator[Victims]:
    root = Path(tempfile.mkdtemp(prefix="ps-victim-", dir="/tmp"))
    root.chmod(0o755)
    (root / "tree/below").mkdir(parents=True)
    (root / "tree/below/precious").write_text("precious")
    (root / "secret").touch(0o600)
    (root / "secret").write_bytes(SECRET)
    (root / "shared").mkdir()
    (root / "shared").chmod(0o777)
    bystander = subprocess.Popen(["sleep", "1000"], cwd=root / "shared")
    try:
        yield Victims(root, root / "secret", root / "tree", root / "shared", bystander)
    finally:
        bystander.kill()
        bystander.wait()
        subprocess.run(["rm", "-rf", root], check=True)


@dataclass
class Tenant:
    """One database, and its superuser."""

    whole: Whole
    name: str

    @classmethod
    def moves_in(cls, whole: Whole, name: str) -> Tenant:
        whole.json("create", name, "--if-not-exists")
        tenant = cls(whole, name)
        tenant.sql("CREATE TABLE IF NOT EXISTS t AS SELECT 1 AS x")
        return tenant

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = patiently(lambda: self.whole.sql(self.name, statement))
        return found

    def shell(self, script: str) -> None:
        """In his data directory; fails silently, as his attempts may."""
        quoted = f"cat >/dev/null; ( {script} ) >/dev/null 2>&1 || true".replace("'", "''")
        self.sql(f"COPY (SELECT 1) TO PROGRAM '{quoted}'")

    def told(self, script: str) -> str:
        """What a program of his prints, errors too."""
        quoted = f"( {script} ) 2>&1 || true".replace("'", "''")
        with self.whole.connect(self.name) as session:
            session.execute("CREATE TEMP TABLE said (line text)")
            session.execute(f"COPY said FROM PROGRAM '{quoted}' (DELIMITER E'\\x01')".encode())
            rows = session.execute("SELECT line FROM said").fetchall()
        return "\n".join(str(row[0]) for row in rows)

    def kill_all(self) -> None:
        """Every process that his user may signal."""
        with suppress(psycopg.OperationalError), self.whole.connect(self.name) as session:
            session.execute("COPY (SELECT 1) TO PROGRAM 'kill -9 -1'")

    @property
    def pid(self) -> int:
        return int(self.whole.json("show", self.name)["compute_pid"])

    @property
    def directory(self) -> Path:
        return Path(self.whole.json("show", self.name)["compute_dir"])

    def works(self) -> None:
        """It starts, and has what it had."""
        self.whole.run("start", self.name)
        assert self.sql("SELECT x FROM t") == [(1,)]


def shared_memory_of(pid: int) -> set[str]:
    """What of a postmaster's shared memory would outlive it without walls, by names: in this
    machine's /dev/shm and among its segments, and in its own."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    segments = {f"sysv {line.split()[1]}" for line in lines if int(line.split()[4]) == pid}
    assert not segments
    own = Path(f"/proc/{pid}/root/dev/shm")
    return {path.name for path in own.iterdir()} if own.exists() else set()
