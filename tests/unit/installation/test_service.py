"""The systemd unit: what it says, that systemd takes it, and whose files are left alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pagestore.errors import AlreadyExists, FailedPrecondition, NotFound
from pagestore.installation import notify, service
from pagestore.installation.layout import Installation
from pagestore.installation.service import Service, installed, service_of

GOLDEN = """\
# Written by `pagestore service install`.
[Unit]
Description=pagestore on /srv/my data
After=network.target local-fs.target
StartLimitIntervalSec=0

[Service]
Type=notify
Environment="PAGESTORE_WAL_KEEP_BYTES=1 %% 2"
ExecStart=PYTHON -m pagestore.cli.main up --foreground --data "/srv/my data"
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=1
KillMode=process
TimeoutStartSec=240
TimeoutStopSec=300
OOMPolicy=continue
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine is written, nor its manager asked."""
    for name in [name for name in os.environ if name.startswith("PAGESTORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(service, "SYSTEM_UNITS", tmp_path / "system")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(shutil, "which", lambda program: None)


def test_the_unit_is_this(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGESTORE_WAL_KEEP_BYTES", "1 % 2")
    monkeypatch.setenv("PAGESTORE_DATA", "/elsewhere")
    unit = Service(Path("/srv/my data"), user=False)
    assert unit.text == GOLDEN.replace("PYTHON", sys.executable)
    assert "WantedBy=default.target" in Service(Path("/srv/x"), user=True).text


@pytest.mark.parametrize("place", ["/srv/plain", "/srv/my data", '/srv/100% "of" $HOME\\x'])
def test_systemd_takes_it(place: str, tmp_path: Path) -> None:
    analyze = next((p for p in ("/usr/bin/systemd-analyze",) if Path(p).exists()), None)
    if analyze is None:
        pytest.skip("no systemd-analyze")
    unit = Service(Path(place), user=False)
    path = tmp_path / unit.name
    path.write_text(unit.text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", path], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if unit.name in line]
    assert ours == [], done.stderr


def test_each_data_directory_has_a_unit_of_its_own() -> None:
    names = {Service(Path(place), True).name for place in ("/a/data", "/b/data", "/c/ü")}
    assert len(names) == 3
    assert all(name.startswith("pagestore-") and name.isascii() for name in names)


def test_install_show_and_remove(tmp_path: Path) -> None:
    unit = Service(tmp_path, user=True)
    with pytest.raises(NotFound):
        installed(unit)
    assert unit.state() == "not installed"
    assert unit.install() is False
    assert unit.path.read_text() == unit.text
    assert unit.path.is_relative_to(tmp_path / "config/systemd/user")
    assert installed(unit).state() == "unknown"
    unit.install()
    assert unit.remove() is True
    assert unit.remove() is False


def test_a_unit_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    unit = Service(tmp_path, user=True)
    unit.path.parent.mkdir(parents=True)
    unit.path.write_text("[Unit]\n")
    for act in (unit.install, unit.remove):
        with pytest.raises(AlreadyExists) as caught:
            act()
        assert caught.value.reason == "UNIT_NOT_OURS"
    assert unit.path.read_text() == "[Unit]\n"


def test_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation = Installation(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert service_of(installation, user=None).user is False
    assert service_of(installation, user=True).user is True
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert service_of(installation, user=None).user is True
    with pytest.raises(FailedPrecondition) as caught:
        service_of(installation, user=False)
    assert caught.value.reason == "NOT_ROOT"


def test_the_manager_is_told_when_everything_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    notify.notify("READY=1")  # nobody listens any more
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify.notify("READY=1")
