"""The console in Debian's Chromium, where that and Playwright are installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from pagestore.sdk.values import Facts
from tests.integration.installation import Whole, whole_pagestore
from tests.integration.test_console import console
from tests.waiting import wait_until

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("did NOT run: there is no chromium here", allow_module_level=True)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="did NOT run: there is no playwright here"
)


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        running.json("create", "app")
        running.json("checkpoint", "app", "before")
        running.json("branch", "app", "try-1")
        running.json("branch", "try-1", "try-1-a")
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(whole: Whole, browser: Any) -> Iterator[Any]:
    with console(whole) as (_, link):
        opened = browser.new_page(viewport={"width": 1400, "height": 800})
        faults: list[str] = []
        opened.on("pageerror", lambda error: faults.append(str(error)))

        def came() -> bool:
            try:
                opened.goto(link)
            except playwright.Error:
                return False  # it does not listen yet
            return True

        wait_until(came)
        opened.wait_for_selector(".row")
        yield opened
        opened.close()
        assert not faults


def rows(page: Any) -> list[str]:
    return [row.inner_text() for row in page.query_selector_all(".row .name")]


def test_the_tree_is_drawn_and_worked_on_by_keys(page: Any, whole: Whole) -> None:
    wait_until(lambda: len(rows(page)) == 3)
    assert [words.strip("▾▸ \n\t") for words in rows(page)] == ["app", "try-1", "try-1-a"]
    wait_until(lambda: page.query_selector(".row .checkpoint") is not None)
    page.focus("#tree")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("aside h2")
    assert page.inner_text("aside h2") == "app"
    assert page.url.endswith("#/db/app")
    page.focus("#tree")
    page.keyboard.press("ArrowLeft")
    wait_until(lambda: len(rows(page)) == 1)
    page.keyboard.press("ArrowRight")
    wait_until(lambda: len(rows(page)) == 3)
    page.keyboard.press("b")
    page.fill("dialog input[name=name]", "by-keys")
    page.keyboard.press("Enter")
    wait_until(lambda: len(rows(page)) == 4)
    assert whole.json("show", "by-keys")["parent"] == "app"
    page.keyboard.press("Escape")


def test_what_happens_elsewhere_appears(page: Any, whole: Whole) -> None:
    whole.json("branch", "app", "elsewhere")
    wait_until(lambda: any("elsewhere" in words for words in rows(page)))
    whole.run("rm", "elsewhere")
    wait_until(lambda: not any("elsewhere" in words for words in rows(page)))


def test_sql_only_reads_unless_told_otherwise(page: Any, whole: Whole) -> None:
    page.goto(page.url.split("#")[0] + "#/db/app/sql")
    page.wait_for_selector("aside textarea")
    page.fill("aside textarea", "CREATE TABLE made ()")
    page.click("aside button:text-is('Run')")
    page.wait_for_selector("aside .result [role=alert]")
    page.uncheck("#read-only")
    page.click("aside button:text-is('Run')")
    wait_until(lambda: "CREATE TABLE" in page.inner_text("aside .result"))
    page.fill("aside textarea", "SELECT '<b>text</b>' AS shown")
    page.click("aside button:text-is('Run')")
    wait_until(lambda: "<b>text</b>" in page.inner_text("aside .result"))


def test_a_checkpoint_an_undo_and_a_deep_link(page: Any, whole: Whole) -> None:
    page.goto(page.url.split("#")[0] + "#/db/try-1")
    page.wait_for_selector("aside h2:text-is('try-1')")
    page.click("aside button:text-is('Checkpoint')")
    page.fill("dialog input[name=name]", "seen")
    page.click("#ask-yes")
    page.wait_for_selector("aside .what:text-is('checkpoint seen')")
    whole.sql("try-1", "CREATE TABLE undone ()")
    page.click("aside button:text-is('Undo')")
    page.click("#ask-yes")
    wait_until(lambda: whole.sql("try-1", "SELECT to_regclass('undone')") == [(None,)])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_fault(page: Any, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="did NOT run: no axe")
    page.emulate_media(color_scheme=theme)
    page.goto(page.url.split("#")[0] + "#/db/app")
    page.wait_for_selector("aside h2:text-is('app')")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_ten_thousand_databases_are_usable(page: Any, whole: Whole) -> None:
    """The page alone: what it asks for is answered as the console's server would."""
    from pagestore.console.census import Census

    census = Census()
    for number in range(10_000):
        parent = f"db-{number // 10:05}" if number else None
        census.learn(
            Facts(
                name=f"db-{number:05}",
                url="",
                lsn="0/200",
                parent=parent,
                branch_lsn="0/100" if parent else None,
                compute="stopped",
                postgres=15,
                physical_bytes=4096,
                created_at=datetime.now(UTC),
                expires_at=None,
                created=False,
            )
        )

    def answer(route: Any) -> None:
        asked = dict(parse_qsl(urlsplit(route.request.url).query))
        if "/api/databases?" in route.request.url:
            route.fulfill(json=census.page(int(asked["offset"]), int(asked["limit"])))
        elif "/api/checkpoints" in route.request.url:
            route.fulfill(json={})
        elif "/api/news" not in route.request.url:
            route.continue_()

    page.route("**/api/**", answer)
    page.goto(page.url.split("#")[0] + "?many")
    wait_until(lambda: "10000 databases" in page.inner_text("#counts"))
    assert len(page.query_selector_all(".row")) < 60
    page.focus("#tree")
    page.keyboard.press("End")
    wait_until(lambda: page.query_selector(".row.selected") is not None)
    page.fill("#search", "db-04242")
    wait_until(lambda: [words.strip() for words in rows(page)] == ["db-04242"])
    page.unroute_all(behavior="ignoreErrors")
