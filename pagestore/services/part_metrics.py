"""What each kind of part has to say of itself; see metrics.py. docs/operators.md lists it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pagestore.services.metrics import Family, Source, counter, durations, gauge

if TYPE_CHECKING:
    from pagestore.agent.agent import Agent
    from pagestore.control.plane import ControlPlane
    from pagestore.proxy.front import Front
    from pagestore.reader.redo import RedoPools
    from pagestore.services.page_access import PageAccess
    from pagestore.services.page_reads import PageReads
    from pagestore.v1.page_pb2 import ObjectStoreStatus
    from pagestore.walservice.safekeeper import Safekeeper


def of_pageserver(access: PageAccess, reads: PageReads, helpers: RedoPools) -> Source:
    def source() -> Iterable[Family]:
        from pagestore._native import layer_faults, store_stats

        store, totals, redo = store_stats(), access.compactor.totals, helpers.stats()
        yield counter("pagestore_page_requests", "GetPages requests.", reads.requests)
        yield counter("pagestore_pages_requested", "Pages that they asked for.", reads.pages)
        yield counter("pagestore_block_cache_hits", "Blocks found in memory.", store["block_hits"])
        yield counter("pagestore_block_cache_misses", "Blocks read.", store["block_misses"])
        yield gauge("pagestore_block_cache_bytes", "Decompressed blocks.", store["block_bytes"])
        yield gauge("pagestore_layer_index_bytes", "Indexes and filters.", store["index_bytes"])
        yield gauge("pagestore_layer_open_files", "Layer files held open.", store["open_files"])
        yield counter(
            "pagestore_layer_read_faults", "Reads that the disk failed.", layer_faults()[0]
        )
        open_bytes = access.repository.memory_bytes
        yield gauge("pagestore_open_layer_bytes", "Taken in, and not yet in files.", open_bytes)
        yield gauge(
            "pagestore_timelines_loaded",
            "Timelines that are in use or were lately.",
            len(access.repository.loaded()),
        )
        yield counter("pagestore_redo_pages", "Pages that helpers made.", redo["pages"])
        yield counter("pagestore_redo_records", "Records that they applied.", redo["records"])
        yield counter("pagestore_redo_busy_seconds", "Time at work of them.", redo["busy_seconds"])
        yield counter("pagestore_redo_helper_deaths", "Helpers that ended.", redo["deaths"])
        yield counter(
            "pagestore_ingested_wal_bytes", "WAL that went into files.", totals.bytes_of_wal
        )
        yield Family(
            "pagestore_layer_written_bytes",
            "Bytes of layer files, by why they were written.",
            "counter",
            [
                ({"by": "flush"}, totals.bytes_flushed),
                ({"by": "merge"}, totals.bytes_merged),
                ({"by": "images"}, totals.bytes_imaged),
            ],
        )
        yield counter("pagestore_compaction_failures", "Jobs that were put off.", totals.failures)
        collector = access.collector
        yield counter(
            "pagestore_collected_bytes", "Of files that no read needed.", collector.collected_bytes
        )
        yield gauge(
            "pagestore_deepest_read_records",
            "The most that a read of what is in files may have to apply.",
            access.compactor.deepest_records,
        )
        standing = access.compactor.standing
        yield Family(
            "pagestore_layer_bytes",
            "Of layer files of timelines in use: deltas by how often they were merged, images.",
            "gauge",
            [
                *(({"level": str(n)}, size) for n, size in enumerate(standing.levels)),
                ({"level": "images"}, standing.images),
            ],
        )
        yield gauge(
            "pagestore_layer_dead_bytes",
            "Of those, about so many that nobody reads any more.",
            standing.dead,
        )

    return source


def of_objects(status: Callable[[], ObjectStoreStatus | None]) -> Source:
    """Of what a part has in an object store; zeros where there is none."""

    def source() -> Iterable[Family]:
        from pagestore.v1.page_pb2 import ObjectStoreStatus

        found = status() or ObjectStoreStatus()
        yield gauge("pagestore_objects_generation", "That was claimed.", found.generation)
        yield gauge("pagestore_objects_behind_bytes", "That are to go up.", found.behind_bytes)
        yield gauge(
            "pagestore_objects_behind_seconds",
            "Since the oldest of them has waited.",
            found.behind_seconds,
        )
        yield gauge(
            "pagestore_objects_wal_seconds",
            "Age of the oldest commit whose WAL is not there.",
            found.wal_seconds,
        )
        yield gauge(
            "pagestore_objects_failing", "1: what was tried last failed.", bool(found.last_error)
        )

    return source


def of_safekeeper(safekeeper: Safekeeper) -> Source:
    def source() -> Iterable[Family]:
        yield gauge("pagestore_wal_timelines", "Logs.", len(safekeeper.commits))
        yield counter(
            "pagestore_wal_committed_bytes",
            "WAL that became committed while this process ran.",
            safekeeper.committed_bytes,
        )
        yield gauge(
            "pagestore_wal_spare_bytes",
            "Files of WAL that nobody needs, and that are kept within the budget.",
            safekeeper.budget.total,
        )

    return source


def of_proxy(front: Front) -> Source:
    def source() -> Iterable[Family]:
        places = Counter(item.state.value for item in front.described())
        states = ("queued", "starting", "awake", "stopping")
        yield Family(
            "pagestore_places",
            "Databases, and moments of their past, that do not just sleep.",
            "gauge",
            [({"state": state}, places[state]) for state in states],
        )
        yield gauge("pagestore_connections", "Of clients and to backends.", len(front.links))
        yield gauge(
            "pagestore_sessions", "Clients, with a backend or without.", len(front.sessions())
        )
        counts = front.counts
        yield Family(
            "pagestore_logins",
            "Logins that have ended, by how.",
            "counter",
            [({"outcome": name}, count) for name, count in counts.logins.items()],
        )
        yield durations(
            "pagestore_wake_duration_seconds",
            "From wanting a database awake to its first query working.",
            [({}, counts.wakes)],
        )
        yield counter(
            "pagestore_wake_failures", "Starts that came to nothing.", counts.failed_wakes
        )
        yield counter("pagestore_queries", "That clients have asked.", front.queries)

    return source


def of_control(plane: ControlPlane) -> Source:
    def source() -> Iterable[Family]:
        view = plane.state.view()
        tenants = view.tenants()
        yield gauge("pagestore_tenants", "Tenants.", len(tenants))
        databases = sum(view.count_databases(item.tenant) for item in tenants)
        yield gauge("pagestore_databases", "Databases.", databases)
        yield gauge("pagestore_computes_running", "Computes.", plane.computes.running())
        complaints = len(plane.computes.complaints())
        yield gauge("pagestore_computes_amiss", "Of these, with something amiss.", complaints)
        yield gauge(
            "pagestore_timelines_unsettled", "To be deleted, or being made.", len(view.unsettled())
        )

    return source


def of_agent(agent: Agent) -> Source:
    def source() -> Iterable[Family]:
        alive = sum(item.alive for item in agent.computes.values())
        yield gauge("pagestore_host_computes", "Computes that run on this host.", alive)
        yield gauge(
            "pagestore_host_computes_ended", "Not discarded yet.", len(agent.computes) - alive
        )
        phases = [({"phase": phase}, found) for phase, found in agent.phases.items()]
        yield durations(
            "pagestore_compute_start_phase_duration_seconds", "Of starts, phase by phase.", phases
        )

    return source
