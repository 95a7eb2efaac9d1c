"""What pg_upgrade is told and what its words mean, without a server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pagestore.agent import pg_upgrade
from pagestore.agent.pg_upgrade import Listening, facts, failure
from pagestore.agent.upgrade import check_tree
from pagestore.errors import DataLoss, FailedPrecondition, PagestoreError
from pagestore.pgformat.versions import POSTGRES_15, POSTGRES_17, POSTGRES_18, Version
from pagestore.postgres.datadir import Owner

PROGRAMS = Path("/usr/lib/postgresql/18/bin")
REFUSED = """\
Performing Consistency Checks
-----------------------------
Checking cluster versions                                     ok
Checking for prepared transactions                            fatal

The source cluster contains prepared transactions
Failure, exiting
"""
REFUSED_WITH_A_LIST = """\
Performing Consistency Checks
-----------------------------
Checking data type usage                                      fatal

Your installation contains one of the reg* data types in user tables.
You can drop the problem columns and restart the upgrade. A list of the
problem columns is in the file:
    new/pg_upgrade_output.d/20261130T053947.015/tables_using_reg.txt
Failure, exiting
"""
FAILED = """\
Checking for prepared transactions                            ok

If pg_upgrade fails after this point, you must re-initdb the
new cluster before continuing.

Performing Upgrade
------------------
Restoring database schemas in the new cluster                 \n\
*failure*

Consult the last few lines of "new/pg_upgrade_output.d/20261130T053947.015/log/dump_5.log" for
the probable cause of the failure.
Failure, exiting
"""
FILES = {
    "pg_upgrade_output.d/20261130T053947.015/tables_using_reg.txt": b"In database: app\n  t.c\n",
    "pg_upgrade_output.d/20261130T053947.015/log/dump_5.log": (
        b'command: "pg_restore" --exit-on-error error: no\n'
        b'pg_restore: error: could not execute query: ERROR:  unrecognized parameter "x"\n'
        b"Command was: -- For binary upgrade\n"
    ),
}


@pytest.mark.parametrize(
    ("output", "kind", "reason", "words"),
    [
        (REFUSED, FailedPrecondition, "UPGRADE_REFUSED", "contains prepared transactions"),
        (REFUSED_WITH_A_LIST, FailedPrecondition, "UPGRADE_REFUSED", "In database: app t.c"),
        (FAILED, PagestoreError, "UPGRADE_FAILED", 'ERROR: unrecognized parameter "x"'),
        ("", FailedPrecondition, "UPGRADE_REFUSED", "it does not say why"),
        ("pg_upgrade: cannot be run as root", FailedPrecondition, "UPGRADE_REFUSED", "as root"),
    ],
)
def test_pg_upgrades_own_words_are_told(
    output: str, kind: type[PagestoreError], reason: str, words: str
) -> None:
    error = failure(output, FILES.get, 18)
    assert (type(error), error.reason) == (kind, reason)
    assert words in error.message
    assert "pg_upgrade_output.d" not in error.message, "which is gone by then"
    assert "Failure, exiting" not in error.message
    assert "--exit-on-error" not in error.message


def test_what_it_says_is_bounded_and_names_no_file_elsewhere() -> None:
    asked: list[str] = []

    def read(path: str) -> bytes:
        asked.append(path)
        return b"x" * 1_000_000

    output = "Checking fatal\n new/pg_upgrade_output.d/../../../etc/shadow /etc/passwd y.txt\n"
    assert len(failure(output, read, 18).message) < 2 * pg_upgrade.LONGEST_WORDS
    assert asked == []
    failure(REFUSED_WITH_A_LIST, read, 18)
    assert asked == ["pg_upgrade_output.d/20261130T053947.015/tables_using_reg.txt"]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_each_of_its_lines_is_a_step_as_soon_as_it_is_begun(size: int) -> None:
    steps: list[str] = []

    def told(step: str) -> None:
        if step not in steps[-1:]:
            steps.append(step)

    listening = Listening(told)
    for at in range(0, len(FAILED), size):
        listening.hear(FAILED[at : at + size])
    wanted = ["Checking for prepared transactions", "Restoring database schemas in the new cluster"]
    assert [step for step in steps if step in wanted] == wanted
    assert set(steps) == set(wanted)


@pytest.mark.parametrize(
    ("version", "checksums", "said"),
    [
        (POSTGRES_17, False, None),
        (POSTGRES_17, True, "--data-checksums"),
        (POSTGRES_18, False, "--no-data-checksums"),
        (POSTGRES_18, True, "--data-checksums"),
    ],
)
def test_the_new_cluster_has_the_old_ones_checksums(
    version: Version, checksums: bool, said: str | None
) -> None:
    settings = {"max_prepared_transactions": "64"}
    argv = pg_upgrade.initdb(PROGRAMS, version, "boss", settings, checksums=checksums)
    assert [word for word in argv if "checksums" in word] == ([said] if said else [])
    assert argv[argv.index("-U") + 1] == "boss"
    assert argv[argv.index("--set") + 1] == "max_prepared_transactions=64"


@pytest.mark.parametrize("name", ["it's", 'a "b"', "$$", "a\\b"])
def test_a_role_whose_name_initdb_cannot_take_is_refused_by_name(name: str) -> None:
    pg_upgrade.check_user("the boss")
    with pytest.raises(FailedPrecondition) as caught:
        pg_upgrade.check_user(name)
    assert caught.value.reason == "UPGRADE_REFUSED"
    assert repr(name) in caught.value.message


def test_a_check_changes_nothing_and_jobs_are_bounded() -> None:
    def words(jobs: int, only_check: bool) -> list[str]:
        return pg_upgrade.upgrade(
            PROGRAMS, Path("/15/bin"), "boss", Path("/tmp"), jobs, only_check=only_check
        )

    assert "--check" in words(2, True)
    assert "--check" not in words(2, False)
    assert [words(jobs, False)[-3] for jobs in (0, 3, 999)] == ["1", "3", "8"]


def test_names_are_read_whatever_bytes_they_have() -> None:
    output = (
        '\t 1: pagestore_user = "706f737467726573"\t(typeid = 25, len = -1)\n'
        '\t 1: pagestore_database = "e4"\t(typeid = 25)\n\t 1: pagestore_database = "22"\n'
        '\t 1: pagestore_versions = "1"\t(typeid = 25)\n'
    )
    assert facts(output, "user") == ["postgres"]
    assert [os.fsencode(name) for name in facts(output, "database")] == [b"\xe4", b'"']
    assert facts(output, "versions") == ["1"]
    assert facts("FATAL:  database is gone", "user") == []


def test_only_18_takes_the_planners_statistics_along() -> None:
    kept = [
        each for each in (POSTGRES_15, POSTGRES_17, POSTGRES_18) if each.upgrade_keeps_statistics
    ]
    assert kept == [POSTGRES_18]


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _second_name(path: Path) -> None:
    path.hardlink_to(path.parent / "1")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _of_another(path: Path) -> None:
    path.touch()
    if os.geteuid() != 0:
        pytest.skip("only root makes a file of another user's")
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("make", [_link, _second_name, _pipe, _of_another])
def test_nothing_is_taken_in_but_plain_files_of_the_programs_user(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "base/5").mkdir(parents=True)
    (tmp_path / "base/5/1").touch()
    owner = Owner(os.geteuid(), os.getegid())
    check_tree(tmp_path, owner)
    make(tmp_path / "base/5/2")
    with pytest.raises(DataLoss) as caught:
        check_tree(tmp_path, owner)
    assert caught.value.reason == "UPGRADE_TAMPERED"


def test_a_link_in_place_of_the_whole_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataLoss):
        check_tree(tmp_path / "new", None)
