"""What Tab completes, as bash asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pagestore.cli.completion import COMPLETE, offered
from pagestore.cli.main import PANELS


def completed(data: Path, *words: str) -> list[str]:
    """What could stand in place of the last word."""
    asked = {
        COMPLETE: "complete_bash",
        "COMP_WORDS": " ".join(("pagestore", *words)),
        "COMP_CWORD": str(len(words)),
        "PAGESTORE_DATA": str(data),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pagestore.cli.main"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_verbs_are_completed(tmp_path: Path) -> None:
    shown = {name for verbs in PANELS.values() for name, verb in verbs.items() if not verb.hidden}
    assert set(completed(tmp_path, "")) == shown
    assert completed(tmp_path, "bran") == ["branch"]


def test_options_are_completed(tmp_path: Path) -> None:
    assert completed(tmp_path, "branch", "app", "twig", "--tt") == ["--ttl"]


def test_a_name_is_not_completed_where_nothing_runs(tmp_path: Path) -> None:
    assert completed(tmp_path, "show", "a") == []


def test_a_name_that_a_shell_would_run_is_not_offered() -> None:
    hostile = ["x\\$(touch pwn)", "x`id`", 'x"y', "x'y", "x;y", "x*", "x|y", "x:y", "x\\"]
    plain = ["xy", "x y", "x.1-b_c+d@e", "xé"]
    assert offered([*hostile, *plain, "other"], "x", "complete_zsh") == plain
    assert offered([*hostile, "x y"], "x", "complete_bash") == ["x\\ y"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_that_its_shell_reads(shell: str) -> None:
    command = [sys.executable, "-m", "pagestore.cli.main", "completion", shell]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert COMPLETE in done.stdout
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)
