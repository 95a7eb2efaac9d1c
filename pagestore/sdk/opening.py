"""Where the client finds its installation: named, this machine's, or one of its own."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pagestore.client.credentials import Credentials, default_data_dir
from pagestore.errors import FailedPrecondition, InvalidInput
from pagestore.ids import DEFAULT_TENANT_NAME
from pagestore.sdk.blocking import Client
from pagestore.sdk.client import AsyncClient

if TYPE_CHECKING:
    from pagestore.installation.layout import Installation


def connect(
    address: str | None = None,
    *,
    token: str | None = None,
    data: Path | str | None = None,
    tenant: str = DEFAULT_TENANT_NAME,
    start: bool = True,
) -> Client:
    """
    Args:
        address: of a control plane on whatever machine, "host:port"; this machine's installation
            by default.
        token: shown to it; by default PAGESTORE_TOKEN, or the operator's of this machine.
        data: this machine's data directory; PAGESTORE_DATA, or the standard one, by default.
        tenant: whose databases.
        start: whether an installation that does not run, or that there is not yet, is started.

    Raises:
        Unavailable: NOT_RUNNING. FailedPrecondition: CLIENT_ALONE.
        PagestoreError: why it does not start.
    """
    where, shown = _found(address, token, data, start=start)
    return Client(lambda: AsyncClient(where, tenant=tenant, credentials=shown))


def aconnect(
    address: str | None = None,
    *,
    token: str | None = None,
    data: Path | str | None = None,
    tenant: str = DEFAULT_TENANT_NAME,
    start: bool = True,
) -> AsyncClient:
    """The same for the running event loop, which waits while an installation is started:
    ``async with pagestore.aconnect() as client``."""
    where, shown = _found(address, token, data, start=start)
    return AsyncClient(where, tenant=tenant, credentials=shown)


@contextlib.contextmanager
def ephemeral() -> Iterator[Client]:
    """A store of its own in a temporary directory, gone afterwards with all its databases, also
    when this process is killed. Takes some seconds: a whole installation is started, and an empty
    cluster made."""
    data = Path(tempfile.mkdtemp(prefix="pagestore-"))
    try:
        start_ephemeral(data, os.getpid())
        with connect(data=data, start=False) as client:
            yield client
    finally:
        end_ephemeral(data)


def start_ephemeral(data: Path, owner: int) -> None:
    """An installation that goes when the process `owner` has ended, however it ends."""
    from pagestore.installation.layout import Installation

    data.mkdir(exist_ok=True)
    # Computes are other users', and go through it to theirs.
    data.chmod(0o711)
    _start(Installation(data), owner)


def end_ephemeral(data: Path) -> None:
    from pagestore.installation import lifecycle
    from pagestore.installation.layout import Installation

    lifecycle.stop(Installation(data))
    lifecycle.remove(Installation(data))


def _found(
    address: str | None, token: str | None, data: Path | str | None, *, start: bool
) -> tuple[str, Credentials | None]:
    shown = Credentials.of_token(token) if token is not None else None
    if address is not None:
        if data is not None:
            raise InvalidInput(
                "INVALID_OPTIONS", "An address and a data directory name two installations."
            )
        return address, shown
    try:
        from pagestore.installation.layout import Installation
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            "CLIENT_ALONE",
            "Only the client of pagestore is installed here, which starts and finds nothing.",
            'Say where a pagestore is, as pagestore.connect("HOST:PORT", token=...); or install '
            "the whole, `pagestore`, instead of `pagestore-client`.",
        ) from error

    installation = Installation(Path(data) if data is not None else default_data_dir())
    if start:
        _start(installation)
    return installation.address("control"), shown or installation.credentials


def _start(installation: Installation, owner: int | None = None) -> None:
    """As `pagestore up`."""
    from pagestore.installation import lifecycle

    if installation.running_supervisor() is not None:
        lifecycle.wait_until_serving(installation)
        return
    lifecycle.prepare(installation)
    lifecycle.check_addresses(installation)
    supervisor = lifecycle.spawn_supervisor(installation, owner)
    lifecycle.wait_until_serving(installation, supervisor)
