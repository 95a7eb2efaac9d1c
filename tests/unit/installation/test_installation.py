"""Data directories: configuration, the lock, where computes go."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pagestore.errors import FailedPrecondition, Unavailable
from pagestore.installation import commands, config
from pagestore.installation.commands import part_command
from pagestore.installation.layout import Installation, PartProcess
from pagestore.installation.lifecycle import prepare
from pagestore.installation.parts import orphans
from pagestore.installation.ports import choose_ports, holder, one_more
from pagestore.installation.restarts import Restarts
from pagestore.postgres.process import start_ticks


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    config.write_first(tmp_path / "pagestore.toml")
    return Installation(tmp_path)


def test_the_first_configuration_gives_each_part_its_own_port(installation: Installation) -> None:
    listens = [installation.listen(part) for part in installation.part_names]
    assert len(set(listens)) == 5
    before = installation.config_file.read_text()
    config.write_first(installation.config_file)
    assert installation.config_file.read_text() == before


def test_several_safekeepers_are_parts_that_know_each_other(tmp_path: Path) -> None:
    config.write_first(tmp_path / "pagestore.toml", 3)
    installation = Installation(tmp_path)
    (tmp_path / "compute-dir").write_text("/var/tmp/x\n")
    parts = installation.part_names
    assert parts == (
        "pageserver",
        "safekeeper-1",
        "safekeeper-2",
        "safekeeper-3",
        "compute",
        "control",
        "proxy",
    )
    listens = {part: installation.listen(part) for part in parts}
    assert len(set(listens.values())) == 7
    command = part_command(installation, "safekeeper-2")
    assert command[command.index("--id") + 1] == "2"
    peers = f"1={listens['safekeeper-1']},3={listens['safekeeper-3']}"
    assert command[command.index("--peers") + 1] == peers
    named = [f"{number}={listens[f'safekeeper-{number}']}" for number in (1, 2, 3)]
    for part in ("pageserver", "control"):
        command = part_command(installation, part)
        told = [command[at + 1] for at, word in enumerate(command) if word == "--wal-service"]
        assert told == named


def test_beyond_loopback_the_proxy_shows_the_installations_certificate_unless_it_has_its_own(
    installation: Installation,
) -> None:
    def proxied(*lines: str) -> list[str]:
        text = installation.config_file.read_text()
        head, _, rest = text.partition("[proxy]\n")
        rest = rest.split("\n\n", 1)[1]
        section = "\n".join(["[proxy]", 'service = "127.0.0.1:7434"', *lines])
        installation.config_file.write_text(f"{head}{section}\n\n{rest}")
        installation.forget_config()
        return part_command(installation, "proxy")

    made = installation.data / "tls/certificate.pem"
    made.parent.mkdir()
    made.write_text("a certificate")
    (installation.data / "tls/key.pem").write_text("its key")
    assert "--certificate" not in proxied('listen = "127.0.0.1:5432"')
    everywhere = proxied('listen = "0.0.0.0:5432"')
    assert everywhere[everywhere.index("--certificate") + 1] == str(made)
    own = proxied('listen = "0.0.0.0:5432"', 'certificate = "/a.pem"', 'key = "/k.pem"')
    assert own[own.index("--certificate") + 1] == "/a.pem"
    assert "--key" not in proxied('listen = "0.0.0.0:5432"', 'certificate = "/a.pem"')


@pytest.mark.parametrize(
    ("resolves", "listen", "said"),
    [
        (True, "0.0.0.0:5432", "here:5432"),
        (False, "[::]:5432", "127.0.0.1:5432"),
        (True, "10.0.0.5:5432", "10.0.0.5:5432"),
    ],
)
def test_urls_say_an_address_that_leads_somewhere(
    monkeypatch: pytest.MonkeyPatch, resolves: bool, listen: str, said: str
) -> None:
    def resolve(*_: object) -> list[object]:
        if not resolves:
            raise OSError("no such host")
        return []

    monkeypatch.setattr(commands.socket, "gethostname", lambda: "here")
    monkeypatch.setattr(commands.socket, "getaddrinfo", resolve)
    assert commands.reached_at(listen) == said


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
    if os.geteuid() != 0:
        pytest.skip("runs Postgres as its own user")
    # pytest's directories are closed to others.
    with pytest.raises(Unavailable):
        _ = installation.compute_dir
    installation.settle_compute_dir()
    place = installation.compute_dir
    installation.settle_compute_dir()
    assert installation.compute_dir == place
    assert place.parent == Path("/var/tmp")
    assert len(str(place)) < 100
    # Somebody cleans /var/tmp, and somebody else is quicker than the next `up`.
    place.rmdir()
    place.symlink_to("/")
    installation.settle_compute_dir()
    place.unlink()
    assert installation.compute_dir != place
    installation.compute_dir.rmdir()


def test_a_directory_that_earlier_versions_took_is_taken_if_it_is_ours(
    installation: Installation,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("runs Postgres as its own user")
    digest = hashlib.sha256(str(installation.data).encode()).hexdigest()[:8]
    earlier = Path(f"/var/tmp/pagestore-0-{digest}")
    earlier.symlink_to(installation.data)
    try:
        installation.settle_compute_dir()
        assert installation.compute_dir != earlier
    finally:
        earlier.unlink()
    installation.compute_dir.rmdir()
    earlier.mkdir()
    try:
        installation.settle_compute_dir()
        assert installation.compute_dir == earlier
    finally:
        earlier.rmdir()


def sleeping(*words: str) -> subprocess.Popen[bytes]:
    sleep = "import time; time.sleep(1000)"
    return subprocess.Popen([sys.executable, "-c", sleep, "pagestore.cli.main", *words])


def test_parts_that_nobody_keeps_are_found_and_strangers_are_not(
    installation: Installation, tmp_path: Path
) -> None:
    place = str(installation.part_dir("safekeeper-1"))
    noted, reused = sleeping(), sleeping()
    unnoted = sleeping("safekeeper", "--data-dir", place)
    elsewhere = sleeping("safekeeper", "--data-dir", str(tmp_path / "other/safekeeper-1"))
    everyone = (noted, reused, unnoted, elsewhere)
    try:
        installation.write_parts(
            {
                "control": PartProcess(noted.pid, 1, start_ticks(noted.pid) or 0),
                "pageserver": PartProcess(reused.pid, 1, 1),
            }
        )
        found = {part: [item.pid for item in left] for part, left in orphans(installation).items()}
        assert found == {"control": [noted.pid], "safekeeper-1": [unnoted.pid]}
    finally:
        for process in everyone:
            process.kill()
            process.wait()
    assert orphans(installation) == {}


def test_notes_of_another_version_are_read_as_none(installation: Installation) -> None:
    for text in ('{"control": {"pid": 1, "supervisor": 2, "colour": 3}}', "[]", "{", '{"a": 1}'):
        installation.parts_file.write_text(text)
        assert installation.parts() == {}


def test_notes_are_for_our_user_alone(installation: Installation) -> None:
    installation.write_parts({})
    assert installation.parts_file.stat().st_mode & 0o777 == 0o600


def test_what_is_started_anew_waits_longer_each_time_and_starts_afresh_after_a_steady_run() -> None:
    now = 0.0
    restarts = Restarts(lambda: now)
    pauses = []
    for _ in range(10):
        restarts.began()
        now += 1
        pauses.append(restarts.ended())
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == 10.0
    assert restarts.in_a_row == 10
    restarts.began()
    now += 30
    assert restarts.ended() == 0.1
    assert restarts.in_a_row == 1


def test_another_installation_has_other_ports_also_while_the_first_is_down(tmp_path: Path) -> None:
    """Nobody listens on the ports of a part that is down: being free is not enough."""
    taken = [choose_ports(tmp_path / name, 9) for name in ("one", "two", "three")]
    assert len({port for ports in taken for port in ports}) == 27
    assert taken[0] == choose_ports(tmp_path / "one", 9)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", taken[0][4]))
        listener.listen()
        moved = choose_ports(tmp_path / "one", 9)
        assert moved[0] == taken[0][0] + 10
        assert f"process {os.getpid()} " in holder(taken[0][4])


def test_a_later_safekeeper_gets_a_port_beside_the_others() -> None:
    assert one_more([8000, 8001, 8002]) in range(8003, 8100)


def test_parts_are_started_with_commands_that_anyone_could_type(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pagestore_shim-15.so").touch()
    monkeypatch.setenv("PAGESTORE_LIB_DIR", str(tmp_path))
    (tmp_path / "compute-dir").write_text("/var/tmp/x\n")
    command = part_command(installation, "control")
    assert command[1:4] == ["-m", "pagestore.cli.main", "control"]
    assert command[command.index("--compute-agent") + 1] == installation.listen("compute")
    assert command[command.index("--page-server") + 1] == installation.config.pageserver.listen


def test_an_agent_that_the_file_does_not_name_has_a_socket_of_its_own(tmp_path: Path) -> None:
    data = tmp_path / "my data %41"
    data.mkdir()
    config.write_first(data / "pagestore.toml")
    installation = Installation(data)
    assert installation.listen("compute").endswith("/my%20data%20%2541/compute/socket")
    with (data / "pagestore.toml").open("a") as file:
        file.write('listen = "127.0.0.1:7433"\n')
    assert Installation(data).listen("compute") == "127.0.0.1:7433"
