"""What truth is asked about: SQL of every kind that writes WAL its own way, as data.

Not deterministic, and it need not be: plain Postgres replays the very WAL that came of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from tests.integration.features import FEATURES
from tests.integration.features import run as run_steps
from tests.plain_postgres import PlainPostgres

Step = str | tuple[str, str] | Callable[[PlainPostgres], None]
"""SQL in the database postgres, (database, SQL), or a function."""


@dataclass(frozen=True)
class Workload:
    name: str
    setup: str
    steps: tuple[Step, ...]

    def run(self, cluster: PlainPostgres) -> None:
        for step in self.steps:
            if callable(step):
                step(cluster)
            elif isinstance(step, tuple):
                cluster.sql(step[1], step[0])
            else:
                cluster.sql(step)


def features(cluster: PlainPostgres) -> None:
    """All index methods, TOAST, COPY, rewrites, cursors, large objects, DDL."""
    for half in ("before", "after"):
        for feature in FEATURES:
            run_steps(getattr(feature, half), cluster.connect)


def pgbench(cluster: PlainPostgres) -> None:
    where = ("-h", cluster.root, "-p", cluster.port, "-U", "postgres")
    cluster.tool("pgbench", *where, "-i", "-q", "-s", "1", "postgres")
    cluster.tool("pgbench", *where, "-n", "-c", "4", "-t", "400", "postgres")
    cluster.sql("VACUUM pgbench_accounts")
    cluster.tool("pgbench", *where, "-n", "-N", "-c", "4", "-t", "200", "postgres")


def multixact_storm(cluster: PlainPostgres) -> None:
    """Several lockers of the same rows, with updates, aborts and savepoints among them."""
    with ExitStack() as stack:
        sessions = [stack.enter_context(cluster.connect()) for _ in range(5)]
        for turn in range(40):
            for number, session in enumerate(sessions):
                strength = ("KEY SHARE", "SHARE")[number % 2]
                session.execute("BEGIN; SAVEPOINT a")
                session.execute(
                    f"SELECT id FROM locked WHERE id % 40 = {turn} OR id < 20 FOR {strength}"
                )
                if number % 3 == 0:
                    session.execute("ROLLBACK TO a")
            for number, session in enumerate(sessions):
                session.execute("ROLLBACK" if (number + turn) % 4 == 0 else "COMMIT")
            sessions[0].execute(f"UPDATE locked SET v = v + 1 WHERE id % 40 = {turn}")


def subtransaction_storm(cluster: PlainPostgres) -> None:
    """More subtransactions than a backend keeps in memory, nested and side by side."""
    with cluster.connect() as connection:
        for turn in range(6):
            connection.execute("BEGIN")
            for depth in range(150):
                connection.execute(f"SAVEPOINT s{depth}; INSERT INTO nested VALUES ({depth})")
                if depth % 10 == 9:
                    connection.execute(f"ROLLBACK TO s{depth - 3}")
            connection.execute("ROLLBACK" if turn % 3 == 2 else "COMMIT")


def two_phase(cluster: PlainPostgres) -> None:
    for number in range(60):
        cluster.sql(
            f"BEGIN; INSERT INTO held VALUES ({number}); SAVEPOINT s;"
            f" INSERT INTO held SELECT generate_series(1, {number});"
            f" UPDATE held SET id = id + 1 WHERE id = 7;"
            f" CREATE TABLE made_{number} (id int); PREPARE TRANSACTION 'p{number}'"
            if number % 4 == 0
            else f"BEGIN; INSERT INTO held VALUES ({number}); PREPARE TRANSACTION 'p{number}'"
        )
        if number % 3 == 0:
            cluster.sql(f"COMMIT PREPARED 'p{number}'")
        elif number % 4 in (0, 1):
            cluster.sql(f"ROLLBACK PREPARED 'p{number}'")
        if number == 30:
            cluster.sql("CHECKPOINT")


SUBTRANSACTIONS_IN_SQL = """
DO $$ BEGIN
  FOR i IN 1..1500 LOOP
    BEGIN
      INSERT INTO nested VALUES (i);
      IF i % 3 = 0 THEN RAISE EXCEPTION 'back'; END IF;
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
  END LOOP;
END $$
"""
INDEXED = """
    CREATE EXTENSION bloom;
    CREATE TABLE items (id int PRIMARY KEY, a int, b text, c int[], p point, r int4range)
        WITH (fillfactor = 80, autovacuum_enabled = off);
    CREATE INDEX ON items (a); CREATE INDEX ON items USING hash (b);
    CREATE INDEX ON items USING gin (c); CREATE INDEX ON items USING gist (p, r);
    CREATE INDEX ON items USING spgist (b); CREATE INDEX ON items USING bloom (a, b);
    CREATE INDEX ON items USING brin (id) WITH (pages_per_range = 2, autosummarize = on);
    INSERT INTO items SELECT i, random() * 1000, md5(i::text), ARRAY[i % 50, i % 7],
        point(random(), random()), int4range(i, i + 9) FROM generate_series(1, 4000) i;
"""
RANDOM_UPDATES = """
    UPDATE items SET a = random() * 1000, b = md5(random()::text), p = point(random(), random()),
        c = c || (random() * 99)::int WHERE id = ANY (ARRAY(
            SELECT (random() * 4000)::int FROM generate_series(1, 700)));
    DELETE FROM items WHERE id % 17 = (random() * 16)::int;
"""

WORKLOADS = (
    Workload("features", "", (features,)),
    Workload("pgbench", "", (pgbench,)),
    Workload(
        "copy",
        "CREATE TABLE rows (n int, body text DEFAULT 'filler'); CREATE INDEX ON rows (n)",
        (
            "COPY rows (n) FROM PROGRAM 'seq 1 40000'",
            "BEGIN; CREATE TABLE fresh (n int); COPY fresh FROM PROGRAM 'seq 1 50000'"
            " WITH (FREEZE); COMMIT",
            "BEGIN; TRUNCATE rows; COPY rows (n) FROM PROGRAM 'seq 1 20000' WITH (FREEZE); COMMIT",
            "BEGIN; COPY rows (n) FROM PROGRAM 'seq 1 30000'; ROLLBACK",
            "VACUUM rows",
            "COPY rows (n) FROM PROGRAM 'seq 5 9000'",
        ),
    ),
    Workload(
        "indexed_updates",
        INDEXED,
        (
            RANDOM_UPDATES,
            "VACUUM items",
            RANDOM_UPDATES,
            "VACUUM (FREEZE) items",
            RANDOM_UPDATES,
            "CHECKPOINT",
            RANDOM_UPDATES,
            "VACUUM (INDEX_CLEANUP on) items",
            "SELECT brin_summarize_new_values('items_id_idx')",
            "INSERT INTO items SELECT i, 1, md5(i::text) FROM generate_series(4001, 6000) i",
            "UPDATE items SET b = b || 'x' WHERE id % 3 = 0; REINDEX TABLE items",
        ),
    ),
    Workload(
        "transactions",
        "CREATE TABLE nested (n int); CREATE TABLE held (id int);"
        "CREATE TABLE locked (id int PRIMARY KEY, v int DEFAULT 0);"
        "INSERT INTO locked SELECT generate_series(1, 1200)",
        (
            subtransaction_storm,
            SUBTRANSACTIONS_IN_SQL,
            multixact_storm,
            "VACUUM (FREEZE) locked",
            two_phase,
            multixact_storm,
        ),
    ),
    Workload(
        "space",
        "CREATE TABLE up_down (n int, body text) WITH (autovacuum_enabled = off);"
        "CREATE INDEX ON up_down (n); CREATE UNLOGGED TABLE light (n int)",
        (
            "INSERT INTO up_down SELECT i, repeat('x', 300) FROM generate_series(1, 15000) i",
            "INSERT INTO light SELECT generate_series(1, 500)",
            "DELETE FROM up_down WHERE n > 900",
            "VACUUM up_down",
            "VACUUM (TRUNCATE on) up_down",
            "INSERT INTO up_down SELECT i, repeat('y', 500) FROM generate_series(1, 6000) i",
            "VACUUM (FREEZE) up_down",
            "DELETE FROM up_down WHERE n > 3000",
            "VACUUM up_down",
            "TRUNCATE light",
            "INSERT INTO up_down SELECT i, 'z' FROM generate_series(1, 4000) i",
            "BEGIN; TRUNCATE up_down; INSERT INTO up_down VALUES (1, 'gone'); ROLLBACK",
            "CLUSTER up_down USING up_down_n_idx",
            "VACUUM FULL up_down",
            "BEGIN; CREATE TABLE never AS SELECT generate_series(1, 9000) n; ROLLBACK",
            "CREATE TABLE gone AS SELECT generate_series(1, 9000) n",
            "DROP TABLE gone, light",
            "VACUUM FULL pg_class",
        ),
    ),
    Workload(
        "databases",
        "CREATE TABLE here (n int)",
        (
            "CREATE DATABASE logged",
            ("logged", "CREATE TABLE inside AS SELECT generate_series(1, 5000) n"),
            "CREATE DATABASE copied TEMPLATE logged STRATEGY file_copy",
            ("copied", "UPDATE inside SET n = n + 1 WHERE n % 3 = 0"),
            ("copied", "VACUUM inside"),
            "CREATE DATABASE again TEMPLATE copied STRATEGY wal_log",
            ("again", "DELETE FROM inside WHERE n % 2 = 0"),
            ("again", "VACUUM FULL pg_attribute"),
            "ALTER DATABASE again RENAME TO other",
            "DROP DATABASE logged",
            "CREATE DATABASE logged STRATEGY file_copy",
            "DROP DATABASE other",
            "INSERT INTO here VALUES (1)",
        ),
    ),
)
BY_NAME = {workload.name: workload for workload in WORKLOADS}
