"""What goes to another machine is encrypted, and goes to nobody but the one that was meant.

0.0.0.0 stands for an address of another machine: it is none of loopback, and leads here.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from pagestore.bench.generators import page_load
from pagestore.client import AsyncPageClient
from pagestore.client.addresses import is_near
from pagestore.client.credentials import Credentials
from pagestore.errors import FailedPrecondition, InvalidInput, Unavailable
from pagestore.ids import DEFAULT_TENANT
from pagestore.installation import certificates
from pagestore.services.identity import Identity
from pagestore.services.server import GrpcServer, run
from tests import access
from tests.unit.services.test_server import SERVICE, TIMELINE, Pages

FAR = "0.0.0.0"


def made(data: Path, *hosts: str) -> Identity:
    place = certificates.make(data, hosts)
    return Identity(place / "certificate.pem", place / "key.pem")


@asynccontextmanager
async def serving(
    identity: Identity | None, listen: str = f"{FAR}:0", unix: Path | None = None
) -> AsyncIterator[str]:
    server = GrpcServer(access.guard(), identity)
    server.add_service(SERVICE, Pages(), raw={"GetPages"})
    address = await server.start(listen, unix=unix)
    try:
        yield address
    finally:
        await server.stop(0)


def believing(authority: Path) -> Credentials:
    return Credentials(access.operator().token, authority)


async def db_size(address: str, credentials: Credentials) -> int:
    async with AsyncPageClient(address, timeout=0.3, credentials=credentials) as client:
        return await client.get_db_size(DEFAULT_TENANT, TIMELINE, 1, 3)


def test_what_is_near() -> None:
    for address in ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/a/b"):
        assert is_near(address), address
    for address in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "127.evil.example:1", "db:7430", ":1"):
        assert not is_near(address), address


def test_without_a_certificate_no_part_listens_to_other_machines() -> None:
    async def main() -> None:
        for listen in ("0.0.0.0:0", "[::]:0", "localhost.evil.example:0"):
            with pytest.raises(FailedPrecondition) as caught:
                async with serving(None, listen):
                    pass
            assert caught.value.reason == "TLS_REQUIRED"

    run(main())


def test_who_has_the_authority_is_served_and_who_listens_in_reads_nothing(tmp_path: Path) -> None:
    identity = made(tmp_path, FAR)
    authority = tmp_path / "tls/authority.pem"

    async def main() -> None:
        async with serving(identity) as address:
            assert await db_size(address, believing(authority)) == 3 * 8192
            async with grpc.aio.insecure_channel(address) as plain:
                with pytest.raises(grpc.RpcError):
                    await plain.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=2)

    run(main())


def test_another_authority_or_another_host_is_not_believed(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    right = made(ours, FAR)
    other_host = certificates.make(ours, ["10.9.9.9"], tmp_path / "other")
    made(theirs, FAR)

    async def main() -> None:
        async with serving(right) as address:
            with pytest.raises(Unavailable):
                await db_size(address, believing(theirs / "tls/authority.pem"))
        wrong = Identity(other_host / "certificate.pem", other_host / "key.pem")
        async with serving(wrong) as address:
            with pytest.raises(Unavailable):
                await db_size(address, believing(other_host / "authority.pem"))
        with pytest.raises(FailedPrecondition) as caught:
            await db_size(address, believing(tmp_path / "nowhere"))
        assert caught.value.reason == "AUTHORITY_UNREADABLE"

    run(main())


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    one, other = made(tmp_path / "a", FAR), made(tmp_path / "b", FAR)
    (tmp_path / "junk").write_text("junk")
    for certificate, key in (
        (one.certificate, other.key),
        (tmp_path / "junk", one.key),
        (one.certificate, tmp_path / "junk"),
        (one.certificate, tmp_path / "none"),
    ):
        with pytest.raises(FailedPrecondition) as caught:
            Identity(certificate, key).credentials()
        assert caught.value.reason == "CERTIFICATE_UNUSABLE"
    with pytest.raises(FailedPrecondition):
        Identity.of_settings(one.certificate, None)


def test_certificates_are_for_their_owner_and_only_for_hosts(tmp_path: Path) -> None:
    identity = made(tmp_path, "db.example.org", "fe80::1")
    before = (tmp_path / "tls/authority.pem").read_bytes()
    for path in (identity.key, tmp_path / "tls/authority-key.pem"):
        assert path.stat().st_mode & 0o077 == 0
    for name in ("", "a b", "db:7430", "*.example.org", "é", "x" * 64, "x." * 200):
        with pytest.raises(InvalidInput) as caught:
            made(tmp_path, name)
        assert caught.value.reason == "INVALID_NAME"
    assert (tmp_path / "tls/authority.pem").read_bytes() == before
    (tmp_path / "tls/authority-key.pem").unlink()
    with pytest.raises(FailedPrecondition):
        made(tmp_path, FAR)


async def load(host: str, port: str, environment: dict[str, str]) -> tuple[int, dict[str, int]]:
    """The shim's own client, for a moment."""
    ids = [DEFAULT_TENANT.raw.hex(), TIMELINE.raw.hex()]
    words = [
        host,
        port,
        *ids,
        *["1", "1663", "5", "7", "0", "500", "2", "40", "0.2", "0", "uniform"],
    ]
    process = await asyncio.create_subprocess_exec(
        str(page_load()),
        *words,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, json.loads(out) if out else {"error": err.decode()}


TOKEN = {"PAGESTORE_TOKEN": access.signer().of_timeline(DEFAULT_TENANT, TIMELINE, 2e9, 3600)}


def test_the_shims_client_speaks_tls_and_believes_as_little(tmp_path: Path) -> None:
    identity = made(tmp_path / "ours", FAR)
    made(tmp_path / "theirs", FAR)
    other = certificates.make(tmp_path / "ours", ["10.9.9.9"], tmp_path / "other")

    async def main() -> None:
        def authority(of: str) -> dict[str, str]:
            return TOKEN | {"PAGESTORE_AUTHORITY": str(tmp_path / of / "tls/authority.pem")}

        async with serving(identity) as address:
            host, _, port = address.rpartition(":")
            code, found = await load(host, port, authority("ours"))
            assert code == 0, found
            assert found["pages"] > 0
            for believed in (authority("theirs"), authority("nowhere"), TOKEN):
                code, found = await load(host, port, {"PAGESTORE_AUTHORITY": ""} | believed)
                assert code == 1, found
        wrong = Identity(other / "certificate.pem", other / "key.pem")
        async with serving(wrong) as address:
            code, found = await load(host, address.rpartition(":")[2], authority("ours"))
            assert code == 1
            assert "prove who it is" in str(found["error"])

    run(main())


def test_the_shims_client_is_served_on_a_unix_socket(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "run/page.sock"
        async with serving(None, "127.0.0.1:0", path) as address:
            for host, port in ((str(path), ""), tuple(address.split(":"))):
                code, found = await load(host, port, TOKEN | {"PAGESTORE_AUTHORITY": ""})
                assert code == 0, found
                assert found["pages"] > 0
                code, found = await load(host, port, {"PAGESTORE_AUTHORITY": ""})
                assert code == 1
                assert "no token" in str(found["error"])

    run(main())
