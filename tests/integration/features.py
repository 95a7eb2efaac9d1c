"""What SQL can do to storage, each in its own way: the statements, and the questions after.

A feature runs in two halves. Between them a branch is taken, so ``before`` may leave things
half-done (prepared transactions, tables half loaded). ``checks`` are asked of plain Postgres
too, which ran the same halves: its answers are the truth. Statements must be deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

Connect = Callable[[], psycopg.Connection[Any]]
Step = str | Callable[[Connect], None]


@dataclass(frozen=True)
class Feature:
    name: str
    before: list[Step]
    after: list[Step]
    checks: list[str]
    settings: dict[str, str] = field(default_factory=dict)


def run(steps: list[Step], connect: Connect) -> None:
    for step in steps:
        if callable(step):
            step(connect)
        else:
            with connect() as connection:
                connection.execute(step)


def answers(feature: Feature, connect: Connect) -> list[list[tuple[Any, ...]]]:
    with connect() as connection:
        for name, value in feature.settings.items():
            connection.execute(f"SET {name} = {value}")
        return [connection.execute(check).fetchall() for check in feature.checks]


def _access_method(method: str, table: str, using: str, probes: list[str]) -> Feature:
    """Rows, an index built over them, then changes through the index."""
    return Feature(
        f"index_{method}",
        before=[
            "CREATE EXTENSION IF NOT EXISTS bloom",
            f"CREATE TABLE {table} (id int PRIMARY KEY, n int, t text, p point, a int[],"
            " r int4range)",
            f"INSERT INTO {table} SELECT i, i % 1000, md5(i::text), point(i % 317, i % 211),"
            f" ARRAY[i % 50, i % 7], int4range(i, i + i % 30 + 1) FROM generate_series(1, 15000) i",
            f"CREATE INDEX {table}_x ON {table} USING {using}",
            f"DELETE FROM {table} WHERE id % 5 = 0",
        ],
        after=[
            f"VACUUM {table}",
            f"INSERT INTO {table} SELECT i, i % 900, md5(i::text), point(i % 301, i % 199),"
            f" ARRAY[i % 40, i % 9], int4range(i, i + i % 20 + 1)"
            f" FROM generate_series(20001, 26000) i",
            f"UPDATE {table} SET n = n + 1, t = t || 'x', p = point(n, n), a = a || n"
            f" WHERE id % 11 = 0",
            f"VACUUM {table}",
        ],
        checks=[
            *probes,
            f"SELECT count(*), sum(n), md5(string_agg(t, '' ORDER BY id)) FROM {table}",
        ],
        settings={"enable_seqscan": "off"},
    )


def _multixacts(connect: Connect) -> None:
    for round_number in range(20):
        with connect() as one, connect() as two, connect() as three:
            for connection in (one, two, three):
                connection.execute("BEGIN")
            low = round_number * 5
            one.execute(f"SELECT * FROM mx WHERE id BETWEEN {low} AND {low + 9} FOR KEY SHARE")
            two.execute(f"SELECT * FROM mx WHERE id BETWEEN {low} AND {low + 9} FOR SHARE")
            three.execute(f"SELECT * FROM mx WHERE id BETWEEN {low} AND {low + 9} FOR KEY SHARE")
            one.execute("COMMIT")
            two.execute("COMMIT")
            three.execute(f"UPDATE mx SET v = v + 1 WHERE id = {low}")
            three.execute("COMMIT")


def _cursor_over_evicted_pages(connect: Connect) -> None:
    """A cursor sees what its snapshot saw, though its pages were evicted and changed."""
    with connect() as connection:
        connection.execute("BEGIN")
        connection.execute("UPDATE cur SET v = v + 1000 WHERE id <= 2000")
        connection.execute("DECLARE c CURSOR FOR SELECT id, v FROM cur ORDER BY id")
        first = connection.execute("FETCH 10 FROM c").fetchall()
        connection.execute("UPDATE cur SET v = -1")
        connection.execute("SELECT count(*), sum(length(pad)) FROM cur_ballast")
        rest = connection.execute("FETCH ALL FROM c").fetchall()
        connection.execute("ROLLBACK")
    seen = dict(first + rest)
    assert len(seen) == 20000
    assert all(v == id_ + (1000 if id_ <= 2000 else 0) for id_, v in seen.items())


def _insert_from_itself(connect: Connect) -> None:
    """INSERT … SELECT from the same table must not see its own rows (combo cids)."""
    with connect() as connection:
        connection.execute("BEGIN")
        for _ in range(4):
            connection.execute("INSERT INTO selfie SELECT id + 1000000, v FROM selfie")
        connection.execute("COMMIT")


def _temporary_tables(connect: Connect) -> None:
    with connect() as connection:
        connection.execute("CREATE TEMP TABLE tmp AS SELECT i FROM generate_series(1, 50000) i")
        connection.execute("CREATE INDEX ON tmp (i)")
        connection.execute("DELETE FROM tmp WHERE i % 2 = 0")
        row = connection.execute("SELECT count(*), sum(i) FROM tmp").fetchone()
        assert row == (25000, 625000000)
        connection.execute("INSERT INTO from_temp SELECT sum(i) FROM tmp")


SUBTRANSACTIONS = """
DO $$
BEGIN
  FOR i IN 1..300 LOOP
    BEGIN
      INSERT INTO sub VALUES (i, 'in');
      IF i % 3 = 0 THEN RAISE EXCEPTION 'back'; END IF;
    EXCEPTION WHEN raise_exception THEN
      INSERT INTO sub VALUES (i, 'caught');
    END;
  END LOOP;
END $$
"""

FEATURES = [
    _access_method(
        "btree",
        "ix_btree",
        "btree (t, n)",
        ["SELECT count(*), min(t), max(t) FROM ix_btree WHERE t BETWEEN '4' AND 'a'"],
    ),
    _access_method(
        "hash",
        "ix_hash",
        "hash (t)",
        ["SELECT id FROM ix_hash WHERE t = md5('77')", "SELECT id FROM ix_hash WHERE t = md5('5')"],
    ),
    _access_method(
        "gin",
        "ix_gin",
        "gin (a)",
        ["SELECT count(*), sum(id) FROM ix_gin WHERE a @> ARRAY[3, 4]"],
    ),
    _access_method(
        "gist",
        "ix_gist",
        "gist (p, r)",
        [
            "SELECT count(*), sum(id) FROM ix_gist WHERE p <@ box '((10,10),(60,90))'",
            "SELECT count(*) FROM ix_gist WHERE r && int4range(100, 300)",
        ],
    ),
    _access_method(
        "spgist",
        "ix_spgist",
        "spgist (t)",
        ["SELECT count(*), sum(id) FROM ix_spgist WHERE t ^@ 'ab'"],
    ),
    _access_method(
        "bloom",
        "ix_bloom",
        "bloom (n, t)",
        ["SELECT count(*), sum(id) FROM ix_bloom WHERE n = 77"],
    ),
    _access_method(
        "brin",
        "ix_brin",
        "brin (id, n) WITH (pages_per_range = 4)",
        ["SELECT count(*), sum(n) FROM ix_brin WHERE id BETWEEN 900 AND 2100"],
    ),
    Feature(
        "toast",
        before=[
            "CREATE TABLE toasty (id int PRIMARY KEY, body text)",
            "ALTER TABLE toasty ALTER body SET STORAGE EXTERNAL",
            "INSERT INTO toasty SELECT i, repeat(md5(i::text), 3000) FROM generate_series(1,60) i",
        ],
        after=[
            "UPDATE toasty SET body = body || repeat('tail', 5000) WHERE id % 2 = 0",
            "DELETE FROM toasty WHERE id % 7 = 0",
            "VACUUM toasty",
        ],
        checks=["SELECT id, length(body), md5(body) FROM toasty ORDER BY id"],
    ),
    Feature(
        "copy",
        before=[
            "CREATE TABLE copied (n int, half int GENERATED ALWAYS AS (n / 2) STORED)",
            "COPY copied (n) FROM PROGRAM 'seq 1 60000'",
        ],
        after=["COPY copied (n) FROM PROGRAM 'seq 60001 90000' WITH (FREEZE off)"],
        checks=["SELECT count(*), sum(n), sum(half) FROM copied"],
    ),
    Feature(
        "vacuum_full_and_cluster",
        before=[
            "CREATE TABLE vf (id int PRIMARY KEY, v text)",
            "CREATE TABLE cl (id int PRIMARY KEY, v int)",
            "CREATE INDEX cl_v ON cl (v)",
            "INSERT INTO vf SELECT i, md5(i::text) FROM generate_series(1, 20000) i",
            "INSERT INTO cl SELECT i, (i * 7919) % 20000 FROM generate_series(1, 20000) i",
            "DELETE FROM vf WHERE id % 3 = 0",
            "VACUUM FULL vf",
        ],
        after=["CLUSTER cl USING cl_v", "DELETE FROM vf WHERE id % 2 = 0", "VACUUM FULL vf"],
        checks=[
            "SELECT count(*), md5(string_agg(v, '' ORDER BY id)) FROM vf",
            "SELECT count(*), sum(v) FROM cl",
            "SELECT pg_relation_size('vf'), pg_relation_size('cl')",
        ],
    ),
    Feature(
        "two_phase_commit",
        before=[
            "CREATE TABLE tp (id int PRIMARY KEY)",
            "BEGIN; INSERT INTO tp VALUES (1); PREPARE TRANSACTION 'kept'",
            "BEGIN; INSERT INTO tp VALUES (2); SAVEPOINT s; INSERT INTO tp VALUES (3);"
            " PREPARE TRANSACTION 'dropped'",
        ],
        after=[
            "COMMIT PREPARED 'kept'",
            "ROLLBACK PREPARED 'dropped'",
            "BEGIN; INSERT INTO tp VALUES (4); PREPARE TRANSACTION 'waiting'",
        ],
        checks=["SELECT id FROM tp ORDER BY 1", "SELECT gid FROM pg_prepared_xacts ORDER BY 1"],
    ),
    Feature(
        "multixacts",
        before=[
            "CREATE TABLE mx (id int PRIMARY KEY, v int)",
            "INSERT INTO mx SELECT i, 0 FROM generate_series(0, 200) i",
            _multixacts,
        ],
        after=[_multixacts],
        checks=["SELECT count(*), sum(v) FROM mx", "SELECT id FROM mx WHERE v > 0 ORDER BY id"],
    ),
    Feature(
        "subtransactions",
        before=["CREATE TABLE sub (id int, how text)", SUBTRANSACTIONS],
        after=[SUBTRANSACTIONS],
        checks=["SELECT how, count(*), sum(id) FROM sub GROUP BY how ORDER BY how"],
    ),
    Feature(
        "temporary_tables",
        before=["CREATE TABLE from_temp (total bigint)", _temporary_tables],
        after=[_temporary_tables],
        checks=["SELECT count(*), sum(total) FROM from_temp"],
    ),
    Feature(
        "large_objects",
        before=[
            "SELECT lo_from_bytea(90001, decode(repeat('c0ffee', 20000), 'hex'))",
            "SELECT lo_from_bytea(90002, decode(repeat('00ff', 9000), 'hex'))",
        ],
        after=["SELECT lo_put(90001, 5000, '\\xdeadbeef')", "SELECT lo_unlink(90002)"],
        checks=[
            "SELECT oid FROM pg_largeobject_metadata WHERE oid IN (90001, 90002) ORDER BY 1",
            "SELECT md5(lo_get(90001))",
        ],
    ),
    Feature(
        "cursor_over_evicted_pages",
        before=[
            "CREATE TABLE cur (id int PRIMARY KEY, v int, pad text)",
            "INSERT INTO cur SELECT i, i, repeat('p', 300) FROM generate_series(1, 20000) i",
            "CREATE TABLE cur_ballast AS SELECT i, repeat('b', 900) AS pad"
            " FROM generate_series(1, 30000) i",
            _cursor_over_evicted_pages,
        ],
        after=[_cursor_over_evicted_pages],
        checks=["SELECT count(*), sum(v) FROM cur"],
    ),
    Feature(
        "insert_from_itself",
        before=[
            "CREATE TABLE selfie (id int, v int)",
            "INSERT INTO selfie SELECT i, i FROM generate_series(1, 500) i",
            _insert_from_itself,
        ],
        after=["DELETE FROM selfie WHERE id > 2000000", _insert_from_itself],
        checks=["SELECT count(*), sum(id), sum(v) FROM selfie"],
    ),
    Feature(
        "truncation_then_growth",
        before=[
            "CREATE TABLE grow (id int, pad text)",
            "CREATE TABLE shrink (id int, pad text)",
            "INSERT INTO grow SELECT i, repeat('g', 500) FROM generate_series(1, 9000) i",
            "INSERT INTO shrink SELECT i, repeat('s', 500) FROM generate_series(1, 9000) i",
            "TRUNCATE grow",
            "INSERT INTO grow SELECT i, repeat('h', 400) FROM generate_series(1, 3000) i",
        ],
        after=[
            "DELETE FROM shrink WHERE id > 1000",
            "VACUUM shrink",
            "INSERT INTO shrink SELECT i, repeat('t', 700) FROM generate_series(1, 5000) i",
            "BEGIN; TRUNCATE grow; INSERT INTO grow VALUES (1, 'gone'); ROLLBACK",
        ],
        checks=[
            "SELECT count(*), sum(id), min(pad), max(pad) FROM grow",
            "SELECT count(*), sum(id), sum(length(pad)), max(pad) FROM shrink",
            "SELECT pg_relation_size('grow'), pg_relation_size('shrink')",
        ],
    ),
    Feature(
        "freezing",
        before=[
            "CREATE TABLE fz (id int PRIMARY KEY, v int) WITH (autovacuum_enabled = off)",
            "INSERT INTO fz SELECT i, i FROM generate_series(1, 20000) i",
            "VACUUM FREEZE fz",
            "UPDATE fz SET v = v + 1 WHERE id % 50 = 0",
        ],
        after=["DELETE FROM fz WHERE id % 9 = 0", "VACUUM FREEZE fz", "SELECT txid_current()"],
        checks=["SELECT count(*), sum(v) FROM fz"],
    ),
    Feature(
        "every_kind_of_ddl",
        before=[
            "CREATE TYPE mood AS ENUM ('sad', 'ok')",
            "CREATE TABLE part (id int, at date) PARTITION BY RANGE (at)",
            "CREATE TABLE part_a PARTITION OF part"
            " FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
            "CREATE TABLE part_b PARTITION OF part"
            " FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')",
            "INSERT INTO part SELECT i, date '2020-01-01' + i % 700 FROM generate_series(1,3000) i",
            "CREATE MATERIALIZED VIEW mv AS SELECT at, count(*) AS n FROM part GROUP BY at",
            "CREATE VIEW vw AS SELECT at FROM part WHERE at > date '2020-02-02'",
        ],
        after=[
            "ALTER TYPE mood ADD VALUE 'happy'",
            "ALTER TABLE part ADD COLUMN m mood DEFAULT 'ok'",
            "ALTER TABLE part ALTER id TYPE bigint",
            "DROP TABLE part_a",
            "REFRESH MATERIALIZED VIEW mv",
            "CREATE UNIQUE INDEX CONCURRENTLY mv_at ON mv (at)",
            "REINDEX TABLE pg_class",
            "VACUUM FULL pg_class",
        ],
        checks=[
            "SELECT count(*), sum(n) FROM mv",
            "SELECT count(*), min(at), max(at) FROM part",
            "SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum",
        ],
    ),
]
