"""A web application whose database sleeps when nobody asks, and wakes with the next request.

There is nothing of that in it: it opens a connection for a request, as it would to any Postgres. (A
pool does as well: idle sessions outlive the sleep.)
"""

import os

import psycopg
from fastapi import FastAPI

app = FastAPI()
URL = os.environ["DATABASE_URL"]


@app.get("/visits")
def visits() -> dict[str, int]:
    """Counts itself."""
    with psycopg.connect(URL) as session:
        session.execute("CREATE TABLE IF NOT EXISTS visits (at timestamptz DEFAULT now())")
        session.execute("INSERT INTO visits DEFAULT VALUES")
        count = session.execute("SELECT count(*) FROM visits").fetchone()
    assert count is not None
    return {"visits": count[0]}
