"""Lists that move: with --watch a verb goes on, and shows its list anew whenever it has changed."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import io
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from pagestore.errors import InvalidInput

LOOK_SECONDS = 1.0
CLEAR = "\x1b[H\x1b[J"
Watch = Annotated[
    bool, typer.Option("--watch", help="Go on, and show it anew whenever it has changed.")
]
_Verb = Callable[..., None]


def watchable(
    lists: Callable[[Mapping[str, Any]], bool] = lambda options: True,
) -> Callable[[_Verb], _Verb]:
    """Gives a verb the option --watch, of which the verb itself knows nothing.

    Args:
        lists: whether, with these options, it only shows something.
    """

    def decorate(verb: _Verb) -> _Verb:
        known = inspect.signature(verb, eval_str=True)

        @functools.wraps(verb)
        def with_watch(*arguments: Any, watch: bool = False, **options: Any) -> None:
            if not watch:
                verb(*arguments, **options)
                return
            if not lists(options):
                raise InvalidInput("INVALID_OPTIONS", "--watch is for what only shows something.")
            repeat(lambda: verb(*arguments, **options))

        option = inspect.Parameter(
            "watch", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Watch
        )
        parameters = [*known.parameters.values(), option]
        marked: Any = with_watch
        marked.__signature__ = known.replace(parameters=parameters)
        marked.__annotations__ = {item.name: item.annotation for item in parameters}
        return with_watch

    return decorate


def repeat(show: Callable[[], None]) -> None:
    """Until it is interrupted, or has nothing to show any more.

    Args:
        show: writes to stdout, and remarks to stderr; ends by ``typer.Exit`` where it fails, and
            where it has shown something all the same.
    """
    gc.enable()
    before: Any = None
    while True:
        page, remarks = _Page(), _Page()
        try:
            with contextlib.redirect_stdout(page), contextlib.redirect_stderr(remarks):
                show()
        except typer.Exit:
            if not page.getvalue():
                sys.stderr.write(remarks.getvalue())
                raise
        now = page.what(), remarks.getvalue()
        if now != before:
            _write(page.getvalue(), remarks.getvalue(), first=before is None)
        before = now
        time.sleep(LOOK_SECONDS)


class _Page(io.StringIO):
    """What is written to a terminal, or not, as the real thing is one."""

    def isatty(self) -> bool:
        return sys.__stdout__ is not None and sys.__stdout__.isatty()

    def what(self) -> Any:
        """It, but for how long it took."""
        text = self.getvalue()
        try:
            said = json.loads(text)
        except ValueError:
            return text
        return {key: value for key, value in said.items() if key != "elapsed_ms"}


def _write(page: str, remarks: str, *, first: bool) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(CLEAR)
    elif not first and not page.startswith("{"):
        sys.stdout.write("\n")
    sys.stdout.write(page)
    sys.stdout.flush()
    sys.stderr.write(remarks)
