"""The entries of an LMDB file, kept in objects: a snapshot, and what transactions changed after it.

::

    <part>/<name>/<generation, 8 hex>/<sequence, 16 hex>.snapshot    entries, a part of all
    <part>/<name>/<generation, 8 hex>/<sequence, 16 hex>.changes     batches of transactions

Each object names the one before it, so that from the newest one a single chain leads back, across
generations, whatever else lies there. The newest is the last of the highest generation that
has any.
A snapshot is one or more objects behind each other, the last of which says so; one that was
not ended counts for nothing. To read the whole: the newest snapshot that was ended, and then, in
order, the changes behind it. Each object says how far it leads (`Whole`: the transaction, and
a sum over all entries), which tells whether a file is what the journal has, to the last entry.

**What counts.** An object counts once it has been created and its writer has then found no
successor (`claims`). The successor claims, then lists, then writes: so the chain that it goes on
from has all that counted. What a stalled writer creates afterwards has a lower generation, no
chain leads to it, and its writer, who looks, does nothing on the strength of it.

**What goes.** Behind a snapshot, everything before it; but first a boundary says so.

Not in here: when to write, and what the entries mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pagestore.errors import DataLoss, NotFound
from pagestore.lmdbfile.changes import Batch, change_size
from pagestore.lmdbfile.whole import Change, Whole
from pagestore.objects.claims import Claim, identify
from pagestore.objects.records import Kind, Link, Piece, decode, encode
from pagestore.objects.store import ObjectStore

_FORM = re.compile(r"([0-9a-f]{8})/([0-9a-f]{16})\.(snapshot|changes)")
PART_BYTES = 4 << 20
"""Of entries in one object of a snapshot, about."""
LEAST_REPLAY_BYTES = 256 << 10
GREATEST_REPLAY = 1000
"""Objects of changes behind a snapshot."""


class Name(NamedTuple):
    generation: int
    sequence: int
    kind: Kind
    size: int

    @property
    def link(self) -> Link:
        return Link(self.generation, self.sequence)


class Position(NamedTuple):
    """Where a journal ends: its last object, and how far it leads (None: nowhere yet)."""

    link: Link
    whole: Whole | None
    snapshot: Name | None
    snapshot_bytes: int
    changes: int
    changes_bytes: int


class Chain:
    """What leads back from the newest object to the newest snapshot that was ended, oldest first;
    reads objects as they are needed. ``snapshot``: the indices of its first and its last object."""

    def __init__(self, store: ObjectStore, store_id: bytes, prefix: str) -> None:
        self._store = store
        self._store_id = store_id
        self.prefix = prefix
        self.names: list[Name] = []
        self.snapshot: tuple[int, int] | None = None
        self._link(_listed(store, prefix))

    def piece(self, name: Name) -> Piece:
        """
        Raises:
            DataLoss: OBJECT_CORRUPT. FailedPrecondition: OBJECT_VERSION.
        """
        path = object_name(self.prefix, name.link, name.kind)
        where = f"{path} in {self._store.url}"
        return decode(self._store.get(path), where, self._store_id, name.link, name.kind)

    def _newest_snapshot(self, among: int) -> tuple[int, int] | None:
        """Of the first so many names; a snapshot is of one generation. One that was not ended is
        passed over by its last object alone."""
        at = among - 1
        while at >= 0:
            if self.names[at].kind is not Kind.SNAPSHOT:
                at -= 1
                continue
            piece = self.piece(self.names[at])
            begin = at - piece.part
            together = self.names[max(begin, 0) : at + 1]
            if piece.last and begin >= 0 and all(n.kind is Kind.SNAPSHOT for n in together):
                return begin, at
            at = begin - 1
        return None

    def _link(self, listed: dict[int, list[Name]]) -> None:
        """Generation by generation, however many lives have left no more than a few objects."""
        last: Link | None = None
        while last is None or last.generation in listed:
            generation = max(listed, default=0) if last is None else last.generation
            names = listed.pop(generation, [])
            if last is not None:
                names = [name for name in names if name.sequence <= last.sequence]
            if not names or (last is not None and names[-1].link != last):
                break
            names = _without_gap(names)
            self.names[:0] = names
            self.snapshot = self._newest_snapshot(len(names))
            if self.snapshot is not None:
                break
            # Before the first of a generation: the last that counted of another one.
            try:
                last = self.piece(names[0]).before
            except NotFound:
                break  # removed since it was listed: a snapshot behind it was ended
            if last.generation == generation:
                break


def _without_gap(names: list[Name]) -> list[Name]:
    """The last ones, whose sequences follow each other: before them is what was being removed."""
    begin = len(names) - 1
    while begin > 0 and names[begin - 1].sequence == names[begin].sequence - 1:
        begin -= 1
    return names[begin:]


def _listed(store: ObjectStore, prefix: str) -> dict[int, list[Name]]:
    """By generations, in the order of sequences."""
    found: dict[int, list[Name]] = {}
    for thing, (generation, sequence, kind) in store.named(f"{prefix}/", _FORM):
        name = Name(int(generation, 16), int(sequence, 16), Kind[kind.upper()], thing.size)
        found.setdefault(name.generation, []).append(name)
    return {generation: sorted(names) for generation, names in found.items()}


def object_name(prefix: str, link: Link, kind: Kind) -> str:
    return f"{prefix}/{link.generation:08x}/{link.sequence:016x}.{kind.name.lower()}"


class Replay:
    """The whole that a journal has, to be read in order.

    Raises:
        DataLoss: OBJECT_CORRUPT; JOURNAL_INCOMPLETE: there is no snapshot that was ended.
    """

    def __init__(self, store: ObjectStore, part: str, name: str) -> None:
        self._chain = Chain(store, identify(store), f"{part}/{name}")
        found = self._chain.snapshot
        if found is None:
            raise DataLoss(
                "JOURNAL_INCOMPLETE",
                f"{store.url} has no whole snapshot below {self._chain.prefix}.",
                "Nothing was ever kept there, or objects have been removed: restore them from "
                "older versions of the bucket.",
            )
        self._begin, self._end = found
        self.whole: Whole | None = None
        """How far it leads, once all was read."""

    def __iter__(self) -> Iterator[Sequence[Change]]:
        names = self._chain.names
        for at in range(self._begin, len(names)):
            if at > self._end and names[at].kind is Kind.SNAPSHOT:
                continue  # it was not ended
            for batch in self._chain.piece(names[at]).batches:
                self.whole = batch.whole
                yield batch.changes


class Journal:
    """The newest end of one, to go on from. One user at a time."""

    def __init__(self, claim: Claim, name: str) -> None:
        """
        Raises:
            FailedPrecondition: GENERATION_SUPERSEDED. DataLoss: OBJECT_CORRUPT.
            Unavailable: OBJECT_STORE_UNAVAILABLE.
        """
        self.claim = claim
        self.prefix = f"{claim.part}/{name}"
        self._store = claim.store
        self._unsure: tuple[str, bytes, Position] | None = None
        self.at = self._find()

    @property
    def whole(self) -> Whole | None:
        """How far what counts leads."""
        return self.at.whole

    @property
    def due(self) -> bool:
        """Whether a snapshot would now save more than it costs."""
        at = self.at
        enough = max(at.snapshot_bytes, LEAST_REPLAY_BYTES)
        return at.snapshot is None or at.changes_bytes > enough or at.changes >= GREATEST_REPLAY

    def append(self, batches: Sequence[Batch]) -> None:
        """What transactions changed, in order; those that the journal has are passed over.

        Raises:
            Unavailable: OBJECT_STORE_UNAVAILABLE: say it again.
            FailedPrecondition: GENERATION_SUPERSEDED
        """
        self._be_sure()
        known = self.at.whole.transaction if self.at.whole else 0
        new = [batch for batch in batches if batch.whole.transaction > known]
        if new:
            self._create(Piece(self.at.link, 0, False, new), Kind.CHANGES)

    def snapshot(self, whole: Whole, entries: Iterable[Change]) -> None:
        """All entries as of one transaction; raises as `append`, and is then begun again."""
        self._be_sure()
        for part, (together, last) in enumerate(_in_parts(entries)):
            piece = Piece(self.at.link, part, last, [Batch(whole, together)])
            self._create(piece, Kind.SNAPSHOT)

    def prune(self) -> int:
        """Removes what was before the newest snapshot; how many objects.

        Raises: as `append`; it goes on the next time.
        """
        self._be_sure()
        first = self.at.snapshot
        if first is None or first.generation != self.claim.generation:
            return 0
        old = [
            object_name(self.prefix, name.link, name.kind)
            for generation, names in _listed(self._store, self.prefix).items()
            for name in names
            if name.link < first.link
        ]
        if old:
            self.claim.put_boundary(first.sequence)
            self._store.delete(old)
        return len(old)

    def _find(self) -> Position:
        chain = Chain(self._store, self.claim.store_id, self.prefix)
        # It counts what it has found only while nobody has claimed since.
        self.claim.check()
        if not chain.names:
            return Position(Link(0, 0), None, None, 0, 0, 0)
        found = chain.snapshot
        if found is None:
            return Position(chain.names[-1].link, None, None, 0, 0, 0)
        begin, end = found
        changes = [name for name in chain.names[end + 1 :] if name.kind is Kind.CHANGES]
        last = chain.piece(changes[-1] if changes else chain.names[end])
        return Position(
            chain.names[-1].link,
            last.batches[-1].whole,
            chain.names[begin],
            sum(name.size for name in chain.names[begin : end + 1]),
            len(changes),
            sum(name.size for name in changes),
        )

    def _create(self, piece: Piece, kind: Kind) -> None:
        link = Link(self.claim.generation, self.at.link.sequence + 1)
        data = encode(self.claim.store_id, link, kind, piece)
        name = object_name(self.prefix, link, kind)
        self._unsure = (name, data, self._after(link, kind, piece, len(data)))
        self._be_sure()

    def _be_sure(self) -> None:
        """Creates what may or may not have been created, then looks; only then it counts."""
        if self._unsure is not None:
            name, data, after = self._unsure
            self._store.create(name, data)
            self._look()
            self.at = after
            self._unsure = None

    def _look(self) -> None:
        self.claim.check()

    def _after(self, link: Link, kind: Kind, piece: Piece, size: int) -> Position:
        at = self.at._replace(link=link)
        if kind is Kind.CHANGES:
            return at._replace(
                whole=piece.batches[-1].whole,
                changes=at.changes + 1,
                changes_bytes=at.changes_bytes + size,
            )
        if piece.part == 0:
            self._begun = (Name(*link, kind, size), 0)
        first, before = self._begun
        self._begun = (first, before + size)
        if not piece.last:
            return at
        return Position(link, piece.batches[-1].whole, first, before + size, 0, 0)


def _in_parts(entries: Iterable[Change]) -> Iterator[tuple[list[Change], bool]]:
    """Each with whether it is the last; one that is empty where there are none."""
    together: list[Change] = []
    size = 0
    for entry in entries:
        if size >= PART_BYTES:
            yield together, False
            together, size = [], 0
        together.append(entry)
        size += change_size(entry)
    yield together, True
