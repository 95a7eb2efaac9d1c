"""The manual page says what the verbs say."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import typer

from pagestore.cli.main import app
from pagestore.cli.man import _text, page

COMMANDS = {
    name: command
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    if not command.hidden
}


def test_every_verb_is_in_it_with_its_options() -> None:
    parts = re.split(r"^\.SS (.*)$", page(), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert set(found) == {name.replace("-", "\\-") for name in COMMANDS}
    for name, command in COMMANDS.items():
        said = found[name].replace("\\-", "-")
        options = [max(item.opts, key=len) for item in command.params if not item.hidden]
        for option in options:
            assert not option.startswith("--") or option in said, (name, option)


def test_troff_takes_it() -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("did NOT run: needs groff")
    done = subprocess.run(
        [groff, "-man", "-ww", "-z", "-Tutf8"],
        input=page(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


def test_what_is_said_is_no_request_of_troff() -> None:
    assert _text(".TH x") == "\\&.TH x"
    assert _text("a\\b `undo` --x") == "a\\eb \\fBundo\\fR \\-\\-x"
