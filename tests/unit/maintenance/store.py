"""Stores whose pages need no Postgres: zeros, patches and images; and the pages as dicts make them.

A root has one relation of `BLOCKS` blocks, and sizes of others that come and go.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import hypothesis.strategies as st

from pagestore import keyspace
from pagestore._native import Snapshot
from pagestore.keyspace import PAGE_SIZE, ValueKind
from pagestore.maintenance.ancestry import steps
from pagestore.maintenance.figures import Depths, ancestors
from pagestore.maintenance.policy import Bounds, Job, next_job
from pagestore.maintenance.rewriting import rewrite
from pagestore.timeline import Timeline
from tests.unit.layers.model import Entry, History, ends_chain, page
from tests.unit.timeline.model import ROOT_LSN, ModelTimeline

BLOCKS = 5
METADATA = keyspace.Key(0).pack(), keyspace.Key(0x10).pack()
TINY = Bounds(
    file_bytes=1,
    run_bytes=40_000,
    factor=2.0,
    open_weight=2,
    chain_weight=4,
    deep_weight=12,
    image_bytes=10,
    image_part=1.0,
    image_floor=1500,
    rest_floor=0,
    settled_bytes=2000,
)
CHAINED = replace(TINY, deep_branch=2, loose_branches=2)
"""Two timelines with layers are many."""
Change = tuple[int, int, bytes]
"""A block, a value's kind and its payload."""


def key(block: int) -> bytes:
    return keyspace.rel_block(1663, 5, 7, 0, block).pack()


def beginning() -> list[Entry]:
    size = keyspace.rel_size(1663, 5, 7, 0).pack(), struct.pack("<I", BLOCKS)
    return [
        (size[0], ROOT_LSN, ValueKind.IMAGE, 0, size[1]),
        *((key(block), ROOT_LSN, ValueKind.IMAGE, 0, page(block)) for block in range(BLOCKS)),
    ]


def patch(at: int, value: int) -> bytes:
    return struct.pack("<HHBB", at, 1, 0xFF, value)


patches = st.tuples(
    st.just(ValueKind.PATCH), st.builds(patch, st.integers(0, 20), st.integers(1, 255))
)
wholes = st.one_of(
    st.tuples(st.just(ValueKind.ZERO), st.just(b"")),
    st.tuples(st.just(ValueKind.IMAGE), st.integers(0, 255).map(page)),
)
page_keys = st.integers(0, BLOCKS - 1).map(key)
changes = st.one_of(
    st.tuples(page_keys, patches),
    st.tuples(st.just(key(0)), patches),
    st.tuples(page_keys, wholes),
    st.tuples(
        st.builds(keyspace.rel_size, st.just(1663), st.just(5), st.integers(1, 4), st.just(0)).map(
            lambda made: made.pack()
        ),
        st.one_of(
            st.tuples(st.just(ValueKind.IMAGE), st.binary(min_size=4, max_size=4)),
            st.tuples(st.just(ValueKind.TOMBSTONE), st.just(b"")),
        ),
    ),
)


def made_page(history: History, block: int, lsn: int) -> bytes:
    made = bytearray(PAGE_SIZE)
    for _, kind, _, payload in reversed(history.chain(key(block), lsn)):
        if kind == ValueKind.IMAGE:
            made[:] = payload
        elif kind == ValueKind.PATCH:
            at, _, _, value = struct.unpack("<HHBB", payload)
            made[at] = value
    return bytes(made)


def check(snapshot: Snapshot, model: ModelTimeline, lsn: int) -> None:
    """Every page, and all that is no page, at an LSN."""
    view = model.view(lsn)
    expected = [item for item in view.alive(lsn) if item[0] < METADATA[1]]
    assert snapshot.scan(*METADATA, lsn) == expected
    pages = snapshot.read_pages(b"".join(map(key, range(BLOCKS))), lsn)
    assert pages == b"".join(made_page(view, block, lsn) for block in range(BLOCKS))


def depth(snapshot: Snapshot, lsn: int) -> int:
    """How many patches the worst read at an LSN applies."""
    return max(
        sum(not ends_chain(kind, flags) for _, kind, flags, _ in snapshot.chain(key(block), lsn))
        for block in range(BLOCKS)
    )


def settle(timeline: Timeline, bounds: Bounds = TINY, *, at_rest: bool = True) -> list[Job]:
    """All that the policy wants, done; what it was."""
    done: list[Job] = []
    while (job := wanted(timeline, bounds, at_rest=at_rest)) is not None:
        rewrite(timeline, job, None, bounds)
        done.append(job)
        assert len(done) < 50, "the policy comes to no end"
    return done


def wanted(timeline: Timeline, bounds: Bounds, *, at_rest: bool) -> Job | None:
    above = ancestors(timeline, bounds.deep_branch)
    files = Depths().figures(timeline)
    return next_job(files, bounds, at_rest=at_rest, ancestors=above, steps=steps(timeline))
