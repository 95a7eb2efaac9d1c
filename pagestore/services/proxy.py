"""The proxy: the one address for all databases, and the small service by which it is asked.

It has no state on disk but a secret, from which the salts of strangers follow. Computes go on when
it ends, however it ends; sessions end with it.
"""

from __future__ import annotations

import contextlib
import math
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pagestore._native import TlsContext
from pagestore.client.addresses import is_near
from pagestore.client.places import PlaceClient
from pagestore.errors import FailedPrecondition, InvalidInput
from pagestore.pgwire.messages import error_response
from pagestore.proxy.asked import AskedPlaces, place_message, place_of
from pagestore.proxy.fleet import Limits
from pagestore.proxy.front import Front
from pagestore.secret_file import secret_of
from pagestore.services.part_metrics import of_proxy
from pagestore.services.secured import Secured
from pagestore.services.server import GrpcServer, configure_logging
from pagestore.v1 import proxy_pb2 as pb

BACKLOG = 4096
SECRET_FILE = "stranger-secret"  # noqa: S105
"""Who asks twice must hear the same."""
CONTROL_SECONDS = 60.0
"""For a control plane that starts anew: a login waits so long."""


class ProxySettings(Secured):
    listen: str = "127.0.0.1:5432"
    """Where clients connect."""
    service: str = "127.0.0.1:0"
    """Where the proxy itself is asked, by gRPC."""
    data_dir: Path
    control: str
    certificate: Path | None = None
    key: Path | None = None
    idle: float = Limits().idle
    """Seconds without activity until a database sleeps; infinity for never."""
    awake: int = Limits().berths
    threads: int = 1


class ProxyService:
    """The methods of ProxyService, over a Front."""

    def __init__(self, front: Front, address: str, berths: int) -> None:
        self._front = front
        self._address = address
        self._berths = berths

    async def carry_out(self, request: pb.CarryOutRequest, _: Any) -> pb.CarryOutResponse:
        words = error_response("57P01", request.message, hint=request.hint)
        carried, ended = await self._front.carry_out(
            place_of(request.place), words, request.wait_ms / 1000, end_all=request.end_all
        )
        return pb.CarryOutResponse(carried=carried, ended=ended)

    async def get_proxy_status(self, request: pb.GetProxyStatusRequest, _: Any) -> pb.ProxyStatus:
        answer = pb.ProxyStatus(address=self._address, berths=self._berths)
        for item in self._front.described():
            answer.places.add(
                place=place_message(item.place),
                state=item.state.value,
                sessions=item.sessions,
                waiting=item.waiting,
                idle_seconds=item.idle_seconds,
                why=item.why,
                idle_limit=item.idle_limit,
                queries=self._front.queries_of(item.place),
                wake_seconds=self._front.counts.latest.get(item.place, 0.0),
            )
        return answer


async def serve(settings: ProxySettings) -> None:
    """Runs the proxy until SIGTERM; computes stay."""
    configure_logging()
    guard, identity = settings.secure()
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _raise_open_files()
    tls = _tls(settings)
    host, port = _host_and_port(settings.listen)
    near = is_near(settings.listen)
    if tls is None and not near:
        raise FailedPrecondition(
            "TLS_REQUIRED",
            f"The proxy would send passwords and data in clear over {settings.listen}.",
            "`pagestore certificate HOST...` makes a certificate; `certificate` and `key` of "
            "[proxy] name another. Or let it listen on 127.0.0.1.",
        )
    limits = Limits(idle=settings.idle, berths=settings.awake)
    with _listening(host, port) as listener:
        async with PlaceClient(settings.control, timeout=CONTROL_SECONDS) as control:
            places = AskedPlaces(control, secret_of(settings.data_dir / SECRET_FILE))
            front = Front(
                places,
                limits,
                tls=tls,
                tls_required=not near,
                threads=settings.threads,
            )
            address = _shown(host, listener.getsockname()[1])
            front.links.listen(listener)
            server = GrpcServer(guard, identity)
            server.metrics.add(of_proxy(front))
            described = pb.DESCRIPTOR.services_by_name["ProxyService"]
            server.add_service(described, ProxyService(front, address, settings.awake))
            try:
                await server.start(settings.service, settings.data_dir)
                await server.run_until_signal()
            finally:
                await front.close()


def parse_idle(text: str) -> float:
    """Seconds, or "never".

    Raises:
        InvalidInput: INVALID_SETTING.
    """
    if text == "never":
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidInput("INVALID_SETTING", f'{text!r} is neither seconds nor "never".')
    return seconds


def _tls(settings: ProxySettings) -> TlsContext | None:
    if settings.certificate is None and settings.key is None:
        return None
    if settings.certificate is None or settings.key is None:
        raise InvalidInput("INVALID_SETTING", "A certificate needs its key, and a key its own.")
    return TlsContext(str(settings.certificate), str(settings.key))


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise InvalidInput("INVALID_SETTING", f"{address!r} is not HOST:PORT.")
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise FailedPrecondition(
            "ADDRESS_IN_USE",
            f"The proxy cannot listen on {_shown(host, port)}: {error.strerror}.",
            "Stop what listens there, or choose another address.",
        ) from error
    with listener:
        yield listener


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _raise_open_files() -> None:
    """A client and its backend are a file each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
