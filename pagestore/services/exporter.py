"""One address at which Prometheus finds what all parts say of themselves.

A part of its own, which has a token that opens nothing else. It asks the parts when it is asked,
adds to each sample which part it is of, and says for each whether it answered. Over HTTP whoever
asks has to show the exporter's token, or the operator's: names of methods and counts are no secret
of a database, but nobody's business either.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import structlog
from pydantic import Field

from pagestore.client.addresses import is_near
from pagestore.client.metrics import MetricsClient
from pagestore.errors import FailedPrecondition, InvalidInput, PagestoreError
from pagestore.services.guard import Guard
from pagestore.services.metrics import written
from pagestore.services.secured import Secured
from pagestore.services.server import GrpcServer, configure_logging

METHOD = "/pagestore.v1.MetricsService/GetMetrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_SECONDS = 10.0
_log = structlog.get_logger(__name__)


class ExporterSettings(Secured):
    listen: str = "127.0.0.1:0"
    """Where it is asked by gRPC, as every part."""
    data_dir: Path
    http: str = "127.0.0.1:9464"
    parts: dict[str, str] = Field(default_factory=dict)
    """Addresses of parts, by their names."""


async def gather(parts: Mapping[str, str]) -> bytes:
    """What these parts say, each sample with the name of its part."""

    async def ask(address: str) -> bytes | None:
        async with MetricsClient(address) as client:
            try:
                return await client.text()
            except PagestoreError as error:
                _log.info("a part does not answer", address=address, error=str(error))
                return None

    texts = await asyncio.gather(*map(ask, parts.values()))
    return together(dict(zip(parts, texts, strict=True)))


def together(texts: Mapping[str, bytes | None]) -> bytes:
    """One text of several, in which each name stands once.

    Args:
        texts: by parts; None of one that did not answer.
    """
    from prometheus_client import Metric
    from prometheus_client.parser import text_string_to_metric_families

    families: dict[str, Metric] = {}
    up = Metric("pagestore_up", "Whether a part answers.", "gauge")
    for part, text in texts.items():
        up.add_sample("pagestore_up", {"part": part}, float(text is not None))
        for found in text_string_to_metric_families((text or b"").decode()):
            family = families.setdefault(
                found.name, Metric(found.name, found.documentation, found.type)
            )
            for sample in found.samples:
                family.add_sample(sample.name, {"part": part, **sample.labels}, sample.value)

    return written([up, *families.values()])


async def serve(settings: ExporterSettings) -> None:
    """Runs the exporter until SIGTERM.

    Raises:
        FailedPrecondition: TLS_REQUIRED, ADDRESS_IN_USE.
    """
    configure_logging()
    guard, identity = settings.secure()
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    loop = asyncio.get_running_loop()

    def read() -> bytes:
        work = asyncio.run_coroutine_threadsafe(gather(settings.parts), loop)
        return work.result(REQUEST_SECONDS)

    with served(settings.http, guard, read):
        server = GrpcServer(guard, identity)
        await server.start(settings.listen, settings.data_dir)
        await server.run_until_signal()


@contextlib.contextmanager
def served(address: str, guard: Guard, read: Callable[[], bytes]) -> Iterator[int]:
    """What is read, over HTTP; the port.

    Raises:
        FailedPrecondition: TLS_REQUIRED, ADDRESS_IN_USE. InvalidInput: INVALID_SETTING.
    """
    if not is_near(address):
        raise FailedPrecondition(
            "TLS_REQUIRED",
            f"The exporter would be shown tokens in clear at {address}.",
            "Let it listen on 127.0.0.1, and put a server with TLS in front of it.",
        )
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise InvalidInput("INVALID_SETTING", f"{address!r} is not HOST:PORT.")

    class Handler(_Handler):
        asked = staticmethod(read)
        known = guard

    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
    except OSError as error:
        raise FailedPrecondition(
            "ADDRESS_IN_USE",
            f"The exporter cannot listen on {address}: {error.strerror}.",
            "Stop what listens there, or choose another address (`http` of [exporter]).",
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS
    server_version, sys_version = "pagestore", ""
    asked: Callable[[], bytes]
    known: Guard

    def do_GET(self) -> None:
        """/metrics, for who may."""
        if self.path.partition("?")[0] != "/metrics":
            self._answer(HTTPStatus.NOT_FOUND, b"There is nothing but /metrics here.\n")
            return
        shown = self.headers.get("Authorization", "")
        try:
            self.known.admit(METHOD, [("authorization", shown)])
            text = self.asked()
        except PagestoreError as error:
            self._answer(HTTPStatus.UNAUTHORIZED, f"{error}\n".encode())
        except TimeoutError:
            late = b"The parts have not answered in time.\n"
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, late)
        else:
            self._answer(HTTPStatus.OK, text)

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody wants a line for each scrape."""
