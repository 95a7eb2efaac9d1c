"""What tools answer; each is a JSON schema, too."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

Value = None | bool | int | float | str | list[Any] | dict[str, Any]
"""Of a row, as JSON has it."""


class Database(BaseModel):
    name: str
    parent: str | None = Field(description="The database that it was branched from.")
    lsn: str = Field(description="Where it stands.")
    state: str = Field(description="stopped, starting, running, stopping or failed.")
    postgres: int
    own_bytes: int
    created_at: str
    expires_at: str | None = Field(description="When it is removed by itself.")
    url: str = Field(description="Where programs connect; the password may be left out.")


class Moment(BaseModel):
    """Something in a database's past."""

    what: str = Field(description="checkpoint, or a verb such as branch, restore, undo.")
    name: str | None = Field(description="A checkpoint's.")
    lsn: str
    at: str
    automatic: bool = False
    git_commit: str | None = None
    dirty_patch: str | None = None
    run_id: str | None = None
    notes: dict[str, str] = {}
    expires_at: str | None = Field(None, description="When it is forgotten by itself.")
    detail: str = ""


class Listing(BaseModel):
    databases: list[Database]
    log: list[Moment] = Field(description="Newest first, where one database was asked for.")
    continuation: str | None = Field(description="Say it in the same call to go on.")


class Deleted(BaseModel):
    deleted: bool


class Rows(BaseModel):
    columns: list[str]
    rows: list[list[Value]] = Field(description="Of the last statement that has any.")
    statements: list[str] = Field(description="What each statement said, such as INSERT 0 3.")
    at_lsn: str | None = Field(description="Where it was read; None: on the database itself.")
    more: bool = Field(description="There are more rows than these.")
    cut: bool = Field(description="Values were longer than can be told, and end in an ellipsis.")
    continuation: str | None = Field(description="Say it in the same call to go on.")


class Relation(BaseModel):
    schema_name: str
    name: str
    kind: str
    rows_estimated: int
    comment: str | None
    columns: list[dict[str, Any]]
    constraints: list[str]
    indexes: list[str]


class Schema(BaseModel):
    relations: list[Relation]
    at_lsn: str
    continuation: str | None = Field(description="Say it in the same call to go on.")


class Difference(BaseModel):
    differs: bool
    db_schema: list[dict[str, Any]] = Field(description="Objects, with their DDL before and after.")
    tables: list[dict[str, Any]] = Field(
        description="Rows inserted, updated, deleted; some of them."
    )
    only_in_database: list[str]
    only_in_other: list[str]
    left_out: int = Field(description="Schema objects and tables for which there was no room.")


class Checkpoint(BaseModel):
    name: str
    lsn: str
    created_at: str
    automatic: bool = Field(description="Made by a move, to keep what was left.")
    note: str | None = Field(description="Of an automatic one, what made it.")
    git_commit: str | None
    dirty_patch: str | None
    run_id: str | None
    notes: dict[str, str]
    expires_at: str | None = Field(description="When it is forgotten by itself.")


class Moved(BaseModel):
    changed: bool
    summary: str
    kept: str | None = Field(description="The checkpoint by which one comes back.")
    went_to: Checkpoint | None = Field(description="What else has to go back with it.")


class Attempt(BaseModel):
    branch: str
    succeeded: bool
    seconds: float
    statements: list[str]
    error: str | None
    check: Rows | None = Field(description="What the check said after it.")


class Attempts(BaseModel):
    at_lsn: str = Field(description="Where all branches left the database.")
    attempts: list[Attempt]


class Plan(BaseModel):
    plan: list[str]
    carried_out: bool = Field(description="On a branch that is gone again.")
    more: bool
