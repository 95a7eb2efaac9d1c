"""Who has no token, or not the right one, gets nothing: at every method of every service.

The services here answer everything that reaches them, so each refusal is the guard's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pagestore.client.channels import open_channel
from pagestore.client.credentials import Credentials
from pagestore.client.errors import from_rpc_error
from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.services.guard import Guard, SigningKey
from pagestore.services.permissions import CHECKED_INSIDE, NEEDED
from pagestore.services.server import GrpcServer, run
from pagestore.tokens import Claims, Scope, Signer, Verifier, key_text
from tests.unit.services.test_permissions import METHODS

TIMELINE = TimelineId(b"l" * 16)
SIGNER = Signer(b"k" * 32)
ANSWERED = "answered"
NOW = time.time()


class Everything:
    """Has every method of a service, and answers with its empty message."""

    def __init__(self, service: ServiceDescriptor) -> None:
        for method in service.methods:
            name = "".join(f"_{c.lower()}" if c.isupper() else c for c in method.name).lstrip("_")
            setattr(self, name, _answering(method))


def _answering(method: MethodDescriptor) -> Callable[[Any, Any], Any]:
    answer = message_factory.GetMessageClass(method.output_type)()

    async def one(request: Any, context: Any) -> Any:
        if method.client_streaming:
            async for _ in request:
                pass
        return answer

    async def many(request: Any, context: Any) -> Any:
        if method.client_streaming:
            async for _ in request:
                yield answer
        else:
            yield answer

    return many if method.server_streaming else one


@asynccontextmanager
async def serving(keys: Path) -> Any:
    keys.write_text(key_text(SIGNER.public_key))
    server = GrpcServer(Guard(keys))
    for service in {method.containing_service.full_name: method for method in METHODS.values()}:
        found = next(m for m in METHODS.values() if m.containing_service.full_name == service)
        server.add_service(found.containing_service, Everything(found.containing_service))
    address = await server.start("127.0.0.1:0")
    yield address
    await server.stop(0)


def request_of(method: MethodDescriptor, tenant: TenantId, timeline: TimelineId) -> bytes:
    request = message_factory.GetMessageClass(method.input_type)()
    for field, value in (("tenant_id", tenant.raw), ("timeline_id", timeline.raw)):
        if field in method.input_type.fields_by_name:
            setattr(request, field, value)
    return bytes(request.SerializeToString())


async def outcome(channel: Any, path: str, request: bytes) -> str:
    """The reason of the refusal, or that there was none. A client that writes to a stream as it is
    refused may not hear why, and asks again."""
    told = "INTERNAL"
    for _ in range(20):
        if not told.startswith("INTERNAL"):
            break
        told = await outcome_once(channel, path, request)
    return told


async def outcome_once(channel: Any, path: str, request: bytes) -> str:
    method = METHODS[path]
    kinds = ("unary", "stream")
    kind = f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}"

    async def one() -> Any:
        yield request

    call = getattr(channel, kind)(path)(one() if method.client_streaming else request, timeout=60)
    try:
        if method.server_streaming:
            async for _ in call:
                break
        else:
            await call
    except grpc.RpcError as error:
        failure = from_rpc_error(error)
        return f"{error.code().name} {failure.reason}"
    return ANSWERED


def outcomes(
    tmp_path: Path, token: str, tenant: TenantId = DEFAULT_TENANT, timeline: TimelineId = TIMELINE
) -> dict[str, str]:
    """What each method says to who shows `token`."""

    async def main() -> dict[str, str]:
        found = {}
        async with serving(tmp_path / "keys") as address:
            channel = open_channel(address, Credentials.of_token(token))
            for path, method in METHODS.items():
                found[path] = await outcome(channel, path, request_of(method, tenant, timeline))
            await channel.close()
        return found

    return run(main())


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("", "UNAUTHENTICATED TOKEN_MISSING"),
        ("pst1_", "UNAUTHENTICATED TOKEN_MALFORMED"),
        ("x" * 7000, "UNAUTHENTICATED TOKEN_MALFORMED"),
        (SIGNER.of_operator(NOW)[:-1], "UNAUTHENTICATED TOKEN_MALFORMED"),
        (Signer(b"o" * 32).of_operator(NOW), "UNAUTHENTICATED TOKEN_FOREIGN"),
        (SIGNER.sign(Claims(Scope.OPERATOR, 1, 2)), "UNAUTHENTICATED TOKEN_EXPIRED"),
        (SIGNER.of_timeline(DEFAULT_TENANT, TIMELINE, 1, 1), "UNAUTHENTICATED TOKEN_EXPIRED"),
    ],
    ids=["none", "short", "long", "cut", "another key", "expired", "expired compute"],
)
def test_every_method_is_closed_to_strangers(tmp_path: Path, token: str, told: str) -> None:
    assert set(outcomes(tmp_path, token).values()) == {told}


def test_the_operators_token_opens_every_method(tmp_path: Path) -> None:
    assert set(outcomes(tmp_path, SIGNER.of_operator(NOW)).values()) == {ANSWERED}


@pytest.mark.parametrize("scope", [s for s in Scope if s != Scope.OPERATOR], ids=lambda s: s.name)
def test_each_token_opens_what_its_rows_say(tmp_path: Path, scope: Scope) -> None:
    token = {
        Scope.TENANT: SIGNER.of_tenant(DEFAULT_TENANT, NOW, 3600),
        Scope.TIMELINE: SIGNER.of_timeline(DEFAULT_TENANT, TIMELINE, NOW, 3600),
    }.get(scope) or SIGNER.of_part(scope, NOW)
    closed = "PERMISSION_DENIED TOKEN_TOO_NARROW"
    for path, told in outcomes(tmp_path, token).items():
        assert told == (ANSWERED if scope in NEEDED[path] else closed), path


@pytest.mark.parametrize(
    ("token", "told"),
    [
        (SIGNER.of_tenant(TenantId(b"o" * 16), NOW, 3600), "OTHER_TENANT"),
        (SIGNER.of_timeline(TenantId(b"o" * 16), TIMELINE, NOW, 3600), "OTHER_TENANT"),
        (SIGNER.of_timeline(DEFAULT_TENANT, TimelineId(b"o" * 16), NOW, 3600), "OTHER_TIMELINE"),
    ],
    ids=["another tenant's", "another tenant's compute", "another timeline's compute"],
)
def test_what_is_anothers_is_closed(tmp_path: Path, token: str, told: str) -> None:
    found = outcomes(tmp_path, token)
    for path in CHECKED_INSIDE:  # by the methods that these here stand for
        del found[path]
    assert set(found.values()) == {
        f"PERMISSION_DENIED {told}",
        "PERMISSION_DENIED TOKEN_TOO_NARROW",
    }


def test_health_is_open_and_reflection_is_not(tmp_path: Path) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async def services(address: str, token: str) -> list[str]:
        channel: Any = open_channel(address, Credentials.of_token(token))
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [item async for item in stub.ServerReflectionInfo(iter([asked]))]
        await channel.close()
        return [item.name for item in answers[0].list_services_response.service]

    async def main() -> None:
        async with serving(tmp_path / "keys") as address:
            async with grpc.aio.insecure_channel(address) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
                answer = await stub.Check(health_pb2.HealthCheckRequest())
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.RpcError) as caught:
                await services(address, "")
            assert from_rpc_error(caught.value).reason == "TOKEN_MISSING"
            for token in (
                SIGNER.of_operator(NOW),
                SIGNER.of_timeline(DEFAULT_TENANT, TIMELINE, NOW, 3600),
            ):
                assert "pagestore.v1.PageService" in await services(address, token)

    run(main())


def test_keys_change_while_it_runs(tmp_path: Path) -> None:
    """Two are accepted; the third change takes the first away, remembered or not."""
    keys = tmp_path / "keys"
    path = "/pagestore.v1.ControlService/GetSystemStatus"
    signers = [SIGNER, Signer(b"2" * 32), Signer(b"3" * 32)]

    async def main() -> None:
        async with serving(keys) as address:

            async def told(signer: Signer) -> str:
                channel = open_channel(address, Credentials.of_token(signer.of_operator(1)))
                try:
                    return await outcome(channel, path, b"")
                finally:
                    await channel.close()

            assert await told(signers[0]) == ANSWERED
            assert await told(signers[1]) == "UNAUTHENTICATED TOKEN_FOREIGN"
            for newest in (1, 2):
                both = signers[newest], signers[newest - 1]
                (tmp_path / "new").write_text("".join(key_text(s.public_key) for s in both))
                (tmp_path / "new").rename(keys)
                assert [await told(signer) for signer in both] == [ANSWERED] * 2
            assert await told(signers[0]) == "UNAUTHENTICATED TOKEN_FOREIGN"
            keys.unlink()
            assert await told(signers[2]) == ANSWERED
            await asyncio.sleep(0)

    run(main())


def test_who_signs_takes_a_changed_key_up(tmp_path: Path) -> None:
    path = tmp_path / "signing-key"
    path.write_text(key_text(b"1" * 32))
    signer = SigningKey(path)
    for seed in (b"1" * 32, b"2" * 32):
        (tmp_path / "new").write_text(key_text(seed))
        (tmp_path / "new").rename(path)
        token = signer.of_tenant(DEFAULT_TENANT, NOW, 3600)
        assert Verifier([Signer(seed).public_key]).verify(token, NOW).tenant == DEFAULT_TENANT
    path.unlink()
    assert signer.current() == Signer(b"2" * 32).public_key
    with pytest.raises(FailedPrecondition) as caught:
        SigningKey(path)
    assert caught.value.reason == "KEYS_MISSING"


def test_a_part_without_keys_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PAGESTORE_KEYS")
    for named in (None, tmp_path / "none"):
        with pytest.raises(FailedPrecondition) as caught:
            Guard.of_setting(named)
        assert caught.value.reason == "KEYS_MISSING"
    (tmp_path / "bad").write_text("nonsense\n")
    with pytest.raises(DataLoss):
        Guard.of_setting(tmp_path / "bad")
