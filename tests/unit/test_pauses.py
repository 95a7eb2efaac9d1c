"""Pauses double up to their bound, begin anew, and are the only ones of their kind."""

from __future__ import annotations

import re
from pathlib import Path

from pagestore import pauses
from pagestore.pauses import Pauses


def test_they_double_up_to_a_bound_and_begin_anew() -> None:
    some = Pauses(0.1, 1.0, spread=False)
    assert [some.next() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    some.reset()
    assert some.next() == 0.1


def test_spread_ones_lie_between_half_and_the_whole() -> None:
    for whole in (0.1, 0.2, 0.4):
        seen = set()
        for _ in range(50):
            some = Pauses(0.1, 1.0)
            for _ in range({0.1: 0, 0.2: 1, 0.4: 2}[whole]):
                some.next()
            seen.add(some.next())
        assert all(whole / 2 <= pause <= whole for pause in seen)
        assert len(seen) > 40


def test_nobody_doubles_pauses_in_a_way_of_his_own() -> None:
    package = Path(pauses.__file__).parent
    own = re.compile(r"min\((2 \* \w+|\w+ \* 2|\w+ \* 2(\.0)? ?\*\*)")
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if own.search(path.read_text())
    }
    assert found - {"pauses.py"} <= {"control/computes.py"}  # whose restarts go
