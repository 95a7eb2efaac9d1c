"""Three attempts at one task, each on a branch of its own; the one that is right becomes the
database.

In place of a model there is a list of what one might say. A model gets the error of each attempt,
and says the next.
"""

import sys
from collections.abc import Iterator

import psycopg

import pagestore
from pagestore.sdk import Client

TASK = "Every customer has at most one open order: close the older ones."
SAID_BY_A_MODEL = (
    "UPDATE orders SET state = 'closed'",  # too much
    "UPDATE orders SET closed = true WHERE id < 3",  # no such column
    "UPDATE orders SET state = 'closed' WHERE id NOT IN "
    "(SELECT max(id) FROM orders WHERE state = 'open' GROUP BY customer)",
)


def attempts(task: str) -> Iterator[str]:
    """What a model says to a task, one after the other."""
    yield from SAID_BY_A_MODEL


def fault(session: psycopg.Connection) -> str:
    """What is wrong with a database; empty for nothing."""
    counts = session.execute(
        "SELECT customer, count(*) FILTER (WHERE state = 'open') FROM orders GROUP BY customer"
    ).fetchall()
    wrong = [customer for customer, open_orders in counts if open_orders != 1]
    return f"customers {wrong} have not one open order each" if wrong else ""


def solve(client: Client, name: str) -> str:
    """The branch that became the database; empty where none was right."""
    client.checkpoint(name, "before-the-loop", notes={"task": TASK}, run_id="loop-1")
    for number, sql in enumerate(attempts(TASK), 1):
        with client.branch(name, f"{name}-attempt-{number}", ttl="1h") as branch:
            try:
                with branch.psycopg(autocommit=True) as session:
                    session.execute(sql)
                    found = fault(session)
            except psycopg.Error as error:
                found = str(error).splitlines()[0]
            print(f"attempt {number}: {found or 'right'}")
            if not found:
                client.promote(name, branch.name)
                return branch.name
    return ""


if __name__ == "__main__":
    with pagestore.connect() as client:
        print(solve(client, sys.argv[1]) or "none was right; the database is as it was")
