"""Times as a user writes them."""

from __future__ import annotations

import pytest

from pagestore.client import durations


@pytest.mark.parametrize(
    ("text", "found"),
    [("90", 90), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("7d", 604800), ("0.001s", 0.001)],
)
def test_a_time_is_read(text: str, found: float) -> None:
    assert durations.seconds(text) == found


@pytest.mark.parametrize("text", ["", "0", "0h", "-1s", "1w", "h", "1 h", "1e3", "never"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert durations.seconds(text) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0s"), (59.4, "59s"), (119, "119s"), (120, "2m"), (7300, "2h"), (3 * 86400, "3d")],
)
def test_it_is_said_in_few_digits(seconds: float, words: str) -> None:
    assert durations.words(seconds) == words
