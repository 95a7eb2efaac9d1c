"""Fixtures that several modules want alike; what they are made from is the module's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.page_source import PageSource, serving
from tests.plain_postgres import PlainPostgres, reachable_dir
from tests.safekeeper_process import SafekeeperProcess


@pytest.fixture
def pages(source: PlainPostgres) -> Iterator[PageSource]:
    """A server of the pages of the module's `source`."""
    with serving(source) as server:
        yield server


@pytest.fixture(scope="module")
def safekeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SafekeeperProcess]:
    process = SafekeeperProcess(tmp_path_factory.mktemp("wal") / "sk")
    process.start()
    yield process
    process.stop()


@pytest.fixture
def root() -> Iterator[Path]:
    path = reachable_dir()
    yield path
    shutil.rmtree(path, ignore_errors=True)
