"""What each part says of itself to Prometheus: MetricsService, which every GrpcServer has.

A part registers functions that say what it has counted, and is asked only when somebody looks: a
part that nobody watches pays for nothing but a few numbers, and does not load the library that
writes them down. docs/operators.md lists them all.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pagestore.measures import Durations
from pagestore.v1 import metrics_pb2 as pb

Labels = Mapping[str, str]
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STARTED = time.time()


@dataclass(frozen=True)
class Family:
    """Samples of one name, by its labels.

    Args:
        name: as Prometheus's conventions have it, with its unit; a counter's without `_total`.
        kind: "counter" or "gauge"; of Durations neither matters.
    """

    name: str
    help: str
    kind: str
    samples: list[tuple[Labels, float | Durations]] = field(default_factory=list)


def counter(name: str, words: str, value: float, **labels: str) -> Family:
    return Family(name, words, "counter", [(labels, value)])


def gauge(name: str, words: str, value: float, **labels: str) -> Family:
    return Family(name, words, "gauge", [(labels, value)])


def durations(name: str, words: str, samples: Iterable[tuple[Labels, Durations]]) -> Family:
    return Family(name, words, "histogram", [*samples])


Source = Callable[[], Iterable[Family]]


class Metrics:
    """Of one process."""

    def __init__(self) -> None:
        self._sources: list[Source] = [_of_process, self._of_calls]
        self._calls: defaultdict[tuple[str, str], Durations] = defaultdict(Durations)

    def add(self, source: Source) -> None:
        self._sources.append(source)

    def called(self, method: str, code: str, seconds: float) -> None:
        """A gRPC call, of which the whole has ended."""
        self._calls[method, code].add(seconds)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return written(_metric(family) for source in self._sources for family in source())

    def _of_calls(self) -> Iterable[Family]:
        samples = [
            ({"method": method.rpartition(".")[2], "code": code}, found)
            for (method, code), found in self._calls.items()
        ]
        yield durations(
            "pagestore_call_duration_seconds",
            "gRPC calls that have ended, streams too, by method and status.",
            samples,
        )


class MetricsService:
    """The methods of MetricsService, for GrpcServer.add_service."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def get_metrics(self, request: pb.GetMetricsRequest, _: Any) -> pb.MetricsText:
        return pb.MetricsText(text=self._metrics.text())


def written(metrics: Iterable[Any]) -> bytes:
    """Prometheus's text of the library's metrics, each name of which is there once."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Collected:
        def collect(self) -> Iterable[Any]:
            return metrics

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    return generate_latest(registry)


def _metric(family: Family) -> Any:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    names = list(family.samples[0][0]) if family.samples else []
    if family.kind == "histogram":
        metric = HistogramMetricFamily(family.name, family.help, labels=names)
        for labels, value in family.samples:
            assert isinstance(value, Durations), family.name
            metric.add_metric([*labels.values()], _buckets(value), value.sum)
        return metric
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    simple = kinds[family.kind](family.name, family.help, labels=names)
    for labels, value in family.samples:
        assert not isinstance(value, Durations), family.name
        simple.add_metric([*labels.values()], value)
    return simple


def _buckets(found: Durations) -> list[tuple[str, float]]:
    """Each with all that are below it."""
    total, buckets = 0, []
    for bound, count in zip((*map(str, found.bounds), "+Inf"), found.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def _of_process() -> Iterable[Family]:
    times = os.times()
    yield counter("process_cpu_seconds", "CPU of this process.", times.user + times.system)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    yield gauge("process_resident_memory_bytes", "Memory of this process.", resident)
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    yield gauge("process_open_fds", "Its open files.", files)
    yield gauge("process_start_time_seconds", "When it began, Unix seconds.", _STARTED)
