"""A page server's process and its object store: who was replaced ends, and one that is away at the
start keeps nobody from starting.
"""

from __future__ import annotations

from pathlib import Path

from pagestore.ids import DEFAULT_TENANT
from pagestore.objects.claims import claim
from pagestore.objects.store import ObjectStore
from pagestore.tasks import FINAL_STATUS
from tests.integration.page_process import PageProcess
from tests.waiting import wait_until

HASTY = "import pagestore.maintenance.uploader as up; up.CHECK_SECONDS = 0.5\n"
"""Before the program: it looks often whether it has been superseded."""


def claims(store: ObjectStore) -> list[str]:
    return [found.name for found in store.list("pageserver/claims/")]


def test_a_page_server_whose_place_was_taken_ends_and_begins_no_more(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/objects"
    store = ObjectStore.open(url, {})
    pages = PageProcess(tmp_path / "pages", objects=url, cache_bytes=64 << 20)
    pages.data_dir.mkdir()
    pages.program[-1] = HASTY + pages.program[-1]
    (tmp_path / "successor").mkdir()
    with pages:
        wait_until(lambda: list(store.list("pageserver/catalog/")))
        claim(store, "pageserver", tmp_path / "successor", take_over=True)
        wait_until(lambda: pages.exit_status is not None)
        assert pages.exit_status == FINAL_STATUS
        said = [line for line in pages.log.read_text().splitlines() if line.startswith("error: ")]
        assert "has taken over from generation 1" in said[-1]
        before = claims(store)
        pages.start()
        wait_until(lambda: pages.exit_status is not None)
        assert pages.exit_status == FINAL_STATUS
        assert claims(store) == before, "it claims nothing more"


def test_a_store_that_is_away_keeps_no_page_server_from_starting(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("not a directory")
    url = f"file://{tmp_path}/objects"
    pages = PageProcess(tmp_path / "pages", objects=url)
    pages.data_dir.mkdir()
    with pages, pages.client() as client:
        assert client.list_timelines(DEFAULT_TENANT) == []
        (tmp_path / "objects").unlink()
        store = ObjectStore.open(url, {})
        wait_until(lambda: list(store.list("pageserver/catalog/")))
    assert claims(store) == ["pageserver/claims/00000001"]
