"""What somebody else put into a directory is read as data, or not at all."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.errors import PagestoreError
from pagestore.postgres.datadir import DataDirectory, Owner
from pagestore.postgres.untrusted import open_directory, open_regular, open_root, read_regular

LIMIT = 1_000


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "secret"
    path.write_text("secret")
    yield path
    assert path.read_text() == "secret"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs"
    (path / "below").mkdir(parents=True)
    (path / "below/file").write_text("content")
    return path


@pytest.fixture
def root(theirs: Path) -> Iterator[int]:
    descriptor = open_root(theirs)
    yield descriptor
    os.close(descriptor)


def test_a_regular_file_is_read(root: int) -> None:
    assert read_regular(root, "below/file", LIMIT) == b"content"
    assert read_regular(root, "below/file", 7) == b"content"


def test_more_than_the_bound_is_not_read(root: int, theirs: Path) -> None:
    assert read_regular(root, "below/file", 6) is None
    os.truncate(theirs / "below/file", 8 << 40)
    assert read_regular(root, "below/file", LIMIT) is None


@pytest.mark.parametrize("path", ["none", "below", "below/file/x", "", "..", "below/../../secret"])
def test_what_is_no_file_below_is_not_read(root: int, secret: Path, path: str) -> None:
    assert read_regular(root, path, LIMIT) is None


def test_no_link_is_followed(root: int, theirs: Path, secret: Path) -> None:
    (theirs / "link").symlink_to(secret)
    (theirs / "folder").symlink_to(secret.parent)
    (theirs / "own").symlink_to("below/file")
    for path in ("link", "folder/secret", "own"):
        assert read_regular(root, path, LIMIT) is None
    with pytest.raises(OSError, match="folder"):
        open_directory(root, "folder")
    (theirs / "itself").symlink_to(theirs)
    with pytest.raises(OSError, match="itself"):
        open_root(theirs / "itself")


def test_nobody_is_waited_for(root: int, theirs: Path) -> None:
    os.mkfifo(theirs / "fifo")
    assert read_regular(root, "fifo", LIMIT) is None
    with pytest.raises(OSError, match="fifo"):
        open_regular(root, "fifo", os.O_WRONLY)


def test_anothers_file_under_a_second_name_is_not_read(
    root: int, theirs: Path, secret: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("makes files of two users")
    os.chown(theirs, 12345, 12345)
    (theirs / "second").hardlink_to(secret)
    assert read_regular(root, "second", LIMIT) is None


def test_another_file_system_is_not_entered(root: int, theirs: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts a file system")
    place = theirs / "below"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        (place / "file").write_text("content")
        assert read_regular(root, "below/file", LIMIT) is None
    finally:
        subprocess.run(["umount", place], check=True)


ATTACKS = {
    "a link where a file comes": lambda data, secret: (data / "name.new").symlink_to(secret),
    "a link in its place": lambda data, secret: (data / "name").symlink_to(secret),
    "a FIFO where a file comes": lambda data, secret: os.mkfifo(data / "name.new"),
    "a FIFO in its place": lambda data, secret: os.mkfifo(data / "name"),
    "a second name where a file comes": lambda data, s: (data / "name.new").hardlink_to(s),
    "a second name in its place": lambda data, secret: (data / "name").hardlink_to(secret),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("folder", ["", "pg_wal/"])
def test_a_directory_is_laid_while_its_user_is_at_work_in_it(
    tmp_path: Path, secret: Path, attack: str, folder: str
) -> None:
    """A server runs already as that user: another database's, or one that waits for its files."""
    if os.geteuid() != 0:
        pytest.skip("makes files of two users")
    before = secret.stat()
    with DataDirectory(tmp_path / "data", Owner(12345, 12345)) as directory:
        ATTACKS[attack](tmp_path / "data" / folder, secret)
        directory.write(f"{folder}name", b"laid")
        assert (tmp_path / "data" / folder / "name").read_bytes() == b"laid"
        ATTACKS["a second name in its place"](tmp_path / "data/pg_xact", secret)
        with pytest.raises(OSError, match="name"):
            directory.write_at("pg_xact/name", 0, b"laid", length=8192)
    after = secret.stat()
    assert (after.st_uid, after.st_mode, after.st_size) == (
        before.st_uid,
        before.st_mode,
        before.st_size,
    )


def test_a_folder_that_became_a_link_is_not_laid_into(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with DataDirectory(tmp_path / "data") as directory:
        (tmp_path / "data/base/5").symlink_to(elsewhere)
        with pytest.raises((OSError, PagestoreError)):
            directory.write("base/5/PG_VERSION", b"15")
    assert not list(elsewhere.iterdir())
