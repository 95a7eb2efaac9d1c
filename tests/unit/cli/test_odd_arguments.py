"""Arguments that say nothing, or two things at once, are answered with what holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from pagestore.cli.settings import _retention_words
from pagestore.cli.usage import usage
from pagestore.installation import config
from pagestore.v1 import control_pb2 as pb


@pytest.mark.parametrize(("seconds", "says"), [(0, "0s (5m stay in any case); "), (600, "10m; ")])
def test_a_window_below_the_least_says_what_stays(seconds: int, says: str) -> None:
    found = pb.Database(retention=pb.Retention(seconds=seconds))
    assert _retention_words(found).startswith(says)


def test_two_forms_of_an_answer_at_once_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        usage(None, as_csv=True, as_json=True, data=tmp_path)
    assert "Either --csv or --json, not both." in capsys.readouterr().err


def test_a_size_with_a_unit_in_the_settings_is_told_how_to_write_it(tmp_path: Path) -> None:
    path = tmp_path / "pagestore.toml"
    path.write_text(
        '[control]\nlisten = "x:1"\n[pageserver]\nlisten = "y:1"\n'
        '[objects]\nurl = "file:///o"\ncache_bytes = "64MiB"\n'
    )
    with pytest.raises(Exception, match=r"objects\.cache_bytes: .*67108864 for 64 MiB"):
        config.load(path)
