"""The command line's border: whatever is typed, and whatever is raised, ends in words.

Usage errors, errors of ours and anything unforeseen leave as a line on stderr with a hint, or under
--json as one object with a stable `reason`, and with an exit code of docs/cli.md. Nobody sees a
traceback or the name of a class; PAGESTORE_TRACE=1 shows where something unforeseen came from.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence

import typer

from pagestore.errors import (
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PagestoreError,
    of_exception,
)

TRACE = "PAGESTORE_TRACE"
INTERRUPTED = 130
NOBODY_READS = 141
"""As a shell says it of a program that SIGPIPE ended."""
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_PATH_IS_WRONG = (
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
)


def main(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Runs a verb; the process's exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A name that is not text is shown as what it is, in any locale.
        getattr(stream, "reconfigure", lambda **to: None)(errors="backslashreplace")
    as_json = "--json" in arguments
    command = typer.main.get_command(app)
    try:
        code = command.main([*arguments], prog_name="pagestore", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except BrokenPipeError:
        # Nothing more is to be written at exit, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        failure = in_words(error)
        say(failure, as_json)
        return failure.exit_code


def in_words(error: Exception) -> PagestoreError:
    """As :func:`pagestore.errors.of_exception`; files are those that the user named."""
    if os.environ.get(TRACE) and not isinstance(error, PagestoreError):
        traceback.print_exception(error)
    if isinstance(error, _UsageError):
        return _usage(error)
    if isinstance(error, OSError) and (found := _of_path(error)) is not None:
        return found
    found = of_exception(error)
    if found.reason == "INTERNAL" and not isinstance(error, PagestoreError):
        found.hint = f"{TRACE}=1 before the command shows where; please report it."
    return found


def say(failure: PagestoreError, as_json: bool) -> None:
    if as_json:
        body = {"reason": failure.reason, "message": failure.message, "hint": failure.hint}
        sys.stderr.write(json.dumps({"error": body}) + "\n")
        return
    sys.stderr.write(failure.last_words())


def _usage(error: Exception) -> PagestoreError:
    context = getattr(error, "ctx", None)
    verb = context.command_path if context is not None else "pagestore"
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    return InvalidInput("USAGE", message or "A verb is missing.", f"`{verb} --help` shows how.")


def _of_path(error: OSError) -> PagestoreError | None:
    where = str(error.filename or error.filename2 or "")
    if not where:
        return None
    words = f"{where}: {error.strerror}."
    match error.errno:
        case errno.ENOENT:
            return NotFound("NO_SUCH_FILE", words, "Name a place that exists.")
        case errno.EACCES | errno.EPERM:
            return FailedPrecondition(
                "PERMISSION_DENIED", words, "Run it as a user who may, or name another place."
            )
        case errno.EROFS:
            return FailedPrecondition(
                "READ_ONLY_FILE_SYSTEM", words, "Mount it for writing, or name another place."
            )
        case number if number in _PATH_IS_WRONG:
            return InvalidInput("INVALID_PATH", words, "Name another place.")
    return None
