"""A proxy whose database is a Postgres that sleeps soon, and is another one whenever it wakes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.proxy import front
from pagestore.proxy.fleet import Limits
from tests.integration.proxied import MODULE, PlainPlaces, RunningProxy, running_proxy
from tests.plain_postgres import plain_postgres
from tests.unit.relay.driver import make_certificate, tls_server

HBA = "local all postgres trust\nlocal all all scram-sha-256\n"
IDLE_SECONDS = 0.4


@pytest.fixture(scope="session")
def places() -> Iterator[PlainPlaces]:
    with plain_postgres(max_connections=200, fsync="off") as server:
        (server.data / "pg_hba.conf").write_text(HBA)
        shutil.copy(MODULE, server.root)
        server.configure(shared_preload_libraries=server.root / MODULE.name)
        server.configure(**{"pagestore_session.key": "a secret", "wal_level": "logical"})
        server.sql("CREATE ROLE ann LOGIN PASSWORD 'pass word'")
        server.sql("CREATE DATABASE other")
        server.sql("GRANT CREATE ON SCHEMA public TO ann")
        server.stop()
        server.start()
        found = PlainPlaces(server, moves=True)
        found.learn_roles()
        server.stop()
        yield found


@pytest.fixture(autouse=True, scope="session")
def _impatient() -> Iterator[None]:
    """What a proxy does after a second it does sooner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(front, "TICK_SECONDS", 0.1)
        patch.setattr(front, "WRITE_DOWN_SECONDS", 0.2)
        yield


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def proxy(places: PlainPlaces, certificate: tuple[Path, Path]) -> Iterator[RunningProxy]:
    places.fault, places.delay = "", 0.0
    with running_proxy(places, Limits(idle=IDLE_SECONDS), tls=tls_server(*certificate)) as running:
        yield running
