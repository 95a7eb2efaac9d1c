"""Leases by a clock of their own."""

from __future__ import annotations

import pytest

from pagestore.errors import InvalidInput
from pagestore.ids import DEFAULT_TENANT
from pagestore.timeline.leases import LONGEST_SECONDS, Leases

from .model import timeline_id

KEY = (DEFAULT_TENANT, timeline_id(1))
OTHER = (DEFAULT_TENANT, timeline_id(2))


def test_a_lease_holds_its_lsn_until_it_expires_and_is_never_shortened() -> None:
    now = [1000.0]
    leases = Leases(lambda: now[0])
    assert leases.take(KEY, 50, 10) == 1010
    assert leases.take(KEY, 50, 5) == 1010
    assert leases.take(KEY, 40, 30) == 1030
    assert (leases.held(KEY), leases.held(OTHER)) == ([40, 50], [])
    now[0] = 1011
    assert leases.held(KEY) == [40]
    assert leases.take(KEY, 50, 5) == 1016
    leases.forget(KEY)
    assert leases.held(KEY) == []


@pytest.mark.parametrize("seconds", [0, -1, LONGEST_SECONDS + 1])
def test_a_lease_of_no_or_endless_time_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidInput, match="1 to 86400 seconds"):
        Leases(lambda: 0.0).take(KEY, 50, seconds)
