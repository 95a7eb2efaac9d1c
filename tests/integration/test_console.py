"""The console over HTTP: who is let in, what is told, what is done."""

from __future__ import annotations

import contextlib
import json
import re
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from typing import Any

import pytest

from pagestore.console.app import STATIC as _STATIC
from tests.integration.installation import Whole, whole_pagestore
from tests.plain_postgres import free_port
from tests.waiting import wait_until


class Page:
    """What a browser does, without one."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """The status, and what JSON says."""
        shown = (
            {"Origin": self.address, "Content-Type": "application/json"} if body is not None else {}
        )
        request = urllib.request.Request(
            self.address + path,
            None if body is None else json.dumps(body).encode(),
            {**shown, **(headers or {})},
        )
        try:
            with self._opener.open(request, timeout=60) as answer:
                return answer.status, _said(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _said(error.read())

    def get(self, path: str) -> Any:
        status, said = self.ask(path)
        assert status == 200, said
        return said

    def post(self, path: str, **body: Any) -> Any:
        status, said = self.ask(path, body)
        assert status == 200, said
        return said


def _said(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode()


@contextlib.contextmanager
def console(whole: Whole) -> Iterator[tuple[str, str]]:
    """Its address, and the link that it prints."""
    listen = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "pagestore.cli.main", "console", "--listen", listen]
    with subprocess.Popen(
        command, env=whole.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            assert select.select([process.stderr], [], [], 60)[0]
            link = re.search(r"http://\S+", process.stderr.readline())
            assert link is not None
            yield f"http://{listen}", link[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        running.json("create", "app")
        with running.connect("app") as session:
            session.execute("CREATE TABLE t AS SELECT generate_series(1, 5) AS i")
        running.json("checkpoint", "app", "before")
        yield running


@pytest.fixture(scope="module")
def shown(whole: Whole) -> Iterator[tuple[str, str]]:
    with console(whole) as found:
        yield found


@pytest.fixture(scope="module")
def page(whole: Whole, shown: tuple[str, str]) -> Page:
    found = Page(shown[0])
    wait_until(lambda: _answers(found))
    assert found.ask(shown[1].removeprefix(shown[0]))[0] == 200
    return found


def _answers(page: Page) -> bool:
    with contextlib.suppress(urllib.error.URLError):
        return page.ask("/login")[0] == 200
    return False


def test_who_is_not_logged_in_is_told_nothing(page: Page, whole: Whole) -> None:
    stranger = Page(page.address)
    assert stranger.ask("/api/databases")[0] == 401
    assert "log in" in stranger.ask("/")[1]
    assert stranger.ask("/login", {"token": "pst1_" + "A" * 160})[0] == 401
    assert stranger.ask("/login", {"token": ""})[0] == 401
    other = (whole.data / "tokens/proxy").read_text()
    assert stranger.ask("/login", {"token": other})[0] == 403
    assert stranger.ask("/api/databases")[0] == 401
    token = (whole.data / "tokens/operator").read_text()
    assert stranger.ask("/login", {"token": token})[0] == 200
    assert stranger.ask("/api/databases")[0] == 200
    assert stranger.ask("/logout", {})[0] == 200
    assert stranger.ask("/api/databases")[0] == 401


def test_the_link_holds_once(page: Page, shown: tuple[str, str]) -> None:
    stranger = Page(page.address)
    assert stranger.ask(shown[1].removeprefix(shown[0]))[0] == 401
    assert stranger.ask("/api/databases")[0] == 401


def test_another_page_of_the_same_browser_can_do_nothing(page: Page) -> None:
    path = "/api/databases/app/checkpoint"
    body = {"name": "stolen"}
    assert page.ask(path, body, {"Origin": "http://evil.example"})[0] == 403
    assert page.ask(path, body, {"Origin": "null"})[0] == 403
    assert page.ask(path, body, {"Content-Type": "text/plain"})[0] == 403
    assert page.ask("/api/databases", None, {"Host": "evil.example:7474"})[0] == 403
    names = [item["name"] for item in page.get("/api/checkpoints?name=app")["app"]]
    assert "stolen" not in names


def heard_of(page: Page, version: int) -> Iterator[dict[str, Any]]:
    """Each piece of news after that version, as a browser that stays hears it."""
    while True:
        news = page.get(f"/api/news?since={version}")
        version = news["version"]
        yield news


def test_the_tree_is_told_and_then_what_changes(page: Page, whole: Whole) -> None:
    first = page.get("/api/databases")
    (app,) = [row for row in first["rows"] if row["name"] == "app"]
    assert (app["depth"], app["parent"]) == (0, None)
    made = page.post("/api/databases/app/branch", name="try-1", at="before", ttl="1h")
    assert made == {"name": "try-1"}
    heard = heard_of(page, first["version"])
    rows = (row for news in heard for row in news["rows"])
    branch = next(row for row in rows if row["name"] == "try-1")
    assert (branch["depth"], branch["parent"]) == (1, "app")
    assert branch["from"] <= branch["at"]
    assert branch["expires"]
    whole.run("rm", "try-1")
    assert next(news for news in heard if "try-1" in news["gone"])


def test_what_was_removed_as_soon_as_it_was_made_is_not_shown_for_ever(page: Page) -> None:
    heard = heard_of(page, page.get("/api/databases")["version"])
    for _ in range(5):
        page.post("/api/databases/app/branch", name="brief")
        assert page.post("/api/databases/brief/remove")["removed"]
    page.post("/api/databases/app/branch", name="later")
    assert next(news for news in heard if any(row["name"] == "later" for row in news["rows"]))
    assert "brief" not in {row["name"] for row in page.get("/api/databases")["rows"]}
    assert page.post("/api/databases/later/remove")["removed"]


def test_what_is_done_is_in_the_history_and_can_be_taken_back(page: Page, whole: Whole) -> None:
    page.post("/api/databases/app/checkpoint", name="good")
    assert page.post("/api/databases/app/sql", text="DROP TABLE t", read_only=False)["statements"]
    done = page.post("/api/databases/app/undo")
    assert done["changed"]
    assert page.post("/api/databases/app/sql", text="SELECT count(*) FROM t")["rows"] == [[5]]
    told = page.get("/api/databases/app")
    assert [entry["name"] for entry in told["log"] if entry["name"] == "good"]
    wait_until(lambda: page.get("/api/databases/app")["usage"]["queries"] > 0)
    assert page.post("/api/databases/app/restore", at="before")["went_to"]["name"] == "before"


def test_what_only_reads_cannot_write(page: Page) -> None:
    status, said = page.ask("/api/databases/app/sql", {"text": "CREATE TABLE evil ()"})
    assert status == 409
    assert said["error"]["reason"] == "SQL_FAILED"
    ran = page.post("/api/databases/app/sql", text="SELECT to_regclass('evil'), 1 AS one")
    assert (ran["columns"], ran["rows"]) == (["to_regclass", "one"], [[None, 1]])
    assert ran["at_lsn"]


def test_nonsense_is_refused_by_name(page: Page) -> None:
    assert page.ask("/api/databases/nosuch")[0] == 404
    assert page.ask("/api/databases?offset=x")[0] == 400
    status, said = page.ask("/api/databases/app/undo", [1])
    assert (status, said["error"]["reason"]) == (400, "INVALID_BODY")
    assert page.ask("/static/../app.py")[0] == 404


def test_no_page_may_have_scripts_of_others(page: Page) -> None:
    with urllib.request.urlopen(page.address + "/login", timeout=20) as answer:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
    for file in _STATIC.glob("*.html"):
        assert not re.search(r"<script(?![^>]*src=)|\bstyle=|\bon\w+=", file.read_text())


def test_it_listens_on_this_machine_only(whole: Whole) -> None:
    error = whole.run("console", "--listen", "0.0.0.0:7474", check=False)
    assert error.returncode != 0
    assert "in clear" in error.stderr
