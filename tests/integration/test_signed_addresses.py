"""A safekeeper connects nowhere but where a key of its installation has signed a compute to be."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagestore.client.credentials import Credentials
from pagestore.client.wal import WalClient
from pagestore.consensus.acceptor import Attachment
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.tokens import Scope, Signer
from pagestore.walservice import control_file
from pagestore.walservice.owner import Owner
from tests import access
from tests.safekeeper_process import Timeline, followed_postgres, wait_synchronous
from tests.waiting import stays, wait_until

STRANGER = Signer(b"another installation's key".ljust(32))


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Timeline]:
    with followed_postgres(tmp_path / "sk") as timeline:
        wait_synchronous(timeline.postgres)
        yield timeline


@pytest.fixture
def elsewhere() -> Iterator[socket.socket]:
    """Where the safekeeper is to be led to, and must not come."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def nobody_came(listening: socket.socket) -> bool:
    try:
        listening.accept()
    except BlockingIOError:
        return True
    return False


def told(timeline: Timeline, address: str) -> str:
    """What the safekeeper answers to who starts computes, and would lead it there."""

    async def attach(client: WalClient) -> None:
        await client.attach_compute(DEFAULT_TENANT, timeline.id, timeline.term, address, 0)

    token = access.signer().of_part(Scope.COMPUTE_AGENT, time.time())
    with pytest.raises(PagestoreError) as caught:
        timeline.safekeeper.call(attach, Credentials.of_token(token))
    return caught.value.reason


def test_a_token_that_may_attach_computes_leads_a_safekeeper_nowhere(
    followed: Timeline, elsewhere: socket.socket
) -> None:
    port = elsewhere.getsockname()[1]
    foreign = f"host=127.0.0.1 port={port} user=a"
    own = access.address(DEFAULT_TENANT, followed.id, followed.term, followed.postgres.conninfo())
    _, _, signature = own.rpartition(" ")
    sign: Callable[..., str] = access.address
    for address in (
        foreign,
        f"{foreign} {signature}",
        sign(DEFAULT_TENANT, TimelineId.generate(), followed.term, foreign),
        sign(TenantId.generate(), followed.id, followed.term, foreign),
        sign(DEFAULT_TENANT, followed.id, followed.term - 1, foreign),
        STRANGER.sign_address(DEFAULT_TENANT, followed.id, followed.term, foreign),
        own.replace("port=", "port= "),
    ):
        assert told(followed, address) == "ADDRESS_NOT_SIGNED"
    altered = access.address(DEFAULT_TENANT, followed.id, followed.term, foreign)
    assert told(followed, altered.replace(str(port), str(port - 1))) == "ADDRESS_NOT_SIGNED"
    assert told(followed, foreign.replace("127.0.0.1", "192.0.2.1")) == "TLS_REQUIRED"
    assert stays(lambda: nobody_came(elsewhere), 0.3)
    followed.postgres.sql("INSERT INTO ledger VALUES (1000)")
    assert followed.status().receiving


def test_what_a_safekeeper_remembers_it_believes_only_signed(
    followed: Timeline, elsewhere: socket.socket
) -> None:
    """After a restart, too; and it follows its compute again as soon as that is told anew."""
    safekeeper = followed.safekeeper
    for conninfo in (
        f"host=127.0.0.1 port={elsewhere.getsockname()[1]} user=a",
        followed.postgres.conninfo(),
    ):
        safekeeper.stop()
        owner = Owner(DEFAULT_TENANT, followed.id, safekeeper.number)
        control = control_file.read(followed.directory, owner)
        bent = dataclasses.replace(control.state, attachment=Attachment(followed.term, conninfo))
        control_file.replace(followed.directory, dataclasses.replace(control, state=bent), owner)
        safekeeper.start()
        wait_until(lambda: "No key of this installation" in followed.status().last_error)
        assert not followed.status().receiving
    assert stays(lambda: nobody_came(elsewhere), 0.3)
    followed.attach()
    wait_until(lambda: followed.status().receiving)
    followed.postgres.sql("INSERT INTO ledger VALUES (1001)")
    safekeeper.stop()
    safekeeper.start()
    wait_until(lambda: followed.status().receiving)
    followed.postgres.sql("INSERT INTO ledger VALUES (1002)")
