"""The MCP inspector, as its makers publish it, at the tools of a whole installation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clients.cache import cache, missing
from tests.integration.installation import Whole, whole_pagestore

INSPECTOR = "@modelcontextprotocol/inspector"
_AWAY = ("ENOTFOUND", "EAI_AGAIN", "ENETUNREACH", "ECONNREFUSED", "network")
_FETCH_SECONDS = 200  # less than a test may take
Inspect = Callable[..., Any]


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest) -> Iterator[Whole]:
    if request.config.getoption("--clients") != "all":
        missing("needs --clients=all")
    if shutil.which("npx") is None:
        missing("npx is not installed")
    with whole_pagestore() as running:
        running.json("create", "app")
        yield running


@pytest.fixture
def inspect(whole: Whole) -> Inspect:
    server = [sys.executable, "-m", "pagestore.cli.main", "mcp"]
    told = ["-e", f"PAGESTORE_DATA={whole.data}"]
    environment = {**os.environ, "npm_config_cache": str(cache() / "npm")}

    def inspected(*asked: str) -> Any:
        done = subprocess.run(
            ["npx", "--yes", INSPECTOR, "--cli", *told, *server, *asked],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            check=False,
        )
        if done.returncode != 0 and any(words in done.stderr for words in _AWAY):
            missing(f"npm's registry is out of reach: {done.stderr[-200:]}")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return inspected


def test_it_lists_the_tools_and_calls_one(inspect: Inspect) -> None:
    tools = {tool["name"]: tool for tool in inspect("--method", "tools/list")["tools"]}
    assert len(tools) <= 10
    assert tools["delete_branch"]["annotations"]["destructiveHint"]
    assert all(tool["outputSchema"] for tool in tools.values())
    call = ("--method", "tools/call", "--tool-name", "run_sql")
    said = inspect(*call, "--tool-arg", "database=app", "--tool-arg", "statement=SELECT 6 * 7 AS n")
    assert said["structuredContent"]["rows"] == [[42]]
    refused = inspect(*call, "--tool-arg", "database=none", "--tool-arg", "statement=SELECT 1")
    assert refused["isError"]
