from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.errors import FailedPrecondition
from pagestore.objects.claims import establish
from pagestore.objects.race import prove_conditional
from pagestore.objects.store import ObjectStore
from tests.unit.objects import s3


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A directory's."""
    return used(f"file://{tmp_path}/objects", {})


def used(url: str, environ: dict[str, str]) -> ObjectStore:
    store = ObjectStore.open(url, environ)
    establish(store)
    return store


@pytest.fixture(scope="session")
def s3_environ() -> Iterator[dict[str, str]]:
    with s3.moto() as environ:
        s3.make_bucket(environ, "bucket")
        yield environ


@pytest.fixture(scope="session")
def versitygw_environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3.versitygw(tmp_path_factory.mktemp("versitygw") / "root") as environ:
        try:
            prove_conditional(ObjectStore.open("s3://bucket/race", environ))
        except FailedPrecondition as error:
            # As 1.0.14 does, which is what the race is for.
            pytest.skip(f"this versitygw overwrites: {error.reason}")
        yield environ


@pytest.fixture(params=["file", "s3", *(["versitygw"] if s3.VERSITYGW else [])])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Of each kind; what must hold on all of them is tried with this one."""
    if request.param == "file":
        return used(f"file://{tmp_path}/objects", {})
    environ = request.getfixturevalue(f"{request.param}_environ")
    return used(f"s3://bucket/{secrets.token_hex(4)}/prefix", environ)
