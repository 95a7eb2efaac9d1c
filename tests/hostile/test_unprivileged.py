"""A whole installation of a user without rank: the same walls, but for a user of each compute."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.installation import patiently
from tests.plain_postgres import reachable_dir

pytestmark = [
    pytest.mark.walls,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a fresh user"),
]

PYTHON = Path(f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}")
OURS = [path for path in sys.path if path.endswith("site-packages")]
"""Before the system's, in each process: pagestore's library is found by a hook of theirs."""
NATIVE = "import pagestore._native, typer"
NAMESPACE = ["bwrap", "--unshare-user", "--ro-bind", "/", "/", "true"]


@dataclass
class Installation:
    """Of a user who was made for it."""

    user: str
    home: Path

    def start(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "PAGESTORE_DATA": str(self.home / "data"),
            "PYTHONPATH": str(self.home / "python"),
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.run(
            ["runuser", "-u", self.user, "--", *words],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )

    def json(self, *words: str) -> dict[str, Any]:
        done = self.start(str(PYTHON), "-m", "pagestore.cli.main", *words, "--json")
        assert done.returncode == 0, f"{words}: {done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def told(self, script: str) -> str:
        """What a program of his database's superuser prints."""
        quoted = f"( {script} ) 2>&1 || true".replace("'", "''")

        def asked() -> str:
            with psycopg.connect(self.json("url", "app")["url"]) as session:
                session.execute("CREATE TEMP TABLE said (line text)")
                session.execute(f"COPY said FROM PROGRAM '{quoted}' (DELIMITER E'\\x01')".encode())
                rows = session.execute("SELECT line FROM said").fetchall()
            return "\n".join(str(row[0]) for row in rows)

        return str(patiently(asked))


@pytest.fixture(scope="module")
def own() -> Iterator[Installation]:
    if shutil.which("useradd") is None:
        pytest.skip("there is no useradd to make a user with")
    user, home = f"ps-walls-{os.getpid()}", reachable_dir("ps-own-")
    subprocess.run(
        ["useradd", "--system", "--no-create-home", "--home-dir", home, user], check=True
    )
    try:
        shutil.chown(home, user)
        installation = Installation(user, home)
        (home / "python").mkdir()
        (home / "python/sitecustomize.py").write_text(
            f"import site, sys\nsys.path[:0] = {OURS!r}\n"
            f"for path in {OURS!r}:\n    site.addsitedir(path)\n"
        )
        forbidden = installation.start(*NAMESPACE)
        if forbidden.returncode != 0:
            pytest.skip(f"no user namespaces for an unprivileged user: {forbidden.stderr.strip()}")
        if not PYTHON.exists() or installation.start(str(PYTHON), "-c", NATIVE).returncode:
            pytest.skip(f"no {PYTHON} with which another user can run pagestore")
        try:
            installation.json("up")
            installation.json("create", "app")
            yield installation
        finally:
            installation.start(str(PYTHON), "-m", "pagestore.cli.main", "down")
    finally:
        subprocess.run(["userdel", user], check=True, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def test_the_walls_stand_without_rank(own: Installation) -> None:
    walls = set(own.json("status")["walls"])
    assert {"files", "processes", "shared memory", "rank", "system calls", "network"} <= walls
    assert "user" not in walls


def test_a_superuser_is_his_pagestores_user_and_sees_nothing_of_it(own: Installation) -> None:
    assert own.told("id -un") == own.user
    data = own.home / "data"
    for path in (data / "keys", data / "tokens", data / "control"):
        assert "No such file" in own.told(f"ls {path}")
    assert "pagestore.cli" not in own.told("ps axww -o args")
    status = own.told("grep -E '^(NoNewPrivs|Seccomp|CapBnd|CapEff):' /proc/self/status")
    assert status.split() == [
        *("CapEff:", "0" * 16),
        *("CapBnd:", "0" * 16),
        *("NoNewPrivs:", "1"),
        *("Seccomp:", "2"),
    ]


def test_no_namespace_is_to_be_had_within_his(own: Installation) -> None:
    assert "not permitted" in own.told("unshare --user --map-root-user true")
    assert "unreachable" in own.told("bash -c 'echo < /dev/tcp/192.0.2.1/80'").lower()


def test_what_verify_replays_is_walled_there_too(own: Installation) -> None:
    own.told("echo here")
    assert own.json("verify", "app", "--replay")["problems"] == []
