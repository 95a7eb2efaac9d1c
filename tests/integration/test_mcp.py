"""`pagestore mcp`, asked by the protocol's own client over stdio and HTTP, with real databases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pagestore.postgres.listening import free_ports
from tests.integration.installation import Whole, sql, whole_pagestore
from tests.waiting import wait_until

mcp = pytest.importorskip("mcp", reason="did NOT run: needs the extra pagestore[mcp]")

import httpx2  # noqa: E402
from mcp.client.streamable_http import streamable_http_client  # noqa: E402
from mcp.types import ElicitResult  # noqa: E402

COMMAND = ("-m", "pagestore.cli.main", "mcp")
TOOLS = {
    "list", "create_branch", "delete_branch", "run_sql", "describe_schema", "diff", "checkpoint",
    "undo", "try", "explain",
}  # fmt: skip


class Person:
    """Who sits at the client, and is asked."""

    def __init__(self, *, says: bool | None) -> None:
        self.says = says
        self.asked: list[str] = []

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked.append(params.message)
        if self.says is None:
            return ElicitResult(action="decline")
        return ElicitResult(action="accept", content={"yes": self.says})


class Tools:
    """The server's, by a client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def __call__(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        done = await self.client.call_tool(tool, arguments)
        assert not done.is_error, done.content[0].text
        return done.structured_content

    async def refused(self, tool: str, /, **arguments: Any) -> str:
        done = await self.client.call_tool(tool, arguments)
        assert done.is_error, done.structured_content
        return done.content[0].text


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as made:
        url = made.json("create", "app")["url"]
        sql(url, "CREATE TABLE t (id int PRIMARY KEY, v text)")
        sql(url, "INSERT INTO t SELECT g, 'x' || g FROM generate_series(1, 250) g")
        yield made


@contextlib.asynccontextmanager
async def by_stdio(
    whole: Whole, *options: str, person: Person | None = None, mode: str = "auto"
) -> AsyncIterator[Tools]:
    started = mcp.StdioServerParameters(
        command=sys.executable,
        args=[*COMMAND, "--data", str(whole.data), *options],
        env=whole.environment,
    )
    async with mcp.Client(started, elicitation_callback=person, mode=mode) as client:
        yield Tools(client)


def story(
    whole: Whole,
    told: Callable[[Tools], Awaitable[None]],
    *options: str,
    person: Person | None = None,
    mode: str = "auto",
) -> None:
    async def play() -> None:
        async with asyncio.timeout(120), by_stdio(whole, *options, person=person, mode=mode) as it:
            await told(it)

    asyncio.run(play())


def test_ten_tools_say_what_they_do_and_what_they_answer(whole: Whole) -> None:
    async def told(tools: Tools) -> None:
        listed = (await tools.client.list_tools()).tools
        assert {tool.name for tool in listed} == TOOLS
        for tool in listed:
            assert all((tool.description, tool.output_schema, tool.annotations)), tool.name
        hints = {tool.name: tool.annotations for tool in listed}
        lose = {name for name, hint in hints.items() if hint.destructive_hint}
        read = {name for name, hint in hints.items() if hint.read_only_hint}
        assert lose == {"delete_branch", "run_sql", "undo"}
        assert read == {"list", "describe_schema", "diff", "explain"}
        assert all(hints[name].idempotent_hint for name in {*read, "undo", "delete_branch"})

    story(whole, told)


def test_a_branch_is_worked_on_looked_at_undone_and_deleted(whole: Whole) -> None:
    async def told(tools: Tools) -> None:
        made = await tools("create_branch", source="app", name="work")
        assert (made["parent"], made["expires_at"] is not None) == ("app", True)
        await tools("checkpoint", database="work", name="good", run_id="r1", notes={"a": "b"})
        wrote = await tools(
            "run_sql",
            database="work",
            statement="DELETE FROM t WHERE id > 2; ALTER TABLE t ADD COLUMN n int",
            read_only=False,
        )
        assert wrote["statements"] == ["DELETE 248", "ALTER TABLE"]
        found = await tools("diff", database="app", other="work", rows=1)
        assert [(item["deleted"], item["name"]) for item in found["tables"]] == [(248, "t")]
        assert found["db_schema"][0]["name"] == "t"
        shown = await tools("describe_schema", database="work", like="t")
        [table] = shown["relations"]
        assert [column["name"] for column in table["columns"]] == ["id", "v", "n"]
        assert table["constraints"] == ["t_pkey PRIMARY KEY (id)"]
        done = await tools("undo", database="work")
        assert (done["changed"], done["went_to"]["run_id"]) == (True, "r1")
        assert done["went_to"]["notes"] == {"a": "b"}
        log = (await tools("list", database="work"))["log"]
        assert [item["what"] for item in log[:2]] == ["undo", "checkpoint"]
        assert (await tools("delete_branch", database="work"))["deleted"]
        assert "DATABASE_NOT_FOUND" in await tools.refused("delete_branch", database="work")

    story(whole, told)


def test_long_answers_go_on_at_the_same_moment(whole: Whole) -> None:
    async def told(tools: Tools) -> None:
        asked = {"database": "app", "statement": "SELECT id, v = 'x1' FROM t"}
        first = await tools("run_sql", **asked)
        assert (len(first["rows"]), first["rows"][0], first["more"]) == (100, [1, True], True)
        sql(whole.json("url", "app")["url"], "INSERT INTO t VALUES (1000, 'later')")
        ids = [row[0] for row in first["rows"]]
        answer = first
        while answer["continuation"]:
            answer = await tools("run_sql", **asked, continuation=answer["continuation"])
            assert answer["at_lsn"] == first["at_lsn"]
            ids += [row[0] for row in answer["rows"]]
        assert sorted(ids) == list(range(1, 251))
        other = {"database": "app", "statement": "SELECT 1", "continuation": first["continuation"]}
        assert "INVALID_CONTINUATION" in await tools.refused("run_sql", **other)
        kinds = "SELECT 9007199254740993, 1.5, NULL, '{\"a\": [1]}'::jsonb, true, 'x'::bytea"
        told = await tools("run_sql", database="app", statement=kinds)
        assert told["rows"] == [["9007199254740993", "1.5", None, {"a": [1]}, True, "\\x78"]]
        wide = "SELECT repeat('x', 100000), 1 FROM generate_series(1, 50)"
        cut = await tools("run_sql", database="app", statement=wide)
        assert cut["cut"]
        assert cut["more"]
        assert len(json.dumps(cut)) < 300_000
        sql(whole.json("url", "app")["url"], "DELETE FROM t WHERE id = 1000")

    story(whole, told)


def test_a_point_of_before_a_restore_is_read_there(whole: Whole) -> None:
    url = whole.json("create", "moved")["url"]
    sql(url, "CREATE TABLE t (n int)")
    whole.json("checkpoint", "moved", "first")
    sql(url, "INSERT INTO t SELECT generate_series(1, 150)")
    whole.json("checkpoint", "moved", "second")
    whole.json("restore", "moved", "first")
    sql(url, "INSERT INTO t SELECT generate_series(1000, 3000)")

    async def told(tools: Tools) -> None:
        asked = {"database": "moved", "statement": "SELECT n FROM t ORDER BY n", "at": "second"}
        begun = await tools("run_sql", **asked)
        rest = await tools("run_sql", **asked, continuation=begun["continuation"])
        assert [row[0] for row in begun["rows"] + rest["rows"]] == list(range(1, 151))
        check = "SELECT sum(n) FROM t"
        done = await tools("try", database="moved", at="second", attempts=["SELECT 1"], check=check)
        assert done["attempts"][0]["check"]["rows"] == [[11325]]
        await tools("delete_branch", database=done["attempts"][0]["branch"])
        del asked["at"]
        begun = await tools("run_sql", **asked)
        whole.json("restore", "moved", "second")
        refused = await tools.refused("run_sql", **asked, continuation=begun["continuation"])
        assert "MOVED_MEANWHILE" in refused

    story(whole, told)
    whole.run("rm", "moved")


def test_what_only_reads_cannot_write_whatever_it_says(whole: Whole) -> None:
    async def told(tools: Tools) -> None:
        for text in ("DELETE FROM t", "WITH d AS (DELETE FROM t RETURNING 1) SELECT * FROM d"):
            said = await tools.refused("run_sql", database="app", statement=text)
            assert "SQL_FAILED" in said
            assert "read-only" in said
            assert "Hint:" in said
        off = "SET default_transaction_read_only = off"
        for sly in (
            f"{off}; COMMIT; BEGIN; DELETE FROM t; COMMIT",
            f"DO $$ BEGIN {off}; COMMIT; DELETE FROM t; COMMIT; END $$",
            "DO $$ BEGIN SET LOCAL transaction_read_only = off; DELETE FROM t; END $$",
            "DO $$ BEGIN PERFORM set_config('transaction_read_only', 'off', false);"
            " DELETE FROM t; END $$",
        ):
            assert "SQL_FAILED" in await tools.refused("run_sql", database="app", statement=sly)
        plan = await tools("explain", database="app", statement="DELETE FROM t", analyze=True)
        assert any("actual time" in line for line in plan["plan"])
        await tools("explain", database="app", statement="SELECT 1")
        await tools.client.call_tool(
            "explain", {"database": "app", "statement": "SELECT 1; DELETE FROM t"}
        )
        count = await tools("run_sql", database="app", statement="SELECT count(*) FROM t")
        assert count["rows"] == [[250]]
        assert {item["name"] for item in (await tools("list"))["databases"]} == {"app"}

    story(whole, told)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_person_is_asked_before_something_is_lost(whole: Whole, mode: str) -> None:
    person = Person(says=False)
    write = {"database": "app", "statement": "CREATE TABLE asked ()", "read_only": False}

    async def told(tools: Tools) -> None:
        assert "NOT_AGREED" in await tools.refused("run_sql", **write)
        person.says = None
        assert "NOT_AGREED" in await tools.refused("undo", database="app")
        assert len(person.asked) == 2
        person.says = True
        await tools("checkpoint", database="app", name=f"before-{mode}")
        assert (await tools("run_sql", **write))["statements"] == ["CREATE TABLE"]
        assert (await tools("undo", database="app"))["changed"]
        assert "no branch" in await tools.refused("delete_branch", database="app")
        assert len(person.asked) == 5

    story(whole, told, person=person, mode=mode)


def test_where_nobody_can_be_asked_that_is_said_and_yes_asks_nobody(whole: Whole) -> None:
    write = {"database": "app", "statement": "SELECT 1", "read_only": False}

    async def unasked(tools: Tools) -> None:
        assert "NOBODY_TO_ASK" in await tools.refused("run_sql", **write)

    async def agreed(tools: Tools) -> None:
        assert (await tools("run_sql", **write))["rows"] == [[1]]

    story(whole, unasked)
    story(whole, agreed, "--yes")


def test_several_ways_are_tried_side_by_side(whole: Whole) -> None:
    async def told(tools: Tools) -> None:
        ways = ["DELETE FROM t WHERE id < 10", "SELECT wrong", "UPDATE t SET v = NULL"]
        check = "SELECT count(v) FROM t"
        done = await tools("try", database="app", attempts=ways, check=check, ttl="10m")
        assert [item["succeeded"] for item in done["attempts"]] == [True, False, True]
        assert "SQL_FAILED" in done["attempts"][1]["error"]
        counts = [item["check"] and item["check"]["rows"] for item in done["attempts"]]
        assert counts == [[[241]], None, [[0]]]
        for item in done["attempts"]:
            await tools("delete_branch", database=item["branch"])

    story(whole, told)


def test_no_password_reaches_the_model_unless_it_was_said_so(whole: Whole) -> None:
    password = whole.json("url", "app")["url"].split(":")[2].split("@")[0]

    async def everything(tools: Tools) -> str:
        said = [await tools("list"), await tools("list", database="app")]
        said += [await tools("create_branch", source="app", name="told", ttl="10m")]
        said += [await tools("delete_branch", database="told")]
        failed = [await tools.refused("run_sql", database="app", statement="SELECT 1/0")]
        failed += [await tools.refused("run_sql", database="none", statement="SELECT 1")]
        return json.dumps([said, failed])

    async def silent(tools: Tools) -> None:
        assert password not in await everything(tools)

    async def open_(tools: Tools) -> None:
        assert password in await everything(tools)

    story(whole, silent)
    story(whole, open_, "--with-urls")


def hooked(whole: Whole, command: str, event: str, agent: str) -> dict[str, Any]:
    """What a hook says, called as its tool does."""
    told = {"hook_event_name": event, "agent_id": agent, "agent_type": "x", "cwd": "/"}
    environment = {
        name: text for name, text in whole.environment.items() if "PAGESTORE" not in name
    }
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        input=json.dumps(told),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout or "{}")


def test_an_installed_server_starts_and_a_subagent_has_a_branch(
    whole: Whole, tmp_path: Path
) -> None:
    program = str(Path(sys.executable).with_name("pagestore"))
    options = ("--dir", str(tmp_path), "--database", "app", "--data", str(whole.data))
    subprocess.run([program, "agents", "install", "claude-code", *options], check=True)
    entry = json.loads((tmp_path / ".mcp.json").read_text())["mcpServers"]["pagestore"]

    async def listed() -> list[str]:
        async with mcp.Client(mcp.StdioServerParameters(**entry)) as client:
            return [item["name"] for item in (await Tools(client)("list"))["databases"]]

    settings = json.loads((tmp_path / ".claude/settings.json").read_text())["hooks"]
    begin, end = (
        settings[event][0]["hooks"][0]["command"] for event in ("SubagentStart", "SubagentStop")
    )
    told = hooked(whole, begin, "SubagentStart", "One")["hookSpecificOutput"]
    assert "`agent-one`, a branch of `app`" in told["additionalContext"]
    hooked(whole, begin, "SubagentStart", "One")
    hooked(whole, begin, "SubagentStart", "two")
    assert sorted(asyncio.run(listed())) == ["agent-one", "agent-two", "app"]
    sql(whole.json("url", "agent-two")["url"], "CREATE TABLE made ()")
    assert hooked(whole, end, "SubagentStop", "One") == {}
    assert "agent-two was written to" in hooked(whole, end, "SubagentStop", "two")["systemMessage"]
    assert sorted(asyncio.run(listed())) == ["agent-two", "app"]
    hooked(whole, f"{end} --at-end drop", "SubagentStop", "two")
    hooked(whole, end, "SubagentStop", "never began")
    hooked(whole, end, "SubagentStop", "")
    assert asyncio.run(listed()) == ["app"]
    wrong = whole.run("agents", "install", "codex", "--database", "non", check=False)
    assert wrong.returncode == 3
    nowhere = f"{program} agents hook codex --database app --data {tmp_path}"
    assert hooked(whole, nowhere, "SubagentStart", "x") == {}, "the agent goes on"


@contextlib.contextmanager
def by_http(whole: Whole) -> Iterator[tuple[str, str]]:
    """A server's address, and its token."""
    [port] = free_ports(1)
    command = [sys.executable, *COMMAND, "--data", str(whole.data), "--http", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, env=whole.environment, stderr=subprocess.PIPE) as server:
        try:
            wait_until(lambda: _listens(port), seconds=60)
            token = (whole.data / "tokens/mcp").read_text().strip()
            yield f"http://127.0.0.1:{port}/mcp", token
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_by_http_only_who_has_the_token_is_served(whole: Whole) -> None:
    async def told(url: str, token: str) -> None:
        for shown in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": token}):
            async with httpx2.AsyncClient(headers=shown) as nobody:
                assert (await nobody.post(url, json={})).status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers={**headers, "Host": "evil.example"}) as rebound:
            assert (await rebound.post(url, json={})).status_code == 421
        person = Person(says=True)
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            mcp.Client(
                streamable_http_client(url, http_client=http), elicitation_callback=person
            ) as client,
        ):
            tools = Tools(client)
            listed = await tools("list")
            assert [item["name"] for item in listed["databases"]] == ["app"]
            write = {"database": "app", "statement": "SELECT 1", "read_only": False}
            assert (await tools("run_sql", **write))["rows"] == [[1]]
            assert len(person.asked) == 1

    with by_http(whole) as (url, token):
        assert (whole.data / "tokens/mcp").stat().st_mode & 0o777 == 0o600
        asyncio.run(told(url, token))


def test_other_machines_need_tls(whole: Whole) -> None:
    done = whole.run("mcp", "--http", "0.0.0.0:0", check=False)
    assert (done.returncode, "there is no certificate" in done.stderr) == (4, True)
    assert whole.run("mcp", "--http", "nothing", check=False).returncode == 2


def test_without_the_package_the_way_to_it_is_said(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfound = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'mcp' else found(name, *rest)\n"
    )
    whole.environment["PYTHONPATH"] = str(tmp_path)
    try:
        done = whole.run("mcp", check=False)
    finally:
        del whole.environment["PYTHONPATH"]
    assert done.returncode == 4
    assert "pip install 'pagestore[mcp]'" in done.stderr


def test_a_supervisor_that_was_killed_is_not_missed(whole: Whole) -> None:
    supervisor = whole.installation.running_supervisor()
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)

    async def told(tools: Tools) -> None:
        assert (await tools("list"))["databases"]

    try:
        story(whole, told)
    finally:
        whole.up()


def test_where_nothing_runs_each_tool_says_so(whole: Whole) -> None:
    async def told(tools: Tools) -> None:
        assert "NOT_RUNNING" in await tools.refused("list")

    elsewhere = Whole(whole.data / "nothing", whole.environment)
    story(elsewhere, told)
