"""By what a compute's server reads its timeline's pages: a token, and whom it believes.

The token lies in a file of ours beside the data directory, which the server's user can read and
nobody else; a superuser of the database can, too, so it opens what he has anyway, and not for long.
While the compute runs it is renewed in time; the server reads the file whenever it connects.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import structlog

from pagestore.client.addresses import is_near
from pagestore.client.channels import authority_unreadable
from pagestore.client.credentials import Credentials
from pagestore.compute.places import write_readable
from pagestore.compute.record import ComputeRecord
from pagestore.ids import TenantId, TimelineId
from pagestore.postgres.settings import AUTHORITY_FILE, TOKEN_FILE
from pagestore.tokens import Signer

SECONDS = 24 * 3600.0
"""How long one holds."""
RENEW_SECONDS = 3600.0
LOOK_SECONDS = 10.0
"""How often it is looked whether there is another key."""
SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_log = structlog.get_logger(__name__)


def write_token(
    directory: Path, tenant: TenantId, timeline: TimelineId, signer: Signer, group: int
) -> None:
    """Puts one into a compute's directory.

    Args:
        group: of the server's user.
    """
    token = signer.of_timeline(tenant, timeline, time.time(), SECONDS)
    write_readable(directory / TOKEN_FILE, f"{token}\n", group)


def authority_for(page_server: str, credentials: Credentials) -> Path | None:
    """Whose certificates a server believes that reads there; None where nothing is encrypted."""
    return None if is_near(page_server) else credentials.believed or SYSTEM_AUTHORITIES


def write_authority(directory: Path, authority: Path, group: int) -> None:
    """A copy that the server can read.

    Raises:
        FailedPrecondition: AUTHORITY_UNREADABLE.
    """
    try:
        text = authority.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise authority_unreadable(authority, error) from error
    write_readable(directory / AUTHORITY_FILE, text, group)


async def renew_for_ever(computes: Path, signer: Signer) -> None:
    """Of all that run in the directory `computes`: at once, for they may have run while nobody
    renewed anything, then in time, and whenever the key has changed."""
    while True:
        key, began = signer.current(), time.monotonic()
        await asyncio.to_thread(renew, computes, signer)
        while signer.current() == key and time.monotonic() < began + RENEW_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)


def renew(computes: Path, signer: Signer) -> None:
    """One that cannot be renewed, for want of room, has hours for another try."""
    for token in computes.glob(f"*/{TOKEN_FILE}"):
        directory = token.parent
        record = ComputeRecord.load(directory)
        if record is None or not record.is_running:
            continue
        try:
            write_token(directory, record.tenant, record.timeline, signer, token.stat().st_gid)
        except OSError as error:
            _log.warning("token not renewed", directory=str(directory), error=str(error))
