"""What parts count of themselves, and how it is written down, put together and asked for."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from pagestore.client.credentials import Credentials
from pagestore.client.metrics import MetricsClient
from pagestore.errors import FailedPrecondition, PermissionDenied
from pagestore.measures import Durations
from pagestore.services import exporter
from pagestore.services.metrics import Family, Metrics, counter, durations, gauge
from pagestore.services.server import GrpcServer
from pagestore.tokens import Scope
from tests import access

DOCS = Path(__file__).parents[3] / "docs"


def token_of(scope: Scope) -> str:
    return access.signer().of_part(scope, time.time())


def credentials_of(scope: Scope) -> Credentials:
    return Credentials.of_token(token_of(scope))


def lines(text: bytes) -> list[str]:
    return [line for line in text.decode().splitlines() if not line.startswith("#")]


def test_durations_are_of_the_range_that_they_are_in() -> None:
    found = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        found.add(seconds)
    assert found.counts == [2, 1, 1]
    assert found.sum == pytest.approx(7.65)


def test_it_is_written_as_prometheus_reads_it() -> None:
    def source() -> Iterable[Family]:
        yield counter("pagestore_things", "Things.", 3)
        yield gauge("pagestore_places", "Places.", 2, state="awake")
        took = Durations((0.1, 1.0))
        took.add(0.5)
        yield durations("pagestore_wait_seconds", "Waits.", [({"kind": "a"}, took)])
        yield Family("pagestore_nothing", "Of nobody.", "counter")

    metrics = Metrics()
    metrics.add(source)
    text = metrics.text()
    found = lines(text)
    assert "pagestore_things_total 3.0" in found
    assert 'pagestore_places{state="awake"} 2.0' in found
    assert 'pagestore_wait_seconds_bucket{kind="a",le="0.1"} 0.0' in found
    assert 'pagestore_wait_seconds_bucket{kind="a",le="+Inf"} 1.0' in found
    assert 'pagestore_wait_seconds_sum{kind="a"} 0.5' in found
    assert b"# TYPE pagestore_things_total counter" in text
    assert any(line.startswith("process_resident_memory_bytes ") for line in found)


def test_each_name_stands_once_with_the_parts_that_have_it() -> None:
    def part(value: int) -> bytes:
        metrics = Metrics()
        metrics.add(lambda: [counter("pagestore_things", "Things.", value)])
        return metrics.text()

    text = exporter.together({"control": part(1), "proxy": part(2), "pageserver": None})
    found = lines(text)
    assert 'pagestore_things_total{part="control"} 1.0' in found
    assert 'pagestore_things_total{part="proxy"} 2.0' in found
    assert 'pagestore_up{part="pageserver"} 0.0' in found
    assert 'pagestore_up{part="proxy"} 1.0' in found
    assert text.count(b"# TYPE pagestore_things_total counter") == 1


def test_calls_are_counted_with_what_became_of_them(tmp_path: Path) -> None:
    async def story() -> None:
        server = GrpcServer(access.guard())
        address = await server.start("127.0.0.1:0")
        client = MetricsClient(address, credentials=credentials_of(Scope.EXPORTER))
        stranger = MetricsClient(address, credentials=credentials_of(Scope.PROXY))
        async with client, stranger:
            await client.text()
            with pytest.raises(PermissionDenied):
                await stranger.text()
            found = lines(await client.text())
        name = "pagestore_call_duration_seconds_count"
        own = "MetricsService/GetMetrics"
        assert f'{name}{{code="OK",method="{own}"}} 1.0' in found
        await server.stop(0)

    asyncio.run(story())


def test_who_asks_over_http_has_to_show_a_token() -> None:
    token = token_of(Scope.EXPORTER)
    other = token_of(Scope.SAFEKEEPER)
    with exporter.served("127.0.0.1:0", access.guard(), lambda: b"all is well 1.0\n") as port:

        def ask(path: str, shown: str = "") -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            headers = {"Authorization": f"Bearer {shown}"} if shown else {}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            try:
                return answer.status, answer.read()
            finally:
                connection.close()

        assert ask("/metrics", token) == (200, b"all is well 1.0\n")
        assert ask("/metrics")[0] == 401
        assert ask("/metrics", other)[0] == 401
        assert ask("/metrics", "pst1_" + "A" * 160)[0] == 401
        assert ask("/", token)[0] == 404


def test_tokens_are_not_asked_for_in_clear_from_afar() -> None:
    with (
        pytest.raises(FailedPrecondition, match="in clear"),
        exporter.served("0.0.0.0:0", access.guard(), bytes),
    ):
        pass


def test_the_dashboard_shows_what_there_is() -> None:
    board = json.loads((DOCS / "grafana/pagestore.json").read_text())
    documented = set(
        re.findall(r"`((?:pagestore|process)_[a-z_]+)`", (DOCS / "operators.md").read_text())
    )
    shown = set()
    for panel in board["panels"]:
        assert panel["title"]
        for target in panel["targets"]:
            shown |= set(re.findall(r"(?:pagestore|process)_[a-z_]+", target["expr"]))
    assert len(shown) > 15
    missing = {re.sub("_(bucket|count|sum)$", "", name) for name in shown} - documented
    assert not missing
