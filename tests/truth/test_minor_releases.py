"""Both forms of a heap record's effect on the visibility map, in one timeline."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.plain_postgres import MAJOR
from tests.truth.history import history
from tests.truth.minors import (
    DELETE,
    HEAP,
    HEAP2,
    HOT_UPDATE,
    INSERT,
    LOCK,
    MULTI_INSERT,
    UPDATE,
    TwoMinors,
)
from tests.truth.workloads import Step, Workload

ROUNDS = 14
KINDS = (
    *((HEAP, operation) for operation in (INSERT, DELETE, UPDATE, HOT_UPDATE, LOCK)),
    (HEAP2, MULTI_INSERT),
)


def _round(number: int) -> tuple[Step, ...]:
    """Each statement finds pages whose bits are set; so each first touch of a page clears some."""
    low = number * 40
    return (
        "VACUUM (FREEZE) seen",
        f"UPDATE seen SET n = -n WHERE id = {low}",
        f"UPDATE seen SET body = repeat('y', 900) WHERE id BETWEEN {low + 600} AND {low + 602}",
        f"DELETE FROM seen WHERE id = {low + 1200}",
        f"SELECT id FROM seen WHERE id = {low + 1800} FOR UPDATE",
        "DELETE FROM seen WHERE id % 7 = 3 AND id < 300; VACUUM (FREEZE) seen",
        "INSERT INTO seen VALUES (1, 1, 'x')",
        "VACUUM (FREEZE) seen; COPY seen FROM PROGRAM 'printf \"1\\t1\\tx\\n2\\t2\\ty\\n\"'",
    )


LAST = (
    "VACUUM (FREEZE) seen",
    "DELETE FROM seen WHERE id % 400 = 7",
    "UPDATE seen SET n = -n WHERE id % 400 = 107",
    "SELECT id FROM seen WHERE id % 400 = 207 FOR UPDATE",
    "UPDATE seen SET body = repeat('z', 900) WHERE id % 400 = 307",
)
"""Each on pages of its own, whose bits stay as these records leave them."""

WORKLOAD = Workload(
    "map_bits",
    "CREATE TABLE seen (id int, n int, body text DEFAULT repeat('x', 60))"
    " WITH (autovacuum_enabled = off, fillfactor = 80);"
    "INSERT INTO seen SELECT i, i FROM generate_series(1, 4000) i;"
    "CREATE INDEX ON seen (id)",
    (*(step for number in range(ROUNDS) for step in _round(number)), *LAST),
)


@pytest.mark.skipif(MAJOR == 15, reason="no minor of 15 names blocks of the map in heap records")
def test_heap_records_of_two_minors_in_one_timeline() -> None:
    forms = TwoMinors()
    with history(WORKLOAD, rewritten=forms) as made:
        if not forms.named:
            pytest.skip("this minor names no blocks of the map in heap records")
        named, flagged = Counter(forms.named), Counter(forms.flagged)
        assert {*named} >= {*KINDS}, named
        assert {*flagged} >= {*KINDS}, flagged
        with made.replayed(made.end) as data:
            compared = made.compare(data, made.end, branches=1)
    assert not compared.differences, "\n".join(compared.differences[:40])
