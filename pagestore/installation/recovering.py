"""A data directory made of an object store: ``pagestore recover``.

Order: the directory is marked as unfinished; then both parts' generations are claimed, so that
from here on nothing that another data directory writes counts any more; only then is it read how
far everything is. The catalog comes back with all layers in the object store: none is copied. The
control plane's state comes back as it was. The WAL behind each timeline's layers becomes the
log of the one safekeeper that there is now; a branch on which nothing was started gets none
(control/logs.py). Last a fence says where that WAL ended, and the mark goes.

Killed anywhere, it is begun anew: as long as the mark is there, all else in the directory is its
own. The operator's key is in no object store: without it the databases' passwords are not known.

WAL that is damaged there, or missing with more behind it, would end its database early. So that is
refused, before a fence gives up what lies behind it, unless it is accepted by name.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pagestore import durable
from pagestore.consensus.acceptor import WalPosition
from pagestore.control import operator_key
from pagestore.control.logs import settle_unmade
from pagestore.control.state import TABLES, ControlState
from pagestore.control.storage import VERSION, Storage, unseal, version_of
from pagestore.errors import DataLoss, FailedPrecondition, NotFound
from pagestore.ids import Lsn, TenantId, TimelineId
from pagestore.installation import config, keys, ownership
from pagestore.installation.layout import Installation
from pagestore.lmdbfile import witness
from pagestore.lmdbfile.whole import Change, Whole
from pagestore.objects import sealed
from pagestore.objects.archived_wal import ArchivedWal
from pagestore.objects.backends import IDENTITY
from pagestore.objects.claims import Claim, claim
from pagestore.objects.journal import Replay
from pagestore.objects.store import ObjectStore
from pagestore.timeline.catalog import Catalog, CatalogWriter
from pagestore.timeline.entries import LayerEntry, Place, TimelineEntry
from pagestore.walservice.owner import Owner
from pagestore.walservice.rebuilt import Piece, rebuild

LOGS_TOGETHER = 16
LOSSES_SHOWN = 10
CHANGES_TOGETHER = 50_000
"""In one transaction."""
_NOBODYS = frozenset({"lock", "lost+found"})
Key = tuple[TenantId, TimelineId]
Say = Callable[[str], None]


class Timeline(NamedTuple):
    key: Key
    entry: TimelineEntry


class Known(NamedTuple):
    """What the control plane's state says of timelines: their systems, which of them have no log
    at the WAL service, and which databases are on them."""

    systems: Mapping[TimelineId, int]
    unmade: frozenset[TimelineId]
    names: Mapping[TimelineId, str]


@dataclass
class Recovered:
    """``missing`` are databases whose timeline the object store did not have yet; ``strangers``
    timelines that no database names, which get one at the next start; ``lost`` says of each whose
    WAL is not whole there where it ends and why."""

    databases: int = 0
    timelines: int = 0
    layers: int = 0
    layer_bytes: int = 0
    wal_bytes: int = 0
    missing: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    strangers: int = 0
    has_key: bool = False


def recover(
    installation: Installation,
    url: str,
    environ: Mapping[str, str],
    key: Path | None,
    say: Say,
    *,
    accept_loss: bool = False,
) -> Recovered:
    """
    Args:
        key: the operator's key; None without it.
        say: told how far it is.
        accept_loss: whether databases may end where their WAL is damaged or missing.

    Raises:
        FailedPrecondition: DIRECTORY_NOT_EMPTY, ALREADY_RUNNING, OPERATOR_KEY_LOST.
        NotFound: OBJECT_STORE_EMPTY. DataLoss: OBJECT_CORRUPT, JOURNAL_INCOMPLETE,
        ARCHIVED_WAL_LOST. Unavailable: OBJECT_STORE_UNAVAILABLE.
    """
    store = ObjectStore.open(url, environ)
    if not store.exists(IDENTITY):
        raise NotFound(
            "OBJECT_STORE_EMPTY",
            f"Nothing of pagestore is in {url}.",
            "Give the URL that `up --objects` was given.",
        )
    data = installation.data
    # Before anybody is superseded for it.
    secret = None if key is None else key.read_bytes()
    with _alone(installation):
        _begin(installation, url)
        say("claiming what is there, so that nobody else writes it any more")
        claims = {part: _claimed(store, part, data) for part in ("pageserver", "control")}
        found = Recovered()
        timelines = _catalog(store, data / "pageserver/store", found)
        say(
            f"{found.timelines} timelines with {found.layers} layers, which stay where they are "
            f"until they are read"
        )
        known = _control(store, data / "control", timelines, found)
        say(f"{found.databases} databases")
        archived = ArchivedWal(store, claims["pageserver"].store_id)
        ends = _wal(archived, data / "safekeeper", timelines, known, found)
        if found.lost and not accept_loss:
            raise _lost(url, found.lost)
        _fence(archived, claims["pageserver"], timelines, ends, found)
        with ControlState(data / "control") as state:
            settle_unmade(state, {timeline for _, timeline in ends})
        say(f"{found.wal_bytes} bytes of WAL behind the layers")
        found.has_key = _key(installation, secret)
        _finish(installation, url)
    return found


@contextlib.contextmanager
def _alone(installation: Installation) -> Iterator[None]:
    installation.data.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in installation.data.iterdir()} - _NOBODYS
    if names and not installation.recovering_file.exists():
        raise FailedPrecondition(
            "DIRECTORY_NOT_EMPTY",
            f"{installation.data} is not empty: it has {min(names)!r}.",
            "Recover into a directory that is new or empty: --data DIR.",
        )
    lock = installation.take_lock()
    if lock is None:
        raise FailedPrecondition(
            "ALREADY_RUNNING", f"Somebody works on {installation.data} already.", "Let it end."
        )
    with lock:
        yield


def _begin(installation: Installation, url: str) -> None:
    """Marks the directory, and removes what a killed attempt has left."""
    # Computes' directories lie below: Postgres's user must be able to pass through.
    installation.data.chmod(0o711)
    durable.replace(installation.recovering_file, f"{url}\n".encode())
    for path in installation.data.iterdir():
        if path == installation.recovering_file or path.name in _NOBODYS:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _claimed(store: ObjectStore, part: str, data: Path) -> Claim:
    directory = data / part
    directory.mkdir(mode=0o700)
    return claim(store, part, directory, take_over=True)


def _catalog(store: ObjectStore, root: Path, found: Recovered) -> list[Timeline]:
    root.mkdir(mode=0o700)
    catalog = Catalog(root / "catalog.lmdb")
    try:
        replay = Replay(store, "pageserver", "catalog")
        # Its own entries are those of the journal, too.
        for some in _together(replay):
            catalog.update(lambda to, some=some: _write(to, some))  # type: ignore[misc]
        with catalog.whole() as (whole, _):
            _check_whole(store, "pageserver/catalog", replay.whole, whole)
        _leave_remote(catalog, found)
        listed = catalog.timelines()
    finally:
        catalog.close()
    timelines = [Timeline((tenant, timeline), entry) for tenant, timeline, entry in listed]
    found.timelines = sum(not timeline.entry.deleted for timeline in timelines)
    return timelines


def _write(to: CatalogWriter, changes: Iterable[Change]) -> None:
    for _, key, value in changes:
        if value is None:
            to.delete(key)
        else:
            to.put(key, value)


def _leave_remote(catalog: Catalog, found: Recovered) -> None:
    """No layer is here, and nothing is left here of layers that were replaced."""
    with catalog.whole() as (_, all_entries):
        changes = []
        for _, key, value in all_entries:
            if key.startswith(b"l") and value is not None:
                entry = LayerEntry.unpack(key, value, catalog.where)
                found.layers += 1
                found.layer_bytes += entry.summary.bytes
                changes.append(Change(b"", key, replace(entry, place=Place.REMOTE).pack(key)))
            elif key.startswith(b"d"):
                changes.append(Change(b"", key, None))
    for some in _together([changes]):
        catalog.update(lambda to, some=some: _write(to, some))  # type: ignore[misc]


def _control(
    store: ObjectStore, directory: Path, timelines: list[Timeline], found: Recovered
) -> Known:
    replay = Replay(store, "control", "state")
    together = _together(replay)
    first = next(together, [])
    # As it was written, or its sum would be another one. It is taken over when it is opened.
    storage = Storage(directory, TABLES, _version(first))
    try:
        for some in (first, *together):
            _write_state(storage, some)
        with storage.whole() as (whole, _):
            _check_whole(store, "control/state", replay.whole, whole)
    finally:
        storage.close()
    with ControlState(directory) as state:
        _judge(state, timelines, found)
        with state.change() as change:
            # Nobody has looked through the timelines of the one safekeeper that there is now.
            change.put_members(change.members().model_copy(update={"settled": ()}))
        view = state.view()
        there = [view.timeline(key[1]) for key, _ in timelines]
        known = [record for record in there if record is not None]
        return Known(
            {record.timeline: record.system_id for record in known},
            frozenset(record.timeline for record in known if record.unmade_log is not None),
            {record.timeline: record.name for record in view.databases()},
        )


def _write_state(storage: Storage, changes: Iterable[Change]) -> None:
    with storage.writing() as writer:
        for raw, key, value in changes:
            table = raw.decode()
            if table not in storage.tables:
                raise FailedPrecondition(
                    "OBJECT_VERSION",
                    f"The control plane's state in the object store has a table {table!r}, which "
                    "this pagestore does not know.",
                    "Use the version of pagestore that wrote it, or a later one.",
                )
            if value is None:
                writer.delete(table, key)
            else:
                writer.put(table, key, unseal(raw, key, value, storage.version))


def _version(changes: Iterable[Change]) -> int:
    """
    Raises:
        FailedPrecondition: OBJECT_VERSION.
    """
    value = next((value for _, _, value in changes if value), b"")
    if value and value[0] > VERSION:
        raise FailedPrecondition(
            "OBJECT_VERSION",
            f"The control plane's state in the object store has version {value[0]}; this "
            f"pagestore reads versions up to {VERSION}.",
            "Use the version of pagestore that wrote it, or a later one.",
        )
    return version_of(value)


def _judge(state: ControlState, timelines: list[Timeline], found: Recovered) -> None:
    """What one of the two has and the other has not: neither journal waits for the other."""
    view = state.view()
    there = {timeline.key[1] for timeline in timelines}
    databases = view.databases()
    found.databases = len(databases)
    found.missing = tuple(record.name for record in databases if record.timeline not in there)
    shown = {timeline.key[1] for timeline in timelines if not timeline.entry.deleted}
    found.strangers = len(shown - set(view.timeline_ids()))
    if found.strangers:
        durable.replace(witness.acceptance_file(state.directory / "data.mdb"), b"")


def _wal(
    archived: ArchivedWal, root: Path, timelines: list[Timeline], known: Known, found: Recovered
) -> dict[Key, int]:
    """Up to where each timeline that has a log now leads."""
    root.mkdir(mode=0o700)

    def end_of(timeline: Timeline) -> tuple[int, str]:
        key, entry = timeline
        begin = entry.disk_consistent_lsn
        wal = _Readable(archived, key, begin)
        start = WalPosition(begin, entry.prev_record_lsn)
        system_id = known.systems.get(key[1], 0)
        end = rebuild(root, Owner(*key, 1), start, system_id, wal.pieces()).flush_lsn
        name = known.names.get(key[1], f"timeline {key[1]}")
        return end, f"{name} behind {Lsn(end)}: {wal.loss}" if wal.loss else ""

    shown = [
        timeline
        for timeline in timelines
        if not timeline.entry.deleted and _has_log(timeline, known, archived)
    ]
    # They wait for the disk and the object store, hardly for each other.
    with ThreadPoolExecutor(LOGS_TOGETHER) as logs:
        ends = list(logs.map(end_of, shown))
    found.lost = tuple(loss for _, loss in ends if loss)
    return {key: end for (key, _), (end, _) in zip(shown, ends, strict=True)}


class _Readable:
    """The archived WAL of one timeline behind `begin`, up to what is damaged or missing of it."""

    def __init__(self, archived: ArchivedWal, key: Key, begin: int) -> None:
        self._archived, self._key, self._at = archived, key, begin
        self.loss = ""
        """Why it ends before the last of it, once it was read."""

    def pieces(self) -> Iterator[Piece]:
        try:
            for wal in self._archived.read(self._key, self._at):
                self._at = wal.end
                yield Piece(wal.start, wal.data, wal.term)
        except DataLoss as error:
            self.loss = error.message
            return
        behind = self._archived.resumes(self._key, self._at)
        if behind:
            missing = f"{Lsn(self._at)} to {Lsn(behind)}"
            self.loss = f"the WAL of {missing} is missing, what follows is there."


def _lost(url: str, losses: tuple[str, ...]) -> DataLoss:
    shown = "\n".join(losses[:LOSSES_SHOWN])
    more = len(losses) - LOSSES_SHOWN
    return DataLoss(
        "ARCHIVED_WAL_LOST",
        f"The WAL in {url} is not whole:\n{shown}" + (f"\nand {more} more." if more > 0 else ""),
        "Restore these objects from older versions of the bucket, and recover again. Where there "
        "are none, `recover --accept-loss` brings all back: these up to there, for good.",
    )


def _fence(
    archived: ArchivedWal,
    mine: Claim,
    timelines: list[Timeline],
    ends: Mapping[Key, int],
    found: Recovered,
) -> None:
    fenced = {}
    for key, entry in timelines:
        end = ends.get(key, 0)
        if end > entry.disk_consistent_lsn:
            fenced[key] = end
            found.wal_bytes += end - entry.disk_consistent_lsn
    archived.fence(mine.generation, fenced)


def _has_log(timeline: Timeline, known: Known, archived: ArchivedWal) -> bool:
    """What was written counts more than the state's word, which may be the older one."""
    key, entry = timeline
    begin = entry.disk_consistent_lsn
    has_wal = archived.end(key, begin) > begin or archived.resumes(key, begin) > 0
    return begin > entry.branch_lsn or has_wal or key[1] not in known.unmade


def _key(installation: Installation, secret: bytes | None) -> bool:
    """Puts the operator's key in its place; whether there is one that is the state's."""
    with ControlState(installation.part_dir("control")) as state:
        known = state.view().key()
        if secret is None:
            return known is None
        durable.replace(installation.operator_key_file, secret)
        operator_key.settle(state, installation.operator_key_file)
    return True


def _finish(installation: Installation, url: str) -> None:
    data = installation.data
    (data / "log").mkdir(mode=0o700)
    # Not before now: what has a configuration is a data directory.
    config.write_first(installation.config_file)
    config.add_objects(installation.config_file, url)
    ownership.claim(data)
    keys.settle(data)
    installation.recovering_file.unlink()
    durable.sync_directory(data)


def _together(replay: Iterable[Iterable[Change]]) -> Iterator[list[Change]]:
    together: list[Change] = []
    for changes in replay:
        together += changes
        if len(together) >= CHANGES_TOGETHER:
            yield together
            together = []
    if together:
        yield together


def _check_whole(store: ObjectStore, what: str, said: Whole | None, here: Whole) -> None:
    if said is None or said.total != here.total:
        raise sealed.corrupt(
            f"{what} in {store.url}", "what its objects make is not what they say of the whole"
        )
