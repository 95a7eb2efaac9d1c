"""--watch: a list is shown anew whenever it has changed, and only then."""

from __future__ import annotations

import inspect
import json
import operator
import sys

import pytest
import typer

from pagestore.cli import safekeepers, tenants, usage, watching
from pagestore.cli.watching import repeat, watchable
from pagestore.errors import InvalidInput


class Enough(Exception):
    """Ctrl-C, as far as a test is concerned."""


def watched(pages: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows these, one after the other."""
    left = iter(pages)

    def show() -> None:
        page = next(left)
        out, _, remark = page.partition("|")
        sys.stdout.write(out)
        sys.stderr.write(remark)
        if remark:
            raise typer.Exit(5)

    def sleep(_: float) -> None:
        if not operator.length_hint(left):
            raise Enough

    monkeypatch.setattr(watching.time, "sleep", sleep)
    with pytest.raises((Enough, typer.Exit)):
        repeat(show)


def test_what_has_not_changed_is_not_shown_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watched(["a\t1\n", "a\t1\n", "a\t2\n", "a\t1\n"], monkeypatch)
    assert capsys.readouterr().out == "a\t1\n\na\t2\n\na\t1\n"


def test_an_object_a_line_and_how_long_it_took_is_no_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [{"n": n, "elapsed_ms": ms} for n, ms in ((1, 5), (1, 7), (2, 7), (2, 9))]
    watched([json.dumps(each) + "\n" for each in said], monkeypatch)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [said[0], said[2]]


def test_a_verb_that_shows_and_fails_goes_on_and_one_that_fails_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watched(["one\n|amiss\n", "two\n", "|there is none\n", "never\n"], monkeypatch)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("one\n\ntwo\n", "amiss\nthere is none\n")


def test_what_does_something_cannot_be_watched() -> None:
    for verb, options in (
        (tenants.tenant, {"action": tenants.Action.ADD, "name": "x"}),
        (safekeepers.safekeepers, {"replace": 1}),
        (usage.usage, {"as_csv": True}),
    ):
        assert "watch" in inspect.signature(verb).parameters
        with pytest.raises(InvalidInput, match="--watch"):
            verb(watch=True, **options)


def test_without_it_a_verb_is_what_it_was() -> None:
    asked = []

    @watchable()
    def verb(name: str) -> None:
        asked.append(name)

    verb(name="app")
    assert asked == ["app"]
