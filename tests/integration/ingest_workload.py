"""A workload that makes every resource manager of Postgres 15 write WAL."""

from __future__ import annotations

from tests.plain_postgres import PlainPostgres

TABLES = """
CREATE TABLE t (a int PRIMARY KEY, b text, c int[], p point, r int4range);
INSERT INTO t SELECT i, repeat(md5(i::text), 1 + i % 5), ARRAY[i % 10, i % 7],
    point(i % 100, i % 37), int4range(i, i + 5) FROM generate_series(1, 6000) i;
CREATE INDEX t_hash ON t USING hash (b);
CREATE INDEX t_gin ON t USING gin (c);
CREATE INDEX t_gist ON t USING gist (p);
CREATE INDEX t_spgist ON t USING spgist (p);
CREATE INDEX t_spgist_range ON t USING spgist (r);
CREATE INDEX t_brin ON t USING brin (a) WITH (pages_per_range = 4);
CREATE INDEX t_brin_auto ON t USING brin (a) WITH (pages_per_range = 2, autosummarize = on);
INSERT INTO t SELECT i, repeat(md5(i::text), 1 + i % 5), ARRAY[i % 10, i % 7],
    point(i % 100, i % 37), int4range(i, i + 5) FROM generate_series(6001, 9000) i;
UPDATE t SET b = b || 'x' WHERE a % 5 = 0;
DELETE FROM t WHERE a % 9 = 0;
CREATE SEQUENCE s;
SELECT count(nextval('s')) FROM generate_series(1, 100);
CREATE TABLE big (id int, filler text);
CREATE INDEX big_id ON big (id);
INSERT INTO big SELECT i, repeat('x', 700) FROM generate_series(1, 6000) i;
CREATE TABLE toasted AS SELECT i, string_agg(md5((i * j)::text), '') AS x
    FROM generate_series(1, 20) i, generate_series(1, 700) j GROUP BY i;
CREATE UNLOGGED TABLE u (a int PRIMARY KEY);
INSERT INTO u SELECT generate_series(1, 500);
SELECT lo_from_bytea(0, repeat('large object', 5000)::bytea);
SELECT pg_logical_emit_message(false, 'prefix', 'content');
SELECT pg_create_restore_point('here');
"""

SPACE = """
VACUUM (FREEZE) t;
VACUUM big;
DELETE FROM big WHERE id > 2500;
VACUUM big;
UPDATE big SET filler = 'y' WHERE id % 50 = 0;
INSERT INTO big SELECT i, repeat('z', 700) FROM generate_series(9000, 11000) i;
VACUUM big;
DELETE FROM big WHERE id % 3 = 0;
SELECT count(*) FROM big;
UPDATE t SET b = 'short' WHERE a % 2 = 0;
VACUUM t;
SELECT brin_summarize_new_values('t_brin');
SELECT brin_desummarize_range('t_brin', 0);
SELECT gin_clean_pending_list('t_gin');
DROP INDEX t_spgist;
TRUNCATE toasted;
CLUSTER big USING big_id;
VACUUM FULL t;
VACUUM FULL pg_class;
CREATE TABLE gone AS SELECT generate_series(1, 3000) x;
DROP TABLE gone;
COPY big TO '/dev/null';
"""


def run(cluster: PlainPostgres) -> None:
    """Wants max_prepared_transactions > 0; leaves one prepared transaction open."""
    run_tables(cluster)
    _transactions(cluster)
    _multixacts(cluster)
    _databases(cluster)
    _origins(cluster)
    cluster.sql("SELECT pg_switch_wal()")
    cluster.sql("CHECKPOINT")
    cluster.sql("SELECT txid_current() FROM generate_series(1, 3)")


def run_tables(cluster: PlainPostgres) -> None:
    """The part about relations: every access method, growth, vacuum, truncation."""
    with cluster.connect() as connection:
        for statement in filter(str.strip, (TABLES + SPACE).split(";\n")):
            connection.execute(statement)


def _transactions(cluster: PlainPostgres) -> None:
    with cluster.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE aborted AS SELECT generate_series(1, 2000) x")
        connection.execute("ROLLBACK")
        connection.execute("CREATE TABLE sub (x int)")
        connection.execute(
            "DO $$ BEGIN FOR i IN 1..150 LOOP BEGIN INSERT INTO sub VALUES (i); "
            "IF i % 7 = 0 THEN RAISE 'x'; END IF; EXCEPTION WHEN OTHERS THEN NULL; END; "
            "END LOOP; END $$"
        )
        # More than a page of pg_xact holds, in one commit record.
        connection.execute(
            "DO $$ BEGIN FOR i IN 1..34000 LOOP BEGIN INSERT INTO sub VALUES (i); "
            "EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$"
        )
        for gid, ending in (("kept", None), ("done", "COMMIT"), ("undone", "ROLLBACK")):
            connection.execute("BEGIN")
            connection.execute(f"CREATE TABLE prepared_{gid} (x int)")
            connection.execute("SAVEPOINT a")
            connection.execute(f"INSERT INTO sub VALUES (1000 + {len(gid)})")
            connection.execute(f"PREPARE TRANSACTION '{gid}'")
            if ending:
                connection.execute(f"{ending} PREPARED '{gid}'")


def _multixacts(cluster: PlainPostgres) -> None:
    """Two sessions lock the same rows, many times: multixacts with their members."""
    cluster.sql("CREATE TABLE m (a int PRIMARY KEY)")
    cluster.sql("INSERT INTO m SELECT generate_series(1, 900)")
    cluster.sql("VACUUM (FREEZE) m")
    with cluster.connect() as one, cluster.connect() as two:
        for session in (one, two):
            session.execute("BEGIN")
        for _ in range(3):
            for session in (one, two):
                session.execute("SAVEPOINT a")
                session.execute("SELECT * FROM m FOR KEY SHARE")
        for session in (one, two):
            session.execute("COMMIT")


def _databases(cluster: PlainPostgres) -> None:
    cluster.sql("CREATE DATABASE logged STRATEGY wal_log")
    cluster.sql("CREATE DATABASE copied STRATEGY file_copy")
    cluster.sql("CREATE TABLE here AS SELECT 1 AS x", "logged")
    cluster.sql("CREATE TABLE here AS SELECT 1 AS x", "copied")
    cluster.sql("DROP DATABASE copied")
    cluster.sql("CREATE DATABASE copied TEMPLATE logged STRATEGY file_copy")
    cluster.sql("VACUUM FULL pg_class", "copied")


def _origins(cluster: PlainPostgres) -> None:
    cluster.sql("SELECT pg_replication_origin_create('gone')")
    cluster.sql("SELECT pg_replication_origin_create('o')")
    cluster.sql("SELECT pg_replication_origin_advance('gone', '0/77')")
    cluster.sql("SELECT pg_replication_origin_drop('gone')")
    with cluster.connect() as connection:
        connection.execute("SELECT pg_replication_origin_session_setup('o')")
        connection.execute("BEGIN")
        connection.execute(
            "SELECT pg_replication_origin_xact_setup('0/ABCDEF', '2024-01-02 03:04:05Z')"
        )
        connection.execute("INSERT INTO sub VALUES (1)")
        connection.execute("COMMIT")
