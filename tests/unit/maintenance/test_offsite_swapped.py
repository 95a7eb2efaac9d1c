"""Another place under the object store's URL for a while: no disk mounted, a new bucket."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.errors import Unavailable
from pagestore.objects.store import ObjectStore
from tests.unit.maintenance.offsite import settle
from tests.unit.maintenance.test_offsite import Kept, key_of


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    store = Kept(tmp_path / "data", ObjectStore.open(f"file://{tmp_path}/objects", {}))
    yield store
    store.repository.close()


@pytest.mark.parametrize("below_the_mount", ["nothing", "an empty directory", "an empty bucket"])
def test_what_is_written_while_the_store_is_another_one_is_there_when_it_is_back(
    kept: Kept, tmp_path: Path, below_the_mount: str
) -> None:
    root, disk = tmp_path / "objects", tmp_path / "disk"
    kept.write(1)
    settle(kept.offsite)
    root.rename(disk)
    if below_the_mount != "nothing":
        root.mkdir()
    if below_the_mount == "an empty bucket":  # a service asks nobody which it is
        (root / "store").write_bytes(b"")
    for _ in range(2):
        kept.write(1)
    kept.compact(1)
    kept.offsite.take()
    key = kept.offsite.next_layer()
    assert key is not None
    with pytest.raises(Unavailable):
        kept.offsite.upload(key)
    kept.offsite.give_back(key)
    with pytest.raises(Unavailable):
        kept.offsite.check()
    assert not kept.offsite.is_whole
    assert kept.offsite.durable_lsn(key_of(kept, 1)) < kept.models[1].durable
    shutil.rmtree(root, ignore_errors=True)
    disk.rename(root)
    settle(kept.offsite)
    assert kept.offsite.durable_lsn(key_of(kept, 1)) == kept.models[1].durable
    for repository in kept.recovered():
        kept.check(repository)
