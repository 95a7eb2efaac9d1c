"""`up --objects`: a store is raced and asked whose it is before any part is started."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pagestore.errors import FailedPrecondition, InvalidInput, PagestoreError, Unavailable
from pagestore.installation import config, objects
from pagestore.installation.commands import part_command, part_environment
from pagestore.installation.layout import Installation
from pagestore.objects import race
from pagestore.objects.claims import claim
from pagestore.objects.store import ObjectStore


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return made(tmp_path / "data")


def made(data: Path) -> Installation:
    (data / "control").mkdir(parents=True)
    (data / "pageserver").mkdir()
    config.write_first(data / "pagestore.toml")
    return Installation(data)


def reason(installation: Installation, url: str | None) -> str:
    with pytest.raises((FailedPrecondition, InvalidInput, Unavailable)) as told:
        objects.settle(installation, url)
    return told.value.reason


def test_a_store_is_kept_in_the_file_and_told_to_who_writes_there(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/objects"
    before = installation.config.model_dump()
    objects.settle(installation, None)
    assert installation.config.objects is None
    objects.settle(installation, url)
    assert installation.config.model_dump() == before | {
        "objects": {"url": url, "wal_age": 5.0, "cache_bytes": None}
    }
    objects.settle(Installation(installation.data), None)
    objects.settle(Installation(installation.data), url)
    installation.settle_compute_dir()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for part in installation.part_names:
        with_store = part in ("pageserver", "control")
        assert (url in part_command(installation, part)) == with_store
        assert "secret" not in part_command(installation, part)
        environment = part_environment(installation, part)
        assert environment.get("AWS_SECRET_ACCESS_KEY") == ("secret" if with_store else None)


def test_another_url_is_refused(installation: Installation, tmp_path: Path) -> None:
    objects.settle(installation, f"file://{tmp_path}/objects")
    assert reason(installation, f"file://{tmp_path}/other") == "OTHER_OBJECTS"
    assert reason(made(tmp_path / "more"), "ftp://host/x") == "OBJECT_STORE_URL"


def test_a_store_of_another_directory_is_refused(
    installation: Installation, tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/objects"
    objects.settle(installation, url)
    store = ObjectStore.open(url, {})
    claim(store, "control", installation.part_dir("control"))
    objects.settle(Installation(installation.data), None)
    other = made(tmp_path / "other")
    assert reason(other, url) == "OBJECT_STORE_CLAIMED"
    assert other.config.objects is None
    claim(store, "control", other.part_dir("control"), take_over=True)
    assert reason(Installation(installation.data), None) == "GENERATION_SUPERSEDED"


def test_a_directory_that_is_not_mounted_is_away_and_is_not_made_anew(
    installation: Installation, tmp_path: Path
) -> None:
    root = tmp_path / "objects"
    objects.settle(installation, f"file://{root}")
    claim(ObjectStore.open(f"file://{root}", {}), "control", installation.part_dir("control"))
    root.rename(tmp_path / "disk")
    objects.settle(Installation(installation.data), None)
    assert not root.exists()
    root.mkdir()
    objects.settle(Installation(installation.data), None)
    assert not list(root.iterdir())


def test_a_store_that_is_not_conditional_is_refused_by_name(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "_round", lambda store, name: 2)
    assert reason(installation, f"file://{tmp_path}/objects") == "OBJECT_STORE_UNCONDITIONAL"
    assert installation.config.objects is None


def test_a_store_that_is_silent_is_not_waited_for_long(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, never = threading.Event(), threading.Event()

    def silent(store: ObjectStore) -> None:
        asked.set()
        never.wait()

    monkeypatch.setattr(race, "prove_conditional", silent)
    monkeypatch.setattr(objects, "CHECK_SECONDS", 0.05)
    config.add_objects(installation.config_file, f"file://{tmp_path}/objects")
    objects.settle(Installation(installation.data), None)
    assert asked.wait(20)
    never.set()


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("OBJECT_STORE_UNAVAILABLE", "It is away."),
        FailedPrecondition("OBJECT_STORE_DENIED", "The credentials have been taken away."),
    ],
)
def test_a_store_that_is_away_keeps_only_a_first_up_from_going_on(
    installation: Installation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: PagestoreError,
) -> None:
    def away(store: ObjectStore) -> None:
        raise error

    url = f"file://{tmp_path}/objects"
    monkeypatch.setattr(race, "prove_conditional", away)
    assert reason(installation, url) == error.reason
    assert installation.config.objects is None
    config.add_objects(installation.config_file, url)
    objects.settle(Installation(installation.data), None)
