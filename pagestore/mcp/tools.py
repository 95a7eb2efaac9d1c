"""The ten tools. Their docstrings are what a model reads."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Any

from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context, Resolve
from pydantic import Field

from pagestore.client.urls import past_url
from pagestore.errors import FailedPrecondition, PagestoreError
from pagestore.mcp import answers, facts
from pagestore.mcp.asking import Leave, agreed, to_delete, to_undo, to_write
from pagestore.mcp.desk import Continuation, Desk, told
from pagestore.mcp.reading import read, scratch
from pagestore.mcp.schema import relation_of, relations_like
from pagestore.sdk import sql
from pagestore.sdk.attempts import free_names
from pagestore.sdk.client import AsyncClient
from pagestore.sdk.difference import fields_of

MOST_ATTEMPTS = 8
PAGE = 100

_Context = Context[Desk, Any]
Name = Annotated[str, Field(description="A database's name, as `list` has it.")]
At = Annotated[
    str | None,
    Field(description="A checkpoint, an LSN or a time ('10 minutes ago'); now by default."),
]
Rows = Annotated[int, Field(ge=1, le=sql.MOST_ROWS, description="How many are told at most.")]
Seconds = Annotated[float, Field(gt=0, le=600, description="After which Postgres gives up.")]
Goes_on = Annotated[
    str | None, Field(description="From an answer to the same call: what comes after it.")
]
Sql = Annotated[
    str, Field(description="With read_only=false several statements are one transaction.")
]


def _desk(context: _Context) -> Desk:
    return context.request_context.lifespan_context


@told
async def list_databases(
    context: _Context,
    database: Annotated[
        str | None, Field(description="Only this one, with its checkpoints and its log.")
    ] = None,
    continuation: Goes_on = None,
) -> answers.Listing:
    """List databases and branches; of one database also its checkpoints and what happened to it."""
    desk = _desk(context)
    client = await desk.client()
    of = ("list", database)
    skip = Continuation.read(continuation, of).skip if continuation else 0
    if database is None:
        everything = await client.databases()
        shown = [facts.database(item, item.url) for item in everything[skip : skip + PAGE]]
        rest = skip + PAGE if len(everything) > skip + PAGE else None
        log = []
    else:
        one = await client.database(database)
        shown = [facts.database(one.facts, desk.url(one))]
        entries = await client.log(database)
        log = [facts.moment(entry) for entry in entries[skip : skip + PAGE]]
        rest = skip + PAGE if len(entries) > skip + PAGE else None
    following = str(Continuation(of, rest)) if rest is not None else None
    return answers.Listing(databases=shown, log=log, continuation=following)


@told
async def create_branch(
    context: _Context,
    source: Name,
    name: Annotated[str | None, Field(description="Made up by default.")] = None,
    at: At = None,
    ttl: Annotated[
        str | None, Field(description="It is removed by itself after so long; null: never.")
    ] = "1d",
) -> answers.Database:
    """Branch a database, in milliseconds, whatever its size: a copy to work on freely.

    What is done on a branch is never seen by its source. A branch with a ttl can be written to,
    undone and deleted without asking anybody.
    """
    desk = _desk(context)
    made = await (await desk.client()).branch(source, name, at=at, ttl=ttl)
    return facts.database(made.facts, desk.url(made))


@told
async def delete_branch(
    context: _Context,
    database: Name,
    leave: Annotated[ElicitationResult[Leave], Resolve(to_delete)],
) -> answers.Deleted:
    """Delete a branch, with its checkpoints. A database that is no branch is refused."""
    agreed(leave)
    client = await _desk(context).client()
    if (await client.database(database)).facts.parent is None:
        raise FailedPrecondition(
            "NO_PARENT",
            f"{database} is no branch: what is in it is nowhere else.",
            f"Whoever means it types `pagestore rm {database}`.",
        )
    return answers.Deleted(deleted=await client.remove(database))


@told
async def run_sql(
    context: _Context,
    database: Name,
    statement: Sql,
    leave: Annotated[ElicitationResult[Leave], Resolve(to_write)],
    read_only: Annotated[
        bool,
        Field(description="On a read-only server at one moment; false: on the database itself."),
    ] = True,
    at: At = None,
    rows: Rows = 100,
    seconds: Seconds = 30.0,
    continuation: Goes_on = None,
) -> answers.Rows:
    """Run SQL. By default it only reads, as of now or of a point of the past.

    To write, say read_only=false; on a branch with a ttl that asks nobody.
    """
    agreed(leave)
    desk = _desk(context)
    bounds = sql.Bounds(rows)
    if read_only:
        ran, lsn, rest = await read(desk, database, statement, at, continuation, bounds, seconds)
        return facts.rows(ran, lsn, rest)
    if at is not None or continuation is not None:
        raise FailedPrecondition(
            "PAST_IS_FIXED",
            "The past is only read, and what writes is not carried out twice.",
            "Leave out at and continuation, or say read_only=true.",
        )
    url = (await (await desk.client()).database(database)).url
    ran = await sql.run(url, statement, seconds=seconds, bounds=sql.Bounds(rows))
    return facts.rows(ran, None, None)


@told
async def describe_schema(
    context: _Context,
    database: Name,
    like: Annotated[str, Field(description="Only relations named LIKE this.")] = "%",
    at: At = None,
    continuation: Goes_on = None,
) -> answers.Schema:
    """Tables and views with columns, constraints and indexes; as of now, or of the past."""
    ran, lsn, rest = await read(
        _desk(context),
        database,
        relations_like(like),
        at,
        continuation,
        sql.Bounds(PAGE),
        seconds=60.0,
    )
    found = [relation_of(row) for row in ran.rows]
    return answers.Schema(relations=found, at_lsn=lsn, continuation=rest)


@told
async def diff(
    context: _Context,
    database: Name,
    other: Annotated[str, Field(description="What it is compared with; either may be NAME@POINT.")],
    rows: Annotated[int, Field(ge=0, le=100, description="Of a table, told one by one.")] = 10,
) -> answers.Difference:
    """What `other` has that `database` has not, and the other way about: schema and rows.

    Quick on branches of each other: only what was changed since they parted is read.
    """
    desk = _desk(context)
    found = fields_of(await (await desk.client()).diff(database, other, rows))
    room = facts.Room(sql.MOST_BYTES)
    schema, tables = room.of(found["schema"]), room.of(found["tables"])
    return answers.Difference(
        differs=found["differs"],
        db_schema=schema,
        tables=tables,
        only_in_database=found["only_in_name"],
        only_in_other=found["only_in_other"],
        left_out=room.left_out,
    )


@told
async def checkpoint(
    context: _Context,
    database: Name,
    name: Annotated[str, Field(description="The checkpoint's.")],
    git_commit: Annotated[str, Field(description="Of the code that belongs to it.")] = "",
    run_id: Annotated[str, Field(description="Of the run that makes it.")] = "",
    notes: Annotated[
        dict[str, str] | None, Field(description="Whatever has to be known of it, by key.")
    ] = None,
) -> answers.Checkpoint:
    """Name the state of now, to come back to it by `undo`, or to branch there."""
    client = await _desk(context).client()
    made = await client.checkpoint(database, name, git_commit, run_id=run_id, notes=notes)
    return facts.checkpoint(made)


@told
async def undo(
    context: _Context,
    database: Name,
    leave: Annotated[ElicitationResult[Leave], Resolve(to_undo)],
    to: Annotated[
        str, Field(description="The checkpoint to be at afterwards; the last one by default.")
    ] = "",
) -> answers.Moved:
    """Undo what was committed since the last checkpoint. To do it twice is harmless.

    It never passes a checkpoint. What the database was is kept as an automatic checkpoint.
    """
    agreed(leave)
    done = await (await _desk(context).client()).undo(database, to=to)
    return facts.moved(done)


@told
async def attempt(
    context: _Context,
    database: Name,
    attempts: Annotated[
        list[str],
        Field(min_length=1, max_length=MOST_ATTEMPTS, description="SQL, each on its own branch."),
    ],
    check: Annotated[
        str | None, Field(description="A query that is asked on each branch afterwards.")
    ] = None,
    at: At = None,
    ttl: Annotated[str, Field(description="The branches go by themselves after so long.")] = "1d",
    seconds: Seconds = 60.0,
) -> answers.Attempts:
    """Try several ways side by side: each SQL on a branch of its own, all from one point.

    The branches stay until their ttl is over: `diff` shows what each did, and a person makes one of
    them the database by `pagestore promote`.
    """
    client = await _desk(context).client()
    lsn, point, _ = await facts.place(client, database, at)
    taken = [item.name for item in await client.databases()]
    names = free_names("try", len(attempts), taken)
    made = await asyncio.gather(
        *(
            _attempt(client, database, point, name, ttl, text, check, seconds)
            for name, text in zip(names, attempts, strict=True)
        )
    )
    return answers.Attempts(at_lsn=lsn, attempts=made)


async def _attempt(
    client: AsyncClient,
    source: str,
    point: str,
    name: str,
    ttl: str,
    text: str,
    check: str | None,
    seconds: float,
) -> answers.Attempt:
    branch = await client.branch(source, name, at=point, ttl=ttl)
    begun = time.monotonic()
    statements: list[str] = []
    checked, failure = None, None
    try:
        bounds = sql.Bounds(1)
        statements = (await sql.run(branch.url, text, seconds=seconds, bounds=bounds)).statements
        if check is not None:
            ran = await sql.run(branch.url, check, seconds=seconds, bounds=sql.Bounds(20))
            checked = facts.rows(ran, None, None)
    except PagestoreError as error:
        failure = f"{error.reason}: {error.message}"
    return answers.Attempt(
        branch=name,
        succeeded=failure is None,
        seconds=round(time.monotonic() - begun, 3),
        statements=statements,
        error=failure,
        check=checked,
    )


@told
async def explain(
    context: _Context,
    database: Name,
    statement: Annotated[str, Field(description="One statement.")],
    analyze: Annotated[
        bool, Field(description="Carry it out, on a branch that is thrown away, and measure.")
    ] = False,
    at: At = None,
    seconds: Seconds = 60.0,
) -> answers.Plan:
    """The plan of a statement; with analyze also what it took. The database is not touched."""
    desk, bounds = _desk(context), sql.Bounds(sql.MOST_ROWS)
    if analyze:
        async with scratch(desk, database, at) as branch:
            text = f"EXPLAIN (ANALYZE, BUFFERS) {statement}"
            ran = await sql.run(branch.url, text, seconds=seconds, bounds=bounds)
    else:
        client = await desk.client()
        point = (await facts.place(client, database, at)).point
        url = past_url((await client.database(database)).url, point)
        text = f"EXPLAIN {statement}"
        ran = await sql.run(url, text, seconds=seconds, bounds=bounds, read_only=True)
    plan = [row[0] if isinstance(row[0], str) else json.dumps(row[0]) for row in ran.rows]
    return answers.Plan(plan=plan, carried_out=analyze, more=ran.more)
