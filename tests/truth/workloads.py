"""What the WAL of a history comes from: workloads that each write WAL their own way, as data.

Not deterministic, and it need not be: plain Postgres replays the very WAL that came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import tests.integration
from tests.integration import ingest_workload
from tests.integration.features import FEATURES
from tests.integration.features import run as run_steps
from tests.plain_postgres import PlainPostgres
from tests.truth import statements

Step = str | Sequence[str] | Callable[[PlainPostgres], None]
"""SQL in the database postgres, several statements of one session, or a function."""


@dataclass(frozen=True)
class Workload:
    name: str
    setup: Step
    steps: tuple[Step, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    images: str = "all"
    """What wal_consistency_checking gives images to check; nothing where they are gigabytes."""

    def run(self, cluster: PlainPostgres) -> None:
        for step in self.steps:
            run_step(cluster, step)


def run_step(cluster: PlainPostgres, step: Step, dbname: str = "postgres") -> None:
    if callable(step):
        step(cluster)
        return
    script = step if isinstance(step, str) else ";\n".join(step)
    cluster.tool(
        *("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-v", f"copy_file={cluster.root}/copy"),
        *("-h", cluster.root, "-p", cluster.port, "-U", "postgres", "-o", "/dev/null"),
        *("-f", "-", dbname),
        input=script + ";\n",
    )


def within(dbname: str, *script: str) -> Step:
    """Statements in another database."""
    return lambda cluster: run_step(cluster, script, dbname)


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


def multixact_march(cluster: PlainPostgres) -> None:
    """More multixacts than one segment of offsets holds, with members for several."""
    cluster.sql("CREATE TABLE crowd (id int) WITH (autovacuum_enabled = off)")
    cluster.sql("INSERT INTO crowd SELECT generate_series(1, 12000)")
    with cluster.connect() as one, cluster.connect() as two:
        for session in (one, two):
            session.execute("BEGIN")
        for turn in range(3):
            for session in (one, two):
                session.execute(f"SAVEPOINT a{turn}")
                session.execute("SELECT count(*) FROM (SELECT id FROM crowd FOR KEY SHARE) s")
        for session in (one, two):
            session.execute("COMMIT")


def freeze_everywhere(cluster: PlainPostgres) -> None:
    """The oldest transaction of each database moves on, and the oldest segments go."""
    cluster.sql("UPDATE pg_database SET datallowconn = true")
    for (name,) in cluster.sql("SELECT datname FROM pg_database"):
        run_step(cluster, statements.FREEZE, name)
    cluster.sql("UPDATE pg_database SET datallowconn = false WHERE datname = 'template0'")
    assert cluster.sql("SELECT count(*) FROM pg_ls_dir('pg_xact') f WHERE f = '0000'") == [(0,)]


# Where an insert removes killed entries of a GiST leaf, Postgres's redo of that DELETE sets a flag
# that the server did not set: plain Postgres calls its own page inconsistent, and ends.
ALL_BUT_GIST = "heap2, heap, btree, hash, gin, sequence, spgist, brin, generic"

WORKLOADS = (
    Workload("features", "", (features,), images=""),
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
        statements.INDEXED,
        (
            statements.RANDOM_UPDATES,
            "VACUUM items",
            statements.RANDOM_UPDATES,
            "VACUUM (FREEZE) items",
            statements.RANDOM_UPDATES,
            "CHECKPOINT",
            statements.RANDOM_UPDATES,
            "VACUUM (INDEX_CLEANUP on) items",
            "SELECT brin_summarize_new_values('items_id_idx')",
            "INSERT INTO items SELECT i, 1, md5(i::text) FROM generate_series(4001, 6000) i",
            "UPDATE items SET b = b || 'x' WHERE id % 3 = 0; REINDEX TABLE items",
        ),
    ),
    Workload("btree", statements.BTREE_SETUP, (statements.BTREE,)),
    Workload(
        "methods",
        statements.METHODS_SETUP,
        tuple(
            [statement.format(name) for name in statements.METHODS]
            for statement in statements.METHOD_CHURN
        ),
    ),
    Workload(
        "rare_records",
        "",
        ((Path(tests.integration.__path__[0]) / "redo_workload.sql").read_text(),),
        images=ALL_BUT_GIST,
    ),
    Workload("every_manager", "", (ingest_workload.run,), {"max_prepared_transactions": 100}),
    Workload("ddl", "", (Path(__file__).with_name("ddl.sql").read_text(),)),
    Workload("rewrites", statements.REWRITES_SETUP, (statements.REWRITES,)),
    Workload(
        "logged",
        statements.LOGGED_SETUP,
        (statements.LOGGED,),
        {"track_commit_timestamp": "on"},
    ),
    Workload(
        "transactions",
        "CREATE TABLE nested (n int); CREATE TABLE held (id int);"
        "CREATE TABLE locked (id int PRIMARY KEY, v int DEFAULT 0);"
        "INSERT INTO locked SELECT generate_series(1, 1200)",
        (
            subtransaction_storm,
            statements.SUBTRANSACTIONS_IN_SQL,
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
            within("logged", "CREATE TABLE inside AS SELECT generate_series(1, 5000) n"),
            "CREATE DATABASE copied TEMPLATE logged STRATEGY file_copy",
            within("copied", "UPDATE inside SET n = n + 1 WHERE n % 3 = 0", "VACUUM inside"),
            "CREATE DATABASE again TEMPLATE copied STRATEGY wal_log",
            within("again", "DELETE FROM inside WHERE n % 2 = 0", "VACUUM FULL pg_attribute"),
            "ALTER DATABASE again RENAME TO other",
            "DROP DATABASE logged",
            "CREATE DATABASE logged STRATEGY file_copy",
            "DROP DATABASE other",
            "INSERT INTO here VALUES (1)",
        ),
    ),
    Workload("tablespaces", statements.TABLESPACES_SETUP, (statements.TABLESPACES,)),
    Workload("moved_databases", statements.MOVED_SETUP, (statements.MOVED,)),
    Workload(
        "march",
        "",
        (statements.MARCH, multixact_march, freeze_everywhere, statements.LOGGED_SETUP),
        {"track_commit_timestamp": "on"},
        images="",
    ),
)
BY_NAME = {workload.name: workload for workload in WORKLOADS}
