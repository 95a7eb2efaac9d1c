"""Which values are dead, by the kept LSNs; and where a cutoff goes, by the window."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from pagestore.ids import Lsn
from pagestore.timeline.entries import Holder, Horizon
from pagestore.timeline.horizons import (
    DAY,
    LEAST_SECONDS,
    Facts,
    Window,
    horizon,
    nothing_but_points,
)
from pagestore.timeline.retained import ALL, NOTHING, Retained

NOW = 1_000_000_000.0
lsns = st.integers(1, 60)
chains = st.dictionaries(lsns, st.booleans(), max_size=12).map(
    lambda values: sorted(values.items(), reverse=True)
)
retained = st.builds(
    Retained.of, st.one_of(st.just(ALL), st.just(NOTHING), lsns), st.sets(lsns, max_size=4)
)


def read(chain: list[tuple[int, bool]], lsn: int) -> list[int]:
    """What a read needs, in plain words: from the newest at or below down to a whole one."""
    needed = []
    for at, is_whole in chain:
        if at <= lsn:
            needed.append(at)
            if is_whole:
                break
    return needed


def test_the_example_of_the_essay() -> None:
    kept = Retained.of(35, [30])
    chain = [(44, False), (40, True), (33, False), (31, False), (25, False), (20, True)]
    assert kept.dead([*chain, (12, False), (10, False)]) == [False] * 6 + [True] * 2


@given(retained, chains)
def test_exactly_what_no_kept_read_needs_is_dead(
    kept: Retained, chain: list[tuple[int, bool]]
) -> None:
    reads = [lsn for lsn in range(1, 70) if lsn in kept]
    needed = {lsn for at in reads for lsn in read(chain, at)}
    assert kept.dead(chain) == [lsn not in needed for lsn, _ in chain]


@given(retained, st.sets(lsns, max_size=12))
def test_the_last_commit_before_a_time_is_found_as_before(
    kept: Retained, commits: set[int]
) -> None:
    ascending = sorted(commits)
    left = [
        lsn for lsn, dead in zip(ascending, kept.dead_times(ascending), strict=True) if not dead
    ]
    for at in range(1, 70):
        if at in kept:
            seen = [lsn for lsn in ascending if lsn <= at]
            assert [lsn for lsn in left if lsn <= at][-1:] == seen[-1:]
            # A time that lies in what is kept: the same answer, wherever the read stands.
            for time in seen:
                if time >= kept.cutoff:
                    assert max(lsn for lsn in left if lsn <= time) == time


def test_points_are_read_and_nothing_between() -> None:
    kept = Retained.of(30, [10, 20, 30, 40])
    assert [lsn for lsn in (9, 10, 11, 20, 29, 30, 31) if lsn in kept] == [10, 20, 30, 31]
    assert kept.boundaries == (10, 20, 30)
    assert Retained.of(ALL, [10]).boundaries == ()
    assert Retained.of(NOTHING, [10]).boundaries == (10,)
    assert 2**64 - 2 not in Retained.of(NOTHING, [10])


def facts(
    window: int, recent: int = 900, before: Horizon | None = None, by_bytes: int = 0
) -> Facts:
    return Facts(Lsn(100), Lsn(1000), window, recent, before, bytes_lsn=by_bytes)


def test_the_cutoff_is_what_the_window_began_with() -> None:
    assert horizon(facts(500), NOW) == Horizon(Lsn(500), Holder.WINDOW, None, int(1e15))
    assert horizon(facts(500, by_bytes=890), NOW).lsn == 890, "whichever is less"
    assert horizon(facts(500, by_bytes=300), NOW).lsn == 500
    assert Window(wal_bytes=100).bytes_begin(1000) == 900
    assert Window(wal_bytes=2000).bytes_begin(1000) == 0
    assert Window().bytes_begin(1000) == 0


def test_the_last_minutes_and_what_is_not_in_files_stay() -> None:
    assert horizon(facts(990, recent=700), NOW).lsn == 700
    assert horizon(facts(0, recent=700, by_bytes=999), NOW).lsn == 700
    assert horizon(facts(5000, recent=5000), NOW).lsn == 1000
    assert Window(0).begins(NOW) == int((NOW - LEAST_SECONDS) * 1e6)
    assert Window(DAY).begins(NOW) == int((NOW - DAY) * 1e6)


def test_the_cutoff_never_goes_back() -> None:
    before = Horizon(Lsn(600), Holder.WINDOW, None, 5)
    assert horizon(facts(500, before=before), NOW) is before
    assert horizon(facts(600, before=before), NOW) is before
    assert horizon(facts(601, before=before), NOW).lsn == 601


def test_a_history_that_is_younger_than_its_window_is_whole() -> None:
    for window in (0, 99, 100):
        assert horizon(facts(window), NOW) == Horizon(Lsn(0))


def test_who_has_no_name_is_read_at_its_points_alone() -> None:
    assert nothing_but_points(NOW).lsn == NOTHING
