"""Traces by OpenTelemetry: what one request did in which part, and for how long. Off by default.

``PAGESTORE_TRACES`` turns them on, for a part or a program: ``otlp`` sends them to a collector, as
OpenTelemetry's own variables say (``OTEL_EXPORTER_OTLP_ENDPOINT``, ...); ``file:DIR`` writes a file
of JSON lines for each process. It takes the extra ``pagestore[traces]``.

A server's interceptor opens a span for each call, below the caller's, which the metadata of each
of our calls names (W3C's ``traceparent``); what begins by itself (a wake, a login) opens one here.
While they are off all of this costs a look at one name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pagestore.errors import FailedPrecondition, InvalidInput

VARIABLE = "PAGESTORE_TRACES"
FILE = "file:"

Metadata = tuple[tuple[str, str | bytes], ...]

_tracer: Any = None


def begin(part: str) -> None:
    """Traces this process, if it is to be.

    Raises:
        FailedPrecondition: TRACES_NOT_INSTALLED. InvalidInput: INVALID_SETTING.
    """
    wanted = os.environ.get(VARIABLE, "")
    if not wanted:
        return
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError as error:
        raise _missing() from error
    global _tracer
    resource = Resource.create(
        {"service.name": f"pagestore-{part}", "service.namespace": "pagestore"}
    )
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(_processor(wanted, part))
    _tracer = provider.get_tracer("pagestore")


def _processor(wanted: str, part: str) -> Any:
    from opentelemetry.sdk.trace import export

    if wanted == "otlp":
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise _missing() from error
        return export.BatchSpanProcessor(OTLPSpanExporter())
    if wanted.startswith(FILE) and len(wanted) > len(FILE):
        directory = Path(wanted[len(FILE) :])
        directory.mkdir(parents=True, exist_ok=True)
        out = (directory / f"{part}-{os.getpid()}.jsonl").open("a", buffering=1)
        exporter = export.ConsoleSpanExporter(
            out=out, formatter=lambda span: span.to_json(indent=None) + "\n"
        )
        return export.SimpleSpanProcessor(exporter)
    raise InvalidInput("INVALID_SETTING", f"{VARIABLE} is {wanted!r}: neither otlp nor file:DIR.")


def _missing() -> FailedPrecondition:
    return FailedPrecondition(
        "TRACES_NOT_INSTALLED",
        f"{VARIABLE} is set, and OpenTelemetry is not installed.",
        "pip install 'pagestore[traces]', or unset it.",
    )


def outgoing(metadata: Metadata) -> Metadata:
    """The same, with the span that this is part of."""
    if _tracer is None:
        return metadata
    from opentelemetry.propagate import inject

    carried: dict[str, str] = {}
    inject(carried)
    return (*metadata, *carried.items())


@contextlib.contextmanager
def span(name: str, **attributes: str) -> Iterator[None]:
    """Something that begins by itself, or a step within."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(name, attributes=attributes):
        yield


@contextlib.contextmanager
def served(method: str, metadata: Iterable[Any]) -> Iterator[None]:
    """A call that is answered here, below its caller's span."""
    if _tracer is None:
        yield
        return
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    shown: Mapping[str, str] = {
        key: value for key, value in metadata if key in ("traceparent", "tracestate")
    }
    service, _, name = method.rpartition("/")
    attributes = {
        "rpc.system": "grpc",
        "rpc.service": service.strip("/"),
        "rpc.method": name,
    }
    with _tracer.start_as_current_span(
        name, context=extract(shown), kind=SpanKind.SERVER, attributes=attributes
    ):
        yield
