"""The console with so many real databases behind it: until Chromium shows the first of them.

    .venv/bin/python -m bench.console [DATABASES]

Branches of one database are made at the API, on a store of its own. Then, several times, a new
window opens the console's address: milliseconds until something is painted, until rows are, and
until all databases are counted; then, with it open, until a branch that is made elsewhere is seen.
Needs Debian's Chromium and Playwright.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pagestore.postgres.listening import free_port
from pagestore.sdk.client import AsyncClient
from pagestore.sdk.opening import aconnect, connect, end_ephemeral, start_ephemeral

AT_ONCE = 4
ROUNDS = 7
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
SECONDS = 120.0
MILLISECONDS = 1000.0


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    data = Path("/var/tmp") / f"pagestore-bench-console-{os.getpid()}"
    start_ephemeral(data, os.getpid())
    try:
        began = time.perf_counter()
        asyncio.run(_make(data, count))
        made = time.perf_counter() - began
        with _console(data) as link:
            found = _measured(link, data, count)
        each = MILLISECONDS * made / count
        print(json.dumps({"databases": count, "branch_ms": round(each, 1), **found}))
    finally:
        end_ephemeral(data)


async def _make(data: Path, count: int) -> None:
    async with aconnect(data=data, start=False) as client:
        await client.create("app")
        left = iter(range(1, count))
        await asyncio.gather(*(_branches(client, left) for _ in range(AT_ONCE)))


async def _branches(client: AsyncClient, left: Iterator[int]) -> None:
    for number in left:
        # A tree: of each tenth one the next ten hang.
        parent = f"db-{number // 10:05}" if number >= 10 and number // 10 % 10 == 0 else "app"
        await client.branch(parent, f"db-{number:05}")
        if number % 1000 == 0:
            sys.stderr.write(f"{number} made\n")


@contextmanager
def _console(data: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "pagestore.cli.main", "console"]
    with subprocess.Popen(
        [*command, "--listen", f"127.0.0.1:{free_port()}"],
        env={**os.environ, "PAGESTORE_DATA": str(data)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            found = re.search(r"http://\S+", process.stderr.readline())
            assert found is not None
            yield found[0]
        finally:
            process.terminate()


def _measured(link: str, data: Path, count: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1400, "height": 800}, bypass_csp=True)
        _counted(_entered(context, link), count)
        took: dict[str, list[float]] = {"painted": [], "rows": [], "all": []}
        for _ in range(ROUNDS):
            page = context.new_page()
            began = time.perf_counter()
            page.goto(link.split("login")[0], wait_until="commit")
            page.wait_for_selector(".row")
            took["rows"].append((time.perf_counter() - began) * MILLISECONDS)
            _counted(page, count)
            took["all"].append((time.perf_counter() - began) * MILLISECONDS)
            took["painted"].append(page.evaluate(PAINTED))
            page.close()
        seen = _seen(_opened(context, link, count), data)
        browser.close()
    return {
        name: f"{statistics.median(times):.0f} ({min(times):.0f} to {max(times):.0f})"
        for name, times in {**took, "news": seen}.items()
    }


def _entered(context: Any, link: str) -> Any:
    """Logged in; it may not listen yet."""
    from playwright.sync_api import Error

    page = context.new_page()
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            page.goto(link)
            return page
        except Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _opened(context: Any, link: str, count: int) -> Any:
    page = context.new_page()
    page.goto(link.split("login")[0])
    _counted(page, count)
    return page


def _counted(page: Any, count: int) -> None:
    words = f"document.getElementById('counts').textContent.startsWith('{count} databases')"
    page.wait_for_function(words, timeout=SECONDS * MILLISECONDS)


def _seen(page: Any, data: Path) -> list[float]:
    """From a branch's name being there to its row: it is the first of all."""

    took = []
    with connect(data=data, start=False) as client:
        for number in range(ROUNDS):
            name = f"a-{number}"
            client.branch("app", name)
            began = time.perf_counter()
            page.wait_for_selector(f"#row-{name}")
            took.append((time.perf_counter() - began) * MILLISECONDS)
    return took


if __name__ == "__main__":
    main()
