"""The parts, each on its own: ``pagestore pageserver``, ``safekeeper``, ``compute``, ...

``up`` starts them with these commands; on hosts of their own one types them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pagestore import tasks
from pagestore.cli import border
from pagestore.cli.session import session
from pagestore.client import credentials, tracing
from pagestore.errors import FINAL, InvalidInput, PagestoreError
from pagestore.postgres import majors

Listen = Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where to serve.")]
DataDir = Annotated[Path, typer.Option("--data-dir", metavar="DIR", help="Where to keep files.")]
WalServices = Annotated[
    list[str],
    typer.Option("--wal-service", metavar="[ID=]HOST:PORT", help="A safekeeper; repeat for each."),
]
RunAs = Annotated[
    str | None, typer.Option("--run-as", metavar="USER", help="Whom Postgres runs as under root.")
]
Bindir = Annotated[
    Path,
    typer.Option(
        "--postgres-bindir",
        metavar="DIR",
        help="Where Postgres's programs are; with {major} in it, where each one's are.",
    ),
]
ListenUnix = Annotated[
    Path | None,
    typer.Option("--listen-unix", metavar="PATH", help="A Unix socket to serve on, too."),
]
Keys = Annotated[
    Path | None,
    typer.Option("--keys", metavar="FILE", help="Public keys by which callers are known."),
]
TlsCertificate = Annotated[
    Path | None,
    typer.Option("--tls-certificate", metavar="FILE", help="For other machines to believe."),
]
TlsKey = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="Of that certificate.")
]
TlsAuthority = Annotated[
    Path | None,
    typer.Option("--tls-authority", metavar="FILE", help="Whom it believes on other machines."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="What it shows other parts."),
]
Objects = Annotated[
    str | None,
    typer.Option(
        "--objects", metavar="URL", help="The object store; credentials from the environment."
    ),
]
SigningKey = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The secret key, by which it makes tokens."),
]
ComputeHost = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS", help="Where safekeepers and clients on other hosts reach computes."
    ),
]


class Walls(StrEnum):
    BUBBLEWRAP = "bubblewrap"
    NONE = "none"


DEFAULT_BINDIR = majors.BINDIR


@contextmanager
def _session(part: str, token_file: Path | None, authority: Path | None) -> Iterator[None]:
    """As every verb's; but standard error is a part's log, where the trace of a fault belongs."""
    os.environ.setdefault(border.TRACE, "1")
    with session(None, False):
        tracing.begin(part)
        if token_file is not None:
            credentials.use(credentials.Credentials.of_file(token_file, authority))
        try:
            yield
        except PagestoreError as error:
            if error.reason not in FINAL:
                raise
            border.say(error, as_json=False)
            raise typer.Exit(tasks.FINAL_STATUS) from error


def _given(**settings: Any) -> dict[str, Any]:
    """Without the options that were not given, so that the service's defaults hold."""
    return {name: value for name, value in settings.items() if value is not None}


def _pairs(settings: list[str]) -> dict[str, str]:
    pairs = [setting.partition("=") for setting in settings]
    wrong = [name for name, equals, _ in pairs if not (name and equals)]
    if wrong:
        raise InvalidInput("INVALID_SETTING", f"{wrong[0]!r} is not NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _addresses(wal_services: list[str]) -> dict[int, str]:
    """Safekeepers by number; a single one needs none."""
    from pagestore.walservice.messages import parse_addresses

    if len(wal_services) == 1 and "=" not in wal_services[0]:
        return {1: wal_services[0]}
    found: dict[int, str] = {}
    for item in wal_services:
        found |= parse_addresses(item)
    return found


def pageserver(
    data_dir: DataDir,
    wal_service: WalServices,
    listen: Listen = "127.0.0.1:0",
    run_as: RunAs = None,
    postgres_bindir: Bindir = DEFAULT_BINDIR,
    memory_bytes: Annotated[
        int | None, typer.Option(help="Bound of the whole process (272 MiB).")
    ] = None,
    open_layer_bytes: Annotated[
        int | None, typer.Option(min=1 << 20, help="Of that, for what is not in files yet.")
    ] = None,
    redo_helpers: Annotated[int | None, typer.Option(min=1)] = None,
    redo_library: Annotated[Path | None, typer.Option(metavar="FILE")] = None,
    check_wal_images: Annotated[
        bool, typer.Option(help="Compare pages with the images of wal_consistency_checking.")
    ] = False,
    slot_wal_bytes: Annotated[
        int | None,
        typer.Option(min=0, help="WAL of each timeline that replication slots hold back."),
    ] = None,
    least_history_seconds: Annotated[
        int | None,
        typer.Option(
            min=0,
            envvar="PAGESTORE_LEAST_HISTORY_SECONDS",
            help="History that stays whatever a database's retention says (300).",
        ),
    ] = None,
    objects: Objects = None,
    wal_age: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds within which committed WAL is there (5)."),
    ] = None,
    cache_bytes: Annotated[
        int | None,
        typer.Option(min=64 << 20, help="Of layers that stay on this disk; default: all."),
    ] = None,
    listen_unix: ListenUnix = None,
    keys: Keys = None,
    token_file: TokenFile = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_authority: TlsAuthority = None,
) -> None:
    """Run a page server, until SIGTERM.

    Example: pagestore pageserver --data-dir /srv/pages --wal-service 127.0.0.1:7432
    """
    with _session("pageserver", token_file, tls_authority):
        from pagestore.services import page
        from pagestore.services.server import run

        settings = page.PageSettings(
            **_given(
                listen=listen,
                data_dir=data_dir,
                wal_service=[*_addresses(wal_service).values()],
                run_as=run_as,
                postgres_bindir=postgres_bindir,
                memory_bytes=memory_bytes,
                open_layer_bytes=open_layer_bytes,
                redo_helpers=redo_helpers,
                redo_library=redo_library,
                check_wal_images=check_wal_images,
                slot_wal_bytes=slot_wal_bytes,
                least_history_seconds=least_history_seconds,
                objects=objects,
                wal_age_seconds=wal_age,
                cache_bytes=cache_bytes,
                listen_unix=listen_unix,
                keys=keys,
                tls_certificate=tls_certificate,
                tls_key=tls_key,
            )
        )
        run(page.serve(settings))


def safekeeper(
    data_dir: DataDir,
    listen: Listen = "127.0.0.1:0",
    number: Annotated[int, typer.Option("--id", min=1, help="Its number among them.")] = 1,
    peers: Annotated[
        str | None,
        typer.Option(metavar="ID=HOST:PORT,...", help="Where the other safekeepers are."),
    ] = None,
    wal_keep_bytes: Annotated[
        int | None,
        typer.Option(min=0, help="WAL that stays, whoever has released it, of all timelines."),
    ] = None,
    listen_unix: ListenUnix = None,
    keys: Keys = None,
    token_file: TokenFile = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_authority: TlsAuthority = None,
) -> None:
    """Run a safekeeper, until SIGTERM.

    Example: pagestore safekeeper --id 1 --peers 2=host2:7432,3=host3:7432
    --data-dir /srv/wal --listen 0.0.0.0:7432
    """
    with _session("safekeeper", token_file, tls_authority):
        from pagestore.services import wal
        from pagestore.services.server import run

        settings = wal.WalSettings(
            **_given(
                listen=listen,
                data_dir=data_dir,
                id=number,
                peers=peers,
                keep_bytes=wal_keep_bytes,
                listen_unix=listen_unix,
                keys=keys,
                tls_certificate=tls_certificate,
                tls_key=tls_key,
            )
        )
        run(wal.serve(settings))


def compute(
    data_dir: DataDir,
    page_server: Annotated[str, typer.Option(metavar="HOST:PORT")],
    wal_service: WalServices,
    compute_dir: Annotated[Path, typer.Option(metavar="DIR", help="For computes' directories.")],
    shim_library: Annotated[Path, typer.Option(metavar="FILE", help="pagestore_shim-{major}.so.")],
    listen: Listen = "127.0.0.1:0",
    run_as: RunAs = None,
    postgres_bindir: Bindir = DEFAULT_BINDIR,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="For each compute's postgresql.conf."),
    ] = None,
    compute_host: ComputeHost = "",
    walls: Annotated[
        Walls, typer.Option(help="What stands around each compute.")
    ] = Walls.BUBBLEWRAP,
    uids: Annotated[
        str | None,
        typer.Option(metavar="FIRST-LAST", help="Under root: users, one for each compute."),
    ] = None,
    page_socket: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="The page server's Unix socket; computes have no network then."
        ),
    ] = None,
    memory_bytes: Annotated[
        int | None, typer.Option(min=256 << 20, help="A compute's; default: a quarter of all.")
    ] = None,
    processes: Annotated[int, typer.Option(min=64, help="A compute's, at most.")] = 1024,
    cpus: Annotated[
        float | None, typer.Option(min=0.01, help="A compute's; default: all, shared evenly.")
    ] = None,
    disk_bytes: Annotated[
        int | None,
        typer.Option(min=64 << 20, help="A compute's; default: half of the file system."),
    ] = None,
    keys: Keys = None,
    token_file: TokenFile = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_authority: TlsAuthority = None,
    signing_key: SigningKey = None,
) -> None:
    """Run the agent that has this host's computes, until SIGTERM. Computes outlive it.

    Example: pagestore compute --data-dir /srv/compute --page-server 127.0.0.1:7431
    --wal-service 127.0.0.1:7432 --compute-dir /srv/computes
    --shim-library 'pagestore_shim-{major}.so'
    """
    with _session("compute", token_file, tls_authority):
        from pagestore.services import compute as service
        from pagestore.services.server import run

        given = service.ComputeSettings(
            listen=listen,
            data_dir=data_dir,
            page_server=page_server,
            wal_services=_addresses(wal_service),
            compute_dir=compute_dir,
            run_as=run_as,
            postgres_bindir=postgres_bindir,
            shim_library=shim_library,
            postgres_settings=_pairs(settings or []),
            compute_host=compute_host,
            walls=walls.value,
            uids=uids,
            page_socket=page_socket,
            memory_bytes=memory_bytes,
            processes=processes,
            cpus=cpus,
            disk_bytes=disk_bytes,
            keys=keys,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            signing_key=signing_key,
        )
        run(service.serve(given))


def control(
    data_dir: DataDir,
    page_server: Annotated[str, typer.Option(metavar="HOST:PORT")],
    wal_service: WalServices,
    compute_agent: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where `pagestore compute` serves.")
    ],
    listen: Listen = "127.0.0.1:0",
    postgres_bindir: Bindir = DEFAULT_BINDIR,
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The proxy's, as URLs are to say it.")
    ] = "",
    proxy: Annotated[str, typer.Option(metavar="HOST:PORT", help="The proxy's own service.")] = "",
    operator_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The key that seals passwords, made if there is none. Default: in --data-dir.",
        ),
    ] = None,
    objects: Objects = None,
    keys: Keys = None,
    token_file: TokenFile = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_authority: TlsAuthority = None,
    signing_key: SigningKey = None,
) -> None:
    """Run the control plane, until SIGTERM. Computes outlive it.

    Example: pagestore control --data-dir /srv/control --page-server 127.0.0.1:7431
    --wal-service 1=host1:7432 --wal-service 2=host2:7432 --wal-service 3=host3:7432
    --compute-agent 127.0.0.1:7433
    """
    with _session("control", token_file, tls_authority):
        from pagestore.services.control import ControlSettings
        from pagestore.services.control_process import serve
        from pagestore.services.server import run

        given = ControlSettings(
            listen=listen,
            data_dir=data_dir,
            page_server=page_server,
            wal_services=_addresses(wal_service),
            compute_agent=compute_agent,
            postgres_bindir=postgres_bindir,
            address=address,
            proxy=proxy,
            operator_key=operator_key,
            objects=objects,
            keys=keys,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            signing_key=signing_key,
        )
        run(serve(given))


def proxy(
    data_dir: DataDir,
    control: Annotated[str, typer.Option(metavar="HOST:PORT", help="The control plane.")],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where clients connect.")
    ] = "127.0.0.1:5432",
    service: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the proxy itself is asked, by gRPC.")
    ] = "127.0.0.1:0",
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For TLS: with it, PEM.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key.")] = None,
    idle: Annotated[
        str, typer.Option(metavar="SECONDS|never", help="Without activity, until one sleeps.")
    ] = "60",
    awake: Annotated[int, typer.Option(min=1, help="Databases that may be awake at a time.")] = 50,
    keys: Keys = None,
    token_file: TokenFile = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_authority: TlsAuthority = None,
) -> None:
    """Run the proxy, the one address of all databases, until SIGTERM. Computes outlive it.

    Example: pagestore proxy --data-dir /srv/proxy --control 127.0.0.1:7430
    --listen 0.0.0.0:5432 --certificate server.crt --key server.key
    """
    with _session("proxy", token_file, tls_authority):
        from pagestore.services import proxy as service_
        from pagestore.services.server import run

        settings = service_.ProxySettings(
            listen=listen,
            service=service,
            data_dir=data_dir,
            control=control,
            certificate=certificate,
            key=key,
            idle=service_.parse_idle(idle),
            awake=awake,
            keys=keys,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
        )
        run(service_.serve(settings))


def exporter(
    data_dir: DataDir,
    part: Annotated[
        list[str], typer.Option(metavar="NAME=HOST:PORT", help="A part to ask; repeat for each.")
    ],
    listen: Listen = "127.0.0.1:0",
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where Prometheus asks.")
    ] = "127.0.0.1:9464",
    keys: Keys = None,
    token_file: TokenFile = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_authority: TlsAuthority = None,
) -> None:
    """Run the exporter, at which Prometheus finds what all parts say, until SIGTERM.

    Example: pagestore exporter --data-dir /srv/exporter --part control=127.0.0.1:7430
    --part pageserver=127.0.0.1:7431
    """
    with _session("exporter", token_file, tls_authority):
        from pagestore.services import exporter as service
        from pagestore.services.server import run

        settings = service.ExporterSettings(
            listen=listen,
            data_dir=data_dir,
            http=http,
            parts=_pairs(part),
            keys=keys,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
        )
        run(service.serve(settings))
