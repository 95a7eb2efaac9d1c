"""Small files that a power cut may have left empty: named, or made right, never believed."""

from __future__ import annotations

import ast
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pagestore import durable
from pagestore.agent.place import install
from pagestore.compute.places import write_readable
from pagestore.compute.record import RECORD_FILE, ComputeRecord
from pagestore.errors import DataLoss, FailedPrecondition, Unavailable
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.ingest.releases import consumer_of
from pagestore.installation import config
from pagestore.installation.layout import Installation
from pagestore.installation.lifecycle import prepare
from pagestore.services.server import write_address

NOTHING_OF_OURS = [b"", b"\0" * 16, b"\xff\xfe garbage"]


@pytest.mark.parametrize("left", [*NOTHING_OF_OURS, b"[control]\n"])
def test_a_configuration_that_is_none_is_refused_with_its_name(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "pagestore.toml"
    path.write_bytes(left)
    config.write_first(path)
    assert path.read_bytes() == left, "it may be all that is left of the user's"
    with pytest.raises(FailedPrecondition, match=r"pagestore\.toml") as caught:
        config.load(path)
    assert caught.value.reason == "CONFIG_INVALID"


@pytest.mark.parametrize("left", NOTHING_OF_OURS)
def test_an_address_that_is_none_is_named(tmp_path: Path, left: bytes) -> None:
    installation = Installation(tmp_path)
    path = tmp_path / "control" / "address"
    with pytest.raises(Unavailable):
        installation.address("control")
    write_address(path.parent, "127.0.0.1:7430")
    assert installation.address("control") == "127.0.0.1:7430"
    path.write_bytes(left)
    with pytest.raises(DataLoss, match="control/address") as caught:
        installation.address("control")
    assert caught.value.reason == "FILE_CORRUPT"


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "[::1]:65535", "::1:80", "unix:/run/x", "host.example:80", ":80"]
)
def test_every_address_that_a_part_may_write_is_one(tmp_path: Path, address: str) -> None:
    write_address(tmp_path / "control", address)
    assert Installation(tmp_path).address("control") == address


@pytest.mark.parametrize("left", NOTHING_OF_OURS)
def test_a_safekeepers_number_is_not_given_twice(tmp_path: Path, left: bytes) -> None:
    installation = Installation(tmp_path)
    assert installation.last_safekeeper_id == 0
    installation.note_safekeeper_id(4)
    installation.note_safekeeper_id(3)
    assert installation.last_safekeeper_id == 4
    installation.safekeeper_id_file.write_bytes(left)
    with pytest.raises(DataLoss, match="last-safekeeper-id"):
        installation.note_safekeeper_id(5)


@pytest.mark.parametrize("left", NOTHING_OF_OURS)
def test_a_page_server_without_a_name_takes_another(tmp_path: Path, left: bytes) -> None:
    first = consumer_of(tmp_path)
    assert consumer_of(tmp_path) == first
    (tmp_path / "consumer").write_bytes(left)
    second = consumer_of(tmp_path)
    assert second not in ("", first)
    assert consumer_of(tmp_path) == second


@pytest.mark.parametrize("left", [b"", b"\x7fELF but another's"])
def test_an_installed_library_is_what_its_name_says(tmp_path: Path, left: bytes) -> None:
    library = tmp_path / "pagestore_shim.so"
    library.write_bytes(b"\x7fELF the real one")
    old_umask = os.umask(0o077)
    try:
        installed = install(library, tmp_path / "lib")
        installed.write_bytes(left)
        assert install(library, tmp_path / "lib") == installed
    finally:
        os.umask(old_umask)
    assert installed.read_bytes() == library.read_bytes()
    assert installed.stat().st_mode & 0o777 == 0o755, "Postgres's user reads it"
    assert [path.name for path in installed.parent.iterdir()] == [installed.name]


def test_what_is_replaced_is_synced_before_and_after_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, rename = os.fsync, Path.rename

    def noted_sync(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        sync(descriptor)

    def noted_rename(path: Path, target: Path) -> Path:
        steps.append(f"rename {path.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    durable.replace(tmp_path / "file", b"content")
    assert steps == ["sync file.tmp", "rename file.tmp", f"sync {tmp_path.name}"]


NOBODY = 65534


def planted_file(temporary: Path, elsewhere: Path) -> None:
    temporary.write_text("whose?")
    temporary.chmod(0o666)
    if os.geteuid() == 0:  # nobody else can make another's file
        os.chown(temporary, NOBODY, NOBODY)


def planted_link(temporary: Path, elsewhere: Path) -> None:
    temporary.symlink_to(elsewhere)


def planted_name(temporary: Path, elsewhere: Path) -> None:
    temporary.hardlink_to(elsewhere)


def planted_fifo(temporary: Path, elsewhere: Path) -> None:
    os.mkfifo(temporary, 0o666)


PLANTED = [planted_file, planted_link, planted_name, planted_fifo]


@pytest.mark.parametrize("plant", PLANTED)
def test_what_lay_where_the_new_file_is_made_gives_it_nothing(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    elsewhere = tmp_path / "precious"
    elsewhere.write_text("precious")
    elsewhere.chmod(0o640)
    path = tmp_path / "file"
    plant(tmp_path / f"file{durable.SUFFIX}", elsewhere)
    durable.replace(path, b"content")
    found = path.lstat()
    assert (found.st_mode, found.st_uid, found.st_gid, found.st_nlink) == (
        stat.S_IFREG | 0o600,
        os.geteuid(),
        os.getegid(),
        1,
    )
    assert path.read_bytes() == b"content"
    assert (elsewhere.read_text(), elsewhere.stat().st_mode & 0o777) == ("precious", 0o640)


@pytest.mark.parametrize("plant", PLANTED)
def test_nor_do_the_files_of_a_compute_take_anything_over(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    elsewhere = tmp_path / "precious"
    elsewhere.write_text("precious")
    group = NOBODY if os.geteuid() == 0 else os.getegid()
    plant(tmp_path / "pg_hba.conf.tmp", elsewhere)
    write_readable(tmp_path / "pg_hba.conf", "local all all peer\n", group)
    found = (tmp_path / "pg_hba.conf").lstat()
    expected = (stat.S_IFREG | 0o640, os.geteuid(), group)
    assert (found.st_mode, found.st_uid, found.st_gid) == expected
    plant(tmp_path / f"{RECORD_FILE}.tmp", elsewhere)
    ComputeRecord(DEFAULT_TENANT, TimelineId(bytes(16)), 1, "/run", "/log").save(tmp_path)
    found = (tmp_path / RECORD_FILE).lstat()
    assert (found.st_mode, found.st_uid) == (stat.S_IFREG | 0o600, os.geteuid())
    assert elsewhere.read_text() == "precious"


def test_nobody_replaces_a_file_in_a_way_of_its_own() -> None:
    """But layers, which are large (layers/files.py), and a data directory, which is not durable."""
    package = Path(durable.__file__).parent
    others = {"layers/files.py", "postgres/datadir.py"}
    computes = {"compute/places.py", "compute/record.py"}  # cache, as the directory they lie in
    aside = {"lost_found.py", "compute/removal.py", "compute/leftovers.py"}  # over nothing
    aside |= {"walservice/safekeeper.py", "agent/tablespaces.py"}
    own = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(_gives_a_file_its_name(node) for node in ast.walk(ast.parse(path.read_text())))
    }
    assert "durable.py" in own
    assert own - {"durable.py"} == others | computes | aside


def _gives_a_file_its_name(node: ast.AST) -> bool:
    """A call of os.rename, os.replace, os.link, shutil.move, or of a path's method."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    if owner in ("os", "shutil"):
        return node.func.attr in ("rename", "renames", "replace", "link", "move")
    one = len(node.args) == 1 and not node.keywords
    return node.func.attr in ("rename", "replace", "hardlink_to") and one


def test_a_lost_configuration_of_several_safekeepers_is_not_begun_anew_with_one(
    tmp_path: Path,
) -> None:
    installation = Installation(tmp_path)
    prepare(installation, 3)
    for number in (1, 2, 3):
        (tmp_path / f"safekeeper-{number}").mkdir(exist_ok=True)
    installation.config_file.unlink()
    with pytest.raises(FailedPrecondition, match=r"safekeeper-1, safekeeper-2") as caught:
        prepare(Installation(tmp_path))
    assert caught.value.reason == "CONFIG_MISSING"
    prepare(Installation(tmp_path), 3)
