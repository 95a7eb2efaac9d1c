"""Stores that are kept in an object store: driven by hand, and made anew from it."""

from __future__ import annotations

from pathlib import Path

from pagestore.ids import DEFAULT_TENANT
from pagestore.lmdbfile.whole import Change
from pagestore.maintenance.evicting import Evictor
from pagestore.maintenance.offsite import JOURNAL, PART, Offsite
from pagestore.objects.claims import claim
from pagestore.objects.journal import Replay
from pagestore.objects.store import ObjectStore
from pagestore.timeline import Repository
from pagestore.timeline.catalog import CatalogWriter
from pagestore.timeline.entries import FORMAT_KEY, LAYER, NEEDS_KEY, Place


def upload_all(offsite: Offsite) -> None:
    while (key := offsite.next_layer()) is not None:
        offsite.upload(key)


def settle(offsite: Offsite) -> None:
    """All that was written is there, and what nobody wants is gone."""
    for _ in range(20):
        offsite.take()
        upload_all(offsite)
        offsite.journal()
        offsite.clean()
        if offsite.is_whole:
            return
    raise AssertionError("it comes to no end")


def evict_all(repository: Repository, offsite: Offsite) -> int:
    """Every file that may go; how many bytes went."""
    gone = Evictor(repository, offsite, 0).look()
    offsite.take()
    return gone


def recover(objects: ObjectStore, directory: Path) -> None:
    """A store with the entries that the journal has, and no file."""
    directory.mkdir()
    claim(objects, PART, directory, take_over=True)
    entries: dict[bytes, bytes] = {}
    for changes in Replay(objects, PART, JOURNAL):
        for change in changes:
            _apply(entries, change)
    repository = Repository.open(directory / "store")

    def write(txn: CatalogWriter) -> None:
        for key, value in entries.items():
            if key.startswith(LAYER):
                txn.put(key, value)
                assert txn.move_layer(key, Place.REMOTE)
            elif key not in (FORMAT_KEY, NEEDS_KEY):
                txn.put(key, value)

    repository.store.commit(write)
    repository.close()


def _apply(entries: dict[bytes, bytes], change: Change) -> None:
    if change.value is None:
        entries.pop(change.key, None)
    else:
        entries[change.key] = change.value


def layer_objects(objects: ObjectStore) -> set[str]:
    return {found.name for found in objects.list("pageserver/layers/")}


def places(repository: Repository, number: int) -> list[Place]:
    from tests.unit.timeline.model import timeline_id

    listed = repository.store.catalog.layers(DEFAULT_TENANT, timeline_id(number))
    return [entry.place for _, entry in listed]
