"""The steps of an upgrade, as they are shown and counted."""

from __future__ import annotations

import pytest

from pagestore.cli.upgrade import Steps, shown_steps


def test_each_step_is_shown_once_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    with shown_steps(steps, True) as told:
        for done in range(3):
            told("exporting", done, 3)
        told("importing", 0, 0)
    assert capsys.readouterr().err == "exporting\nimporting\n"
    assert [step for step, _ in steps.taken] == ["exporting", "importing"]
    assert all(seconds >= 0 for _, seconds in steps.taken)


def test_under_json_nothing_is_shown_and_all_is_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = Steps()
    with shown_steps(steps, False) as told:
        told("exporting", 0, 0)
    assert capsys.readouterr() == ("", "")
    assert [step for step, _ in steps.taken] == ["exporting"]
