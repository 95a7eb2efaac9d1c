"""Numbers for changes of members are used once, and asked for when there are none."""

from __future__ import annotations

import pytest

from pagestore.agent.generations import EACH, Generations
from pagestore.errors import Unavailable


def test_none_is_taken_twice_and_each_is_above_what_it_follows() -> None:
    numbers = Generations()
    with pytest.raises(Unavailable) as none:
        numbers.take(4)
    assert (none.value.reason, numbers.wanted_above) == ("NO_GENERATIONS", 4)
    numbers.grant(10, 4 * EACH)
    assert numbers.wanted_above == 0
    taken = [numbers.take(4), numbers.take(4), numbers.take(16)]
    assert taken == [10, 13, 17]
    with pytest.raises(Unavailable):
        numbers.take(17)
    numbers.grant(40, EACH)
    with pytest.raises(Unavailable):
        numbers.take(100)
    assert numbers.wanted_above == 100
