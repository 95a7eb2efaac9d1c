"""Generations: who writes for a part (the page server, the control plane), and until when.

::

    <prefix>/store                                 which store this is; made once
    <prefix>/<part>/claims/<generation>            made by whoever has that generation
    <prefix>/<part>/boundary/<generation>-<sequence>    what has been removed (journal)
    <data directory>/object-claim                  which claims are this directory's

At its start a part claims the generation above the highest. It has been superseded as soon as
there is a higher claim. Claims are removed only by a higher generation that has first written a
*boundary*; so one who looks for the claim behind his own (one small request), and then at
the boundaries, learns of his successor however long he was stalled.

**Which store.** What stands under a URL may be another place for a while: a directory whose disk is
not mounted, a bucket that was made anew. A store is ours as long as our own claim is in it, byte
for byte. So whoever has created or deleted anything looks for that before it counts, and while it
is not there everything waits, as for a store that does not answer. A store gets its id, and a
directory is made, only for a data directory that has never claimed.

**Which directory.** A claim names the data directory that made it. A directory whose claim is
not the highest has been replaced (`pagestore recover`), and claims nothing more: what it
has is old, however whole. The file says so durably before any claim is made, so that a part
that is killed in between knows its own claim again.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import time
from pathlib import Path
from typing import NamedTuple

from pagestore import durable
from pagestore.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable
from pagestore.objects import sealed
from pagestore.objects.backends import IDENTITY
from pagestore.objects.store import ObjectStore

RECORD = "object-claim"
"""The file's name."""

STORE_MAGIC, CLAIM_MAGIC, RECORD_MAGIC = b"PSOBJST\0", b"PSCLAIM\0", b"PSOWNER\0"
_CLAIM_FORM = re.compile(r"([0-9a-f]{8})")
_BOUNDARY_FORM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{16}")
_STORE = struct.Struct("<16s")
_CLAIM = struct.Struct("<16s16sIQ")  # store, directory, generation, unix microseconds
_RECORD = struct.Struct("<16s16sI")  # store, directory, generation


class Owner(NamedTuple):
    """What a data directory knows of its claims; ``generation`` is 0 before the first."""

    store_id: bytes
    directory: bytes
    generation: int


class Claim:
    """A generation that is ours.

    Args:
        raw: the object that says so.
    """

    def __init__(
        self, store: ObjectStore, store_id: bytes, part: str, generation: int, raw: bytes
    ) -> None:
        self.store = store
        self.store_id = store_id
        self.part = part
        self.generation = generation
        self._raw = raw

    def check_store(self) -> None:
        """Looks whether the store is the one that was claimed; what was created before is in it.

        Raises: as `check`.
        """
        name = _claim(self.part, self.generation)
        try:
            found = self.store.get(name)
        except NotFound:
            found = b""
        if found == self._raw:
            return
        if self.boundary()[0] > self.generation:
            raise superseded(self.part, self.generation)
        raise _another(self.store, f"{name} is not there as it was made")

    def check(self) -> None:
        """Looks whether it is still the highest. What was created before counts when it is.

        Raises:
            FailedPrecondition: GENERATION_SUPERSEDED. Unavailable: OBJECT_STORE_UNAVAILABLE.
        """
        self.check_store()
        if self.store.exists(_claim(self.part, self.generation + 1)):
            raise superseded(self.part, self.generation)
        if self.boundary()[0] > self.generation:
            raise superseded(self.part, self.generation)

    def boundary(self) -> tuple[int, int]:
        """Generation and sequence below which everything may have been removed."""
        return max((_boundary_of(name) for name in self._boundaries()), default=(0, 0))

    def put_boundary(self, sequence: int) -> None:
        """Says that all of lower generations goes, and of ours what is below `sequence`; then
        forgets the claims and boundaries below. Nothing may be removed before it returns.

        Raises: as `check`.
        """
        name = f"{self.part}/boundary/{self.generation:08x}-{sequence:016x}"
        self.store.create(name, b"")
        self.check()
        old = [other for other in self._boundaries() if other < name]
        claims = [other for other in _claims(self.store, self.part) if other < self.generation]
        self.store.delete([*(_claim(self.part, other) for other in claims), *old])

    def _boundaries(self) -> list[str]:
        prefix = f"{self.part}/boundary/"
        return [found.name for found, _ in self.store.named(prefix, _BOUNDARY_FORM)]


def identify(store: ObjectStore) -> bytes:
    """The id of a store that has been used before.

    Raises:
        DataLoss: OBJECT_CORRUPT. FailedPrecondition: OBJECT_VERSION.
        Unavailable: OBJECT_STORE_UNAVAILABLE: also where nothing of the store is there.
    """
    try:
        raw = store.get(IDENTITY)
    except NotFound as error:
        raise _another(store, f"there is no object {IDENTITY}") from error
    return read_store(raw, f"{IDENTITY} in {store.url}")


def establish(store: ObjectStore) -> bytes:
    """The store's id, drawn by lot where it has none yet, for who has never used one."""
    store.make()
    if not store.exists(IDENTITY):
        with contextlib.suppress(AlreadyExists):  # somebody else was first
            store.create(IDENTITY, sealed.seal(STORE_MAGIC, os.urandom(16)))
    return identify(store)


def reach(store: ObjectStore, *directories: Path) -> None:
    """Before anything is written there: the place is made where none of these data directories has
    ever claimed, and is the store that it was where one has. Raises as `identify`."""
    if any(read_owner(directory / RECORD) is not None for directory in directories):
        identify(store)
    else:
        store.make()


def claim(store: ObjectStore, part: str, directory: Path, *, take_over: bool = False) -> Claim:
    """The next generation, for a data directory that nobody else has open.

    Args:
        take_over: whoever has the highest is superseded; else only the directory that made it
            goes on.

    Raises:
        FailedPrecondition: GENERATION_SUPERSEDED, OBJECT_STORE_FOREIGN, OBJECT_STORE_CLAIMED.
        OSError: the directory's record cannot be written.
    """
    owner = read_owner(directory / RECORD)
    store_id = establish(store) if owner is None else identify(store)
    highest = (
        max(_claims(store, part), default=0) if take_over else check_ours(store, part, directory)
    )
    if owner is None or take_over:
        owner = Owner(store_id, os.urandom(16), 0)
    # Before the claim: one who is killed behind it knows it by the directory's id.
    _write_owner(directory / RECORD, owner)
    generation = highest + 1
    micros = time.time_ns() // 1000
    fields = _CLAIM.pack(store_id, owner.directory, generation, micros)
    raw = sealed.seal(CLAIM_MAGIC, fields)
    try:
        store.create(_claim(part, generation), raw)
    except AlreadyExists as error:
        raise superseded(part, generation) from error
    made = Claim(store, store_id, part, generation, raw)
    # A name below the highest may be free again.
    made.check()
    _write_owner(directory / RECORD, owner._replace(generation=generation))
    return made


def read_owner(path: Path) -> Owner | None:
    """
    Raises:
        DataLoss: OBJECT_CORRUPT
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    return Owner(*sealed.fields(_RECORD, RECORD_MAGIC, raw, str(path)))


class Claimed(NamedTuple):
    """What the object of a claim says; ``micros`` are Unix microseconds."""

    store_id: bytes
    directory: bytes
    generation: int
    micros: int


def read_claim(raw: bytes, where: str) -> Claimed:
    """
    Raises:
        DataLoss: OBJECT_CORRUPT. FailedPrecondition: OBJECT_VERSION.
    """
    return Claimed(*sealed.fields(_CLAIM, CLAIM_MAGIC, raw, where))


def read_store(raw: bytes, where: str) -> bytes:
    """The store's id; raises as `read_claim`."""
    (found,) = sealed.fields(_STORE, STORE_MAGIC, raw, where)
    return bytes(found)


def superseded(part: str, generation: int) -> FailedPrecondition:
    return FailedPrecondition(
        "GENERATION_SUPERSEDED",
        f"Another {part} has taken over from generation {generation}: this one may write and "
        "delete nothing any more.",
        "Its data directory is old now: keep it aside, or recover anew from the object store.",
    )


def _another(store: ObjectStore, why: str) -> Unavailable:
    return Unavailable(
        "OBJECT_STORE_UNAVAILABLE",
        f"What is at {store.url} now is not the object store that was there: {why}.",
        "Mount the directory, or bring the bucket of before back under its name; it is asked again "
        "by itself, and nothing counts as kept there until then.",
    )


def check_ours(store: ObjectStore, part: str, directory: Path) -> int:
    """Whether a directory may claim, and above which generation; claims nothing.

    Raises:
        FailedPrecondition: GENERATION_SUPERSEDED, OBJECT_STORE_FOREIGN, OBJECT_STORE_CLAIMED.
    """
    owner = read_owner(directory / RECORD)
    if owner is not None and owner.store_id != identify(store):
        raise FailedPrecondition(
            "OBJECT_STORE_FOREIGN",
            f"What {directory} has was kept in another object store than {store.url}.",
            "Give the URL of before: some of it may be nowhere else.",
        )
    highest = max(_claims(store, part), default=0)
    if highest:
        _check_made_by(store, part, highest, owner, directory)
    return highest


def _check_made_by(
    store: ObjectStore, part: str, highest: int, owner: Owner | None, directory: Path
) -> None:
    name = _claim(part, highest)
    made_by = read_claim(store.get(name), f"{name} in {store.url}").directory
    if owner is None:
        raise FailedPrecondition(
            "OBJECT_STORE_CLAIMED",
            f"{store.url} has the {part} of another data directory than {directory}.",
            "Give each installation a URL of its own; `pagestore recover --from URL` makes a "
            "directory of what is there.",
        )
    if made_by != owner.directory:
        raise superseded(part, owner.generation)


def _write_owner(path: Path, owner: Owner) -> None:
    durable.replace(path, sealed.seal(RECORD_MAGIC, _RECORD.pack(*owner)))


def _claims(store: ObjectStore, part: str) -> list[int]:
    prefix = f"{part}/claims/"
    return [int(generation, 16) for _, (generation,) in store.named(prefix, _CLAIM_FORM)]


def _claim(part: str, generation: int) -> str:
    return f"{part}/claims/{generation:08x}"


def _boundary_of(name: str) -> tuple[int, int]:
    generation, _, sequence = name.rpartition("/")[2].partition("-")
    return int(generation, 16), int(sequence, 16)
