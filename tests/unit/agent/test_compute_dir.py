"""Where computes may lie: nobody else can move or replace what is made there."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagestore.agent.place import make_compute_dir
from pagestore.errors import FailedPrecondition
from tests.plain_postgres import passable_dir

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes directories of two users")
RUN_AS = "postgres"


@pytest.fixture
def parent() -> Iterator[Path]:
    place = passable_dir()
    yield place
    os.chown(place, 0, 0)
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir()
    place.rmdir()


def test_a_new_one_can_be_passed_through(parent: Path) -> None:
    make_compute_dir(parent / "computes", RUN_AS)
    make_compute_dir(parent / "computes", RUN_AS)
    assert stat.S_IMODE((parent / "computes").stat().st_mode) == 0o711


def test_one_that_is_there_stays_as_it_is(parent: Path) -> None:
    (parent / "srv").mkdir()
    (parent / "srv").chmod(0o755)
    make_compute_dir(parent / "srv", RUN_AS)
    assert stat.S_IMODE((parent / "srv").stat().st_mode) == 0o755


def give(path: Path) -> None:
    os.chown(path, pwd.getpwnam(RUN_AS).pw_uid, 0)


CASES: dict[str, Callable[[Path], object]] = {
    "is Postgres's own": lambda parent: give(parent / "computes"),
    "lies in one of Postgres's": give,
    "can be written by all": lambda parent: (parent / "computes").chmod(0o777),
    "is everybody's, though sticky": lambda parent: (parent / "computes").chmod(0o1777),
    "lies in one that all can write": lambda parent: parent.chmod(0o777),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_if_it(parent: Path, case: str) -> None:
    (parent / "computes").mkdir()
    CASES[case](parent)
    with pytest.raises(FailedPrecondition) as caught:
        make_compute_dir(parent / "computes", RUN_AS)
    assert caught.value.reason == "COMPUTE_DIR_NOT_OURS"
