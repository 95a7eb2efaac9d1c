"""By which key the services of tests know their callers: one for a whole run.

Servers that tests start find its public half in the environment. Clients of this process show the
operator's token (:func:`use_it_here`); processes that are no installation's part get ENVIRONMENT.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import cache
from pathlib import Path

import grpc

from pagestore.client import credentials
from pagestore.client.channels import Channel
from pagestore.client.credentials import AUTHORITY, AUTHORITY_VARIABLE, Credentials
from pagestore.ids import TenantId, TimelineId
from pagestore.installation import certificates, keys
from pagestore.services.guard import KEYS_VARIABLE, SIGNING_KEY_VARIABLE, Guard
from pagestore.services.identity import CERTIFICATE_VARIABLE, KEY_VARIABLE
from pagestore.tokens import Signer


@cache
def data() -> Path:
    """A directory with `keys` and `tokens`, as an installation has them."""
    found = Path(tempfile.mkdtemp(prefix="ps-keys-"))
    keys.settle(found)
    return found


@cache
def signer() -> Signer:
    return Signer.parse((data() / keys.SIGNING_KEY).read_text())


def address(tenant: TenantId, timeline: TimelineId, term: int, conninfo: str) -> str:
    """Of a compute, as safekeepers believe it."""
    return signer().sign_address(tenant, timeline, term, conninfo)


def guard() -> Guard:
    return Guard(data() / keys.PUBLIC_KEYS)


def operator() -> Credentials:
    return Credentials.of_token(signer().of_operator(time.time()))


def environment() -> dict[str, str]:
    """Of a service that is started by hand: the keys, and an operator's token to call others."""
    return {
        **os.environ,
        **_certified(),
        SIGNING_KEY_VARIABLE: str(data() / keys.SIGNING_KEY),
        "PAGESTORE_TOKEN": signer().of_operator(time.time()),
    }


def certify(hosts: Iterable[str]) -> None:
    """Services that are started from now on show a certificate that names these, too; clients
    here believe its authority, and so do they."""
    certificates.make(data(), hosts)
    os.environ[AUTHORITY_VARIABLE] = str(data() / AUTHORITY)


def certificate() -> tuple[Path, Path]:
    """What :func:`certify` makes, and its key."""
    folder = (data() / AUTHORITY).parent
    return folder / "certificate.pem", folder / "key.pem"


def _certified() -> dict[str, str]:
    shown, key = certificate()
    return {CERTIFICATE_VARIABLE: str(shown), KEY_VARIABLE: str(key)} if shown.exists() else {}


def use_it_here() -> None:
    os.environ[KEYS_VARIABLE] = str(data() / keys.PUBLIC_KEYS)
    credentials.use(operator())


def give_keys(installation: Path) -> None:
    """Before its first `up`: then what this process shows is good there."""
    shutil.copytree(data() / "keys", installation / "keys")


def remove() -> None:
    shutil.rmtree(data(), ignore_errors=True)


@asynccontextmanager
async def channel(address: str) -> AsyncIterator[Channel]:
    """To call what no client calls, and say what none says: without its bounds."""
    opened = Channel(grpc.aio.insecure_channel(address), operator())
    try:
        yield opened
    finally:
        await opened.close()


@contextmanager
def blocking_channel(address: str) -> Iterator[Channel]:
    with closing(Channel(grpc.insecure_channel(address), operator())) as opened:
        yield opened
