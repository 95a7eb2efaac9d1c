"""Lists in pages: a token says where the next one begins.

Of what is ordered by name it is the last name, so that a page is found at once, and what comes or
goes meanwhile moves nothing else. Of what is told newest first it is how many there were left then:
what is new stands in front, and changes nothing of what follows.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TypeVar

from pagestore.errors import InvalidInput

MAX_PAGE = 1000
ALL = 1 << 31

_T = TypeVar("_T")


def token_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def name_of(token: str) -> str:
    """The inverse; empty for the first page.

    Raises:
        InvalidInput: INVALID_PAGE_TOKEN.
    """
    try:
        return base64.b64decode(token, b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise _no_token(token) from error


def newest_first(items: Sequence[_T], size: int, token: str) -> tuple[Sequence[_T], str]:
    """A page of all `items`, and the token of the next.

    Raises:
        InvalidInput: INVALID_PAGE_TOKEN.
    """
    left = name_of(token)
    if left and not (left.isascii() and left.isdigit() and len(left) < 16):
        raise _no_token(token)
    begin = max(len(items) - int(left), 0) if left else 0
    end = begin + (min(size, MAX_PAGE) or ALL)
    rest = len(items) - end
    return items[begin:end], token_of(str(rest)) if rest > 0 else ""


def _no_token(token: str) -> InvalidInput:
    return InvalidInput(
        "INVALID_PAGE_TOKEN",
        f"{token[:40]!r} is not a page's token.",
        "Take next_page_token of the answer before, or none for the first page.",
    )
