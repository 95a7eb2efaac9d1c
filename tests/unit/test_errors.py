"""The one table of errors: every kind, every status of the core, anything else that is raised."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from google.rpc import code_pb2

from pagestore import errors
from pagestore._native import NativeError
from pagestore.errors import KINDS, NATIVE, PagestoreError, Status, Unavailable, of_exception

ROOT = Path(__file__).parents[2]


def test_every_kind_is_in_the_table_under_its_own_code() -> None:
    def below(cls: type[PagestoreError]) -> set[type[PagestoreError]]:
        return {cls}.union(*(below(kind) for kind in cls.__subclasses__()))

    ours = {cls for cls in below(PagestoreError) if cls.__module__ == errors.__name__}
    assert ours == set(KINDS.values())
    for code, cls in KINDS.items():
        assert cls.code == code
        assert code_pb2.Code.Value(code) > 0


def test_every_status_of_the_core_has_a_meaning() -> None:
    header = (ROOT / "native/core/status.h").read_text()
    codes = {name: int(code) for name, code in re.findall(r"PS_ERR_(\w+) = (-\d+)", header)}
    assert codes == {status.name: status.value for status in Status}
    assert set(NATIVE) == set(Status)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (NativeError(-8, "full"), errors.ResourceExhausted, "STORE_FULL"),
        (NativeError(-99, "new"), PagestoreError, "INTERNAL"),
        (OSError(errno.ENOSPC, "full"), errors.ResourceExhausted, "STORE_FULL"),
        (OSError(errno.EMFILE, "many"), errors.ResourceExhausted, "TOO_MANY_OPEN"),
        (OSError(errno.EIO, "broken", "/a"), errors.Unavailable, "IO_ERROR"),
        (MemoryError(), errors.ResourceExhausted, "OUT_OF_MEMORY"),
        (OverflowError("int too large"), errors.InvalidInput, "OUT_OF_BOUNDS"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"), errors.InvalidInput, "INVALID_TEXT"),
        (ZeroDivisionError("oh"), PagestoreError, "INTERNAL"),
        (AssertionError(), PagestoreError, "INTERNAL"),
        (errors.NotFound("GONE", "it"), errors.NotFound, "GONE"),
    ],
)
def test_anything_raised_is_words_without_a_class_name(
    error: BaseException, kind: type[PagestoreError], reason: str
) -> None:
    found = of_exception(error)
    assert (type(found), found.reason) == (kind, reason)
    assert found.message
    if not isinstance(error, PagestoreError):
        assert type(error).__name__ not in str(found)
        assert "class" not in str(found)


def test_an_error_in_other_words_is_the_same_error() -> None:
    class Odd(Unavailable):
        def __init__(self, number: int) -> None:
            self.number = number
            super().__init__("ODD", f"The number is {number}.", "Choose another.")

    odd = Odd(7).restated(message="It is odd.")
    assert (type(odd), odd.number, odd.reason) == (Odd, 7, "ODD")
    assert str(odd) == "It is odd. Hint: Choose another."
    assert odd.restated(hint="Even").args == ("It is odd.",)
