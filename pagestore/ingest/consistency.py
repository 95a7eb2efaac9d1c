"""Every page image in the WAL, against our own page at the same LSN.

Under ``wal_consistency_checking`` Postgres adds to each record the pages as they should come out
of its redo. A page server that is told to check them makes each page itself, from what it has
just taken in, and compares after the masking that Postgres's own comparison does. A difference
means that a page would be served wrong: the timeline stops before the record, by name.

Many records of one piece of WAL change the same page. Of each page, the first and the last image
of a piece are compared with what a reader would get, by the reader's own way. Those between are
compared with what redo makes of the image before and the values since: so each record is judged,
and no chain is replayed again for every record on it.

A page of a visibility map may lack bits that the image has: CREATE DATABASE by `wal_log` logs it
as a page of tuples, whose hole is not in the WAL, and in the hole are all of them. So they are lost
to whoever replays, plain Postgres too; a bit that is missing costs a look at the heap. One that is
there and should not be is a wrong answer, and is found.

A leaf of a GiST index may have F_TUPLES_DELETED where the image has it not: Postgres's redo of a
DELETE sets it, and the server that deletes does not (gistRedoDeleteRecord and gistprunepage). So
plain Postgres's replay has it, too, and would end on its own check of such an image. Nothing reads
it on a leaf.

It is a mode for tests, and for finding out: it costs a read and a redo a record.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pagestore._native import Batch, NativeError, RedoPool, Snapshot
from pagestore.errors import FailedPrecondition
from pagestore.ids import format_lsn
from pagestore.keyspace import WILL_INIT, Key, ValueKind
from pagestore.pgformat.bufmask import F_TUPLES_DELETED, GIST_FLAGS_AT, HEADER_SIZE, PageKind
from pagestore.pgformat.pagekind import VISIBILITY_MAP, differing, differing_rows, kind_of

_HINT = "The page server's redo or ingest has a fault; keep the WAL from before this LSN."

Value = tuple[int, int, int, bytes]
"""(LSN, kind, flags, payload)."""
Request = tuple[bytes, bytes | None, list[Value]]


class _Check(NamedTuple):
    lsn: int
    raw_key: bytes
    image: bytes
    page: bytes


def check_images(snapshot: Snapshot, batch: Batch, images: Batch, redo: RedoPool) -> None:
    """Compares `images` with the pages that `batch` makes; `snapshot` has the batch already.

    Raises:
        FailedPrecondition: CONSISTENCY_FAILED; names the first page that is not equal.
    """
    wanted: dict[bytes, list[tuple[int, bytes]]] = {}
    for index in range(len(images)):
        raw, lsn, _, _, image = images[index]
        wanted.setdefault(raw, []).append((lsn, image))
    values: dict[bytes, list[Value]] = {}
    for index in range(len(batch)):
        raw, lsn, kind, flags, payload = batch[index]
        if raw in wanted:
            values.setdefault(raw, []).append((lsn, kind, flags, payload))
    checks = [*_as_read(snapshot, wanted, redo), *_step_by_step(wanted, values, redo)]
    checks.sort()
    keys = [Key.unpack(check.raw_key) for check in checks]
    found = differing_rows(
        b"".join(check.page for check in checks),
        b"".join(check.image for check in checks),
        [key.fork for key in keys],
        np.array([key.block for key in keys]),
        lsns=False,  # the image was taken before Postgres gave the page its LSN
    )
    for row, what in found:
        check, key = checks[row], keys[row]
        if key.fork == VISIBILITY_MAP and _lacks_bits_only(check):
            continue
        if not _has_redo_s_mark_only(check, key):
            raise _failed(check.raw_key, check.lsn, what)


def _lacks_bits_only(check: _Check) -> bool:
    ours, logged = (
        np.frombuffer(page, np.uint8)[HEADER_SIZE:] for page in (check.page, check.image)
    )
    return not (ours & ~logged).any()


def _has_redo_s_mark_only(check: _Check, key: Key) -> bool:
    if kind_of(check.page, key.fork, key.block) is not PageKind.GIST:
        return False
    marked = check.page[GIST_FLAGS_AT] & ~check.image[GIST_FLAGS_AT] & F_TUPLES_DELETED
    page = bytearray(check.page)
    page[GIST_FLAGS_AT] ^= marked
    return not differing(bytes(page), check.image, key.fork, np.array([key.block]), lsns=False)


def _as_read(
    snapshot: Snapshot, wanted: dict[bytes, list[tuple[int, bytes]]], redo: RedoPool
) -> Iterator[_Check]:
    for raw, images in wanted.items():
        for lsn, image in dict([images[0], images[-1]]).items():
            try:
                page = snapshot.read_pages(raw, lsn, redo)
            except NativeError as error:
                raise _failed(raw, lsn, str(error.args[1])) from error
            yield _Check(lsn, raw, image, page)


def _step_by_step(
    wanted: dict[bytes, list[tuple[int, bytes]]], values: dict[bytes, list[Value]], redo: RedoPool
) -> Iterator[_Check]:
    requests: list[Request] = []
    asked: list[tuple[int, bytes]] = []
    for raw, images in wanted.items():
        following = iter(values.get(raw, []))
        value = next(following, None)
        base: bytes | None = None
        for number, (lsn, image) in enumerate(images):
            items: list[Value] = []
            while value is not None and value[0] <= lsn:
                base, items = _with(base, items, value)
                value = next(following, None)
            if number > 0 and items:
                requests.append((raw, base, items))
                asked.append((lsn, image))
            base = image
    pages, fault = redo.apply_many(requests) if requests else ([], None)
    for (raw, _, _), (lsn, image), page in zip(requests, asked, pages, strict=True):
        if page is None:
            raise _failed(raw, lsn, fault[1] if fault else "redo made no page")
        yield _Check(lsn, raw, image, page)


def _with(base: bytes | None, items: list[Value], value: Value) -> tuple[bytes | None, list[Value]]:
    """A page's base and what is to be applied to it, with one value more."""
    _, kind, flags, payload = value
    if kind == ValueKind.IMAGE:
        return payload, []
    if kind == ValueKind.ZERO:
        return None, []
    return (None, [value]) if flags & WILL_INIT else (base, [*items, value])


def _failed(raw_key: bytes, lsn: int, what: str) -> FailedPrecondition:
    key = Key.unpack(raw_key)
    place = f"{key.spc}/{key.db}/{key.rel} fork {key.fork} block {key.block}"
    return FailedPrecondition(
        "CONSISTENCY_FAILED",
        f"{place} is not what the WAL record that ends at {format_lsn(lsn)} says: {what}.",
        _HINT,
    )
