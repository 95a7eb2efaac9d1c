"""What of the history of timelines is kept, and for whom; what may be read of it.

Durable, in the catalog, are: windows and points that the control plane has told (how long a
database's history is kept; its checkpoints), children with their branch LSNs, leases, and each
timeline's horizon, its cutoff. What is kept of a timeline (`retained`) follows from these alone. It
only ever shrinks: a branch, a lease or a point is taken on at an LSN that is kept at that moment,
and all that changes what is kept is one at a time, under the repository's ``_changing``. So who
drops values looks at `retained` once and works on; what comes meanwhile asks for no more.

A timeline's horizon concerns its own history. What lies before its branch LSN is its parent's, and
is read there; at the branch LSN itself the child's entry holds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from pagestore.errors import NotFound, OutOfRange, Unavailable
from pagestore.ids import Lsn, TenantId, TimelineId, format_lsn
from pagestore.timeline.catalog import CatalogWriter
from pagestore.timeline.entries import Horizon
from pagestore.timeline.horizons import Window, nothing_but_points
from pagestore.timeline.leases import Leases
from pagestore.timeline.retained import ALL, NOTHING, Retained
from pagestore.timeline.store import Store
from pagestore.timeline.timeline import Timeline

Key = tuple[TenantId, TimelineId]


class Retention:
    """Of all timelines of a page server. Thread-safe.

    Args:
        changing: the repository's, which timelines come and go under.
        clock: Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        leases: Leases,
        changing: threading.RLock,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._catalog = store.catalog
        self._leases = leases
        self._changing = changing
        self.clock = clock

    # What can be read

    def reads(self, timeline: Timeline, lsn: int) -> bool:
        """Whether there is a history of `lsn`; not whether ingest is there yet."""
        timeline = timeline.owner(lsn)
        if lsn == timeline.branch_lsn and timeline.parent is not None:
            return True
        if lsn < timeline.branch_lsn:
            return False
        if lsn >= timeline.horizon:
            return True
        return lsn in (timeline.retained or self._learn(timeline))

    def check(self, timeline: Timeline, lsn: int) -> None:
        """
        Raises:
            OutOfRange: LSN_TOO_OLD, with the oldest LSN from which on all can be read.
        """
        if lsn < timeline.kept_from and not self.reads(timeline, lsn):
            raise too_old(timeline, lsn)

    def retained(self, timeline: Timeline) -> Retained:
        """What is kept of it now. From here on nobody reads anything else there."""
        with self._changing:
            timeline.retained = self._read(timeline)
            return timeline.retained

    def _learn(self, timeline: Timeline) -> Retained:
        """For a reader, who waits for no change: what somebody has settled since counts."""
        found = self._read(timeline)
        with self._store.structure:
            if timeline.retained is None:
                timeline.retained = found
            return timeline.retained

    def _read(self, timeline: Timeline) -> Retained:
        key = timeline.tenant_id, timeline.timeline_id
        horizon = timeline.horizon
        if horizon == ALL:
            return Retained()
        children = (at for _, at in self._catalog.children(*key))
        return Retained.of(
            horizon, [*children, *self._catalog.points(*key), *self._leases.held(key)]
        )

    # What changes it

    def take_lease(self, timeline: Timeline, lsn: int, seconds: int) -> int:
        """Holds an LSN; the Unix second at which that ends.

        Raises:
            OutOfRange: LSN_TOO_OLD. Besides, as `Leases.take`.
        """
        owner = timeline.owner(lsn)
        with self._changing:
            self.check(owner, lsn)
            return self._leases.take((owner.tenant_id, owner.timeline_id), lsn, seconds)

    def tell(
        self,
        timeline: Timeline,
        window: Window | None,
        points: Iterable[int],
        *,
        named: bool = True,
    ) -> list[Lsn]:
        """What its databases want kept of it: all that was told before is forgotten.

        Args:
            window: None: as of all timelines.
            points: LSNs that are kept whatever the window says.
            named: whether anybody still names it; one that nobody names is read by its children
                and leases alone, for good.

        Returns:
            Those of `points` that are kept no more.

        Raises:
            NotFound: TIMELINE_NOT_FOUND. ResourceExhausted: STORE_FULL.
            Unavailable: ANCESTOR_BEHIND: nobody names it, but children need WAL of it that is not
                ingested again yet.
        """
        key = timeline.tenant_id, timeline.timeline_id
        ends = not named and timeline.horizon != NOTHING
        if ends:
            timeline.freeze()
            timeline.flush()
        with self._changing:
            if ends:
                self._check_durable(timeline)
            wanted = {Lsn(point) for point in points}
            lost = sorted(point for point in wanted if not self.reads(timeline, point))
            new = None if window is None else (window.seconds, window.wal_bytes)
            before = self._catalog.window(*key), set(self._catalog.points(*key))
            after = new, wanted.difference(lost)
            if before != after or ends:
                self._store.commit(lambda txn: self._put(txn, key, before[1], *after, ends=ends))
            if ends:
                self._moved(timeline, NOTHING)
            return lost

    def _check_durable(self, timeline: Timeline) -> None:
        """Ingest goes on from what is in files, and reads there: all points lie before that."""
        key = timeline.tenant_id, timeline.timeline_id
        needed = max((at for _, at in self._catalog.children(*key)), default=0)
        if timeline.disk_consistent_lsn < needed:
            raise Unavailable(
                "ANCESTOR_BEHIND",
                f"Timeline {timeline.timeline_id} has a branch at {format_lsn(needed)} but is in "
                f"files only up to {format_lsn(timeline.disk_consistent_lsn)}.",
                "Try again when the page server has caught up with the WAL service.",
            )

    def _put(
        self,
        txn: CatalogWriter,
        key: Key,
        before: set[Lsn],
        window: tuple[int, int] | None,
        points: set[Lsn],
        *,
        ends: bool,
    ) -> None:
        _check_there(txn, key)
        txn.put_window(*key, window)
        for point in before - points:
            txn.remove_point(*key, point)
        for point in points - before:
            txn.put_point(*key, point)
        if ends:
            txn.put_horizon(*key, nothing_but_points(self.clock()))

    def move(self, timeline: Timeline, horizon: Horizon) -> None:
        """Moves the cutoff: durable first, then nobody reads below it.

        Raises:
            NotFound: TIMELINE_NOT_FOUND. ResourceExhausted: STORE_FULL.
        """
        key = timeline.tenant_id, timeline.timeline_id

        def change(txn: CatalogWriter) -> None:
            _check_there(txn, key)
            txn.put_horizon(*key, horizon)

        with self._changing:
            self._store.commit(change)
            self._moved(timeline, horizon.lsn)

    def ended(self, timeline: Timeline) -> None:
        """The catalog says that nothing but points is kept of it."""
        with self._changing:
            self._moved(timeline, NOTHING)

    def _moved(self, timeline: Timeline, lsn: Lsn) -> None:
        timeline.move_horizon(lsn)
        self.retained(timeline)

    def told(self) -> set[Key]:
        """The timelines of which something was told, other than of all."""
        return self._catalog.told()

    def window(self, key: Key) -> Window | None:
        """What was told of one; None: as of all."""
        told = self._catalog.window(*key)
        return None if told is None else Window(*told)

    def horizon(self, key: Key) -> Horizon | None:
        return self._catalog.horizon(*key)


def too_old(timeline: Timeline, lsn: int) -> OutOfRange:
    owner, name = timeline.owner(lsn), timeline.timeline_id
    hint = None
    if owner.horizon == NOTHING:
        kept = f"Timeline {owner.timeline_id} was deleted; only what branches off it is kept"
    elif owner.horizon == ALL:
        kept = f"The history of timeline {name} begins at {format_lsn(oldest(timeline, lsn))}"
    else:
        kept = f"The history of timeline {name} is kept from {format_lsn(oldest(timeline, lsn))} on"
        hint = "`pagestore retention NAME` says how long history is kept, and changes it."
    return OutOfRange("LSN_TOO_OLD", f"{kept}; {format_lsn(lsn)} is older.", hint)


def oldest(timeline: Timeline, lsn: int = 0) -> Lsn:
    """From where on all can be read, in the history that has `lsn`.

    An ancestor that keeps less than what the branch sees of it counts only by the branch.
    """
    owner = timeline.owner(lsn)
    if owner is timeline:
        return timeline.kept_from
    nearer = timeline
    while nearer.ancestor is not owner and nearer.ancestor is not None:
        nearer = nearer.ancestor
    return owner.kept_from if owner.horizon < nearer.branch_lsn else nearer.kept_from


def _check_there(txn: CatalogWriter, key: Key) -> None:
    if txn.timeline(*key) is None:
        raise NotFound("TIMELINE_NOT_FOUND", f"There is no timeline {key[1]} of tenant {key[0]}.")
