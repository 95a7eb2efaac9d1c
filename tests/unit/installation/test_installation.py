"""Data directories: configuration, the lock, where computes go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pagestore.errors import FailedPrecondition, Unavailable
from pagestore.installation import config
from pagestore.installation.layout import Installation, PartProcess
from pagestore.installation.lifecycle import prepare
from pagestore.installation.supervisor import end_leftovers, part_command


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    config.write_first(tmp_path / "pagestore.toml")
    return Installation(tmp_path)


def test_the_first_configuration_gives_each_part_its_own_port(installation: Installation) -> None:
    found = installation.config
    listens = [found.listen(part) for part in installation.part_names]
    assert len(set(listens)) == 3
    before = installation.config_file.read_text()
    config.write_first(installation.config_file)
    assert installation.config_file.read_text() == before


def test_several_safekeepers_are_parts_that_know_each_other(tmp_path: Path) -> None:
    config.write_first(tmp_path / "pagestore.toml", 3)
    installation = Installation(tmp_path)
    parts = installation.part_names
    assert parts == ("pageserver", "safekeeper-1", "safekeeper-2", "safekeeper-3", "control")
    listens = {part: installation.config.listen(part) for part in parts}
    assert len(set(listens.values())) == 5
    command = part_command(installation, "safekeeper-2")
    assert command[command.index("--id") + 1] == "2"
    peers = f"1={listens['safekeeper-1']},3={listens['safekeeper-3']}"
    assert command[command.index("--peers") + 1] == peers
    named = [f"{number}={listens[f'safekeeper-{number}']}" for number in (1, 2, 3)]
    for part in ("pageserver", "control"):
        command = part_command(installation, part)
        told = [command[at + 1] for at, word in enumerate(command) if word == "--wal-service"]
        assert told == named


def test_another_number_of_safekeepers_is_refused(tmp_path: Path) -> None:
    prepare(Installation(tmp_path))
    prepare(Installation(tmp_path), 1)
    with pytest.raises(FailedPrecondition) as caught:
        prepare(Installation(tmp_path), 3)
    assert caught.value.reason == "OTHER_SAFEKEEPERS"


def test_the_environment_stands_over_the_file(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGESTORE_CONTROL__LISTEN", "127.0.0.1:9")
    assert installation.config.control.listen == "127.0.0.1:9"


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[pageserver]\nlisten = 1\n",
        "",
        '[control]\nlisten = "x"\n[pageserver]\nlisten = "y"\n',
        '[control]\nlisten = "x"\nlissten = "y"\n',
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "pagestore.toml").write_text(text)
    with pytest.raises(FailedPrecondition, match=r"pagestore\.toml") as caught:
        _ = Installation(tmp_path).config
    assert caught.value.reason == "CONFIG_INVALID"


def test_the_lock_tells_who_holds_it(installation: Installation) -> None:
    assert installation.running_supervisor() is None
    lock = installation.take_lock()
    assert lock is not None
    with lock:
        assert installation.running_supervisor() == os.getpid()
        assert installation.take_lock() is None
    assert installation.running_supervisor() is None


def test_no_address_means_not_running(installation: Installation) -> None:
    with pytest.raises(Unavailable) as caught:
        installation.address("control")
    assert caught.value.reason == "NOT_RUNNING"


def test_computes_go_where_their_user_can_reach(installation: Installation) -> None:
    place = installation.compute_dir
    if os.geteuid() == 0:
        # pytest's directories are closed to others.
        assert str(place).startswith("/var/tmp/pagestore-0-")
    assert len(str(place)) < 100


def test_parts_of_a_killed_supervisor_are_ended_and_strangers_are_not(
    installation: Installation,
) -> None:
    words = ["control", "--data-dir", str(installation.part_dir("control"))]
    sleep = "import time; time.sleep(1000)"
    ours = subprocess.Popen([sys.executable, "-c", sleep, *words])
    stranger = subprocess.Popen([sys.executable, "-c", sleep])
    try:
        installation.write_parts(
            {"control": PartProcess(ours.pid, 1), "pageserver": PartProcess(stranger.pid, 1)}
        )
        end_leftovers(installation)
        assert ours.wait(timeout=5) < 0
        assert stranger.poll() is None
    finally:
        for process in (ours, stranger):
            process.kill()
            process.wait()


def test_parts_are_started_with_commands_that_anyone_could_type(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pagestore_shim.so").touch()
    monkeypatch.setenv("PAGESTORE_LIB_DIR", str(tmp_path))
    command = part_command(installation, "control")
    assert command[1:4] == ["-m", "pagestore.cli.main", "control"]
    assert command[command.index("--page-server") + 1] == installation.config.pageserver.listen
