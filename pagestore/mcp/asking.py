"""Whether what cannot be had back so easily may be done: asked of the person at the client."""

from __future__ import annotations

from typing import Any

from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, Elicit
from pydantic import BaseModel, Field

from pagestore.errors import FailedPrecondition, NotFound, PagestoreError
from pagestore.mcp.desk import Desk, refusal

_Context = Context[Desk, Any]


class Leave(BaseModel):
    yes: bool = Field(description="Whether it may be done.")


async def to_delete(context: _Context, database: str) -> Leave | Elicit[Leave]:
    return await _asked(context, database, f"Delete {database}, with its checkpoints?")


async def to_undo(context: _Context, database: str) -> Leave | Elicit[Leave]:
    question = (
        f"Undo what was committed to {database} since its last checkpoint? Sessions in a "
        "transaction end. What it is now is kept as an automatic checkpoint."
    )
    return await _asked(context, database, question)


async def to_write(context: _Context, database: str, read_only: bool) -> Leave | Elicit[Leave]:
    if read_only:
        return Leave(yes=True)
    return await _asked(context, database, f"Run SQL that may write on {database} itself?")


async def _asked(context: _Context, name: str, question: str) -> Leave | Elicit[Leave]:
    desk = context.request_context.lifespan_context
    try:
        if desk.yes or await _goes_anyway(desk, name):
            return Leave(yes=True)
    except PagestoreError as error:
        raise refusal(error) from error
    known = context.client_capabilities
    if known is None or known.elicitation is None:
        raise refusal(
            FailedPrecondition(
                "NOBODY_TO_ASK",
                f"This has to be agreed to, and the client cannot ask: {question}",
                "Branches with a ttl need no asking. `pagestore mcp --yes` asks for nothing.",
            )
        )
    return Elicit(question, Leave)


async def _goes_anyway(desk: Desk, name: str) -> bool:
    """A branch that was made for a time; and a name that nobody has is told by the tool itself."""
    try:
        facts = (await (await desk.client()).database(name)).facts
    except NotFound:
        return True
    return facts.expires_at is not None


def agreed(answer: ElicitationResult[Leave]) -> None:
    """
    Raises:
        FailedPrecondition: NOT_AGREED.
    """
    if not (isinstance(answer, AcceptedElicitation) and answer.data.yes):
        raise FailedPrecondition("NOT_AGREED", "Whoever was asked said no. Nothing was done.")
