"""The SQL of the workloads: psql runs each text, or sequence of statements, in one session."""

from __future__ import annotations

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

BTREE = (
    # Deduplication, and a unique index whose versions are removed bottom-up.
    "INSERT INTO dups SELECT i % 40, 'v' || i % 11 FROM generate_series(1, 12000) i",
    *["UPDATE versions SET n = n + 1, pad = pad || 'x'"] * 6,
    "DELETE FROM dups WHERE k BETWEEN 5 AND 30",
    "VACUUM dups",
    "INSERT INTO dups SELECT 17, repeat('w', i % 300) FROM generate_series(1, 3000) i",
    # Whole pages deleted, subtrees too, halfway and to the end; then used again.
    "INSERT INTO tall SELECT repeat(md5(i::text), 20) || i FROM generate_series(1, 6000) i",
    "DELETE FROM tall WHERE t BETWEEN '2' AND 'd'",
    "VACUUM tall",
    "SELECT txid_current()",
    "VACUUM tall",
    "INSERT INTO tall SELECT repeat(md5(i::text), 20) || 'again' FROM generate_series(1, 3000) i",
    "DELETE FROM tall",
    "VACUUM tall",
    "INSERT INTO tall SELECT repeat('z', 700) || i FROM generate_series(1, 900) i",
    # Ascending at the right edge, descending at the left, NULLs, an INCLUDE, a reversed one.
    "INSERT INTO edges SELECT i, -i, nullif(i % 3, 0) FROM generate_series(1, 9000) i",
    "UPDATE edges SET up = up + 9000 WHERE up % 4 = 0",
    "DELETE FROM edges WHERE down > -3000",
    "VACUUM (INDEX_CLEANUP on) edges",
    # Entries killed by a scan, and removed by the insertions behind it.
    "DELETE FROM dups WHERE k = 3",
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM dups WHERE k = 3",
    "INSERT INTO dups SELECT 3, 'late' FROM generate_series(1, 2000)",
    "REINDEX INDEX CONCURRENTLY dups_k_idx",
    "DROP INDEX CONCURRENTLY edges_down_idx",
)
BTREE_SETUP = """
    CREATE TABLE dups (k int, v text) WITH (autovacuum_enabled = off);
    CREATE INDEX ON dups (k); CREATE INDEX ON dups (v) WITH (deduplicate_items = off);
    CREATE TABLE versions (id int PRIMARY KEY, n int, pad text)
        WITH (autovacuum_enabled = off, fillfactor = 100);
    CREATE INDEX ON versions (n);
    INSERT INTO versions SELECT i, 0, '' FROM generate_series(1, 900) i;
    CREATE TABLE tall (t text) WITH (autovacuum_enabled = off); CREATE INDEX ON tall (t);
    CREATE TABLE edges (up int, down int, rare int) WITH (autovacuum_enabled = off);
    CREATE UNIQUE INDEX ON edges (up) INCLUDE (rare); CREATE INDEX ON edges (down);
    CREATE INDEX ON edges (rare NULLS FIRST); CREATE INDEX ON edges (up DESC) WHERE up % 2 = 0;
"""

METHODS = {
    "hash": "hash (t)",
    "hash_few": "hash (k)",
    "gin": "gin (a)",
    "gin_now": "gin (a) WITH (fastupdate = off)",
    "gin_words": "gin (to_tsvector('simple', t)) WITH (gin_pending_list_limit = 64)",
    "gist": "gist (p)",
    "gist_box": "gist (box(p, p), r) WITH (fillfactor = 60)",
    "gist_buffered": "gist (p) WITH (buffering = on)",
    "spgist_text": "spgist (t)",
    "spgist_quad": "spgist (p)",
    "spgist_kd": "spgist (p kd_point_ops)",
    "spgist_range": "spgist (r)",
    "brin": "brin (id, t) WITH (pages_per_range = 1, autosummarize = on)",
    "brin_bloom": "brin (t text_bloom_ops, id int4_minmax_multi_ops) WITH (pages_per_range = 2)",
    "bloom": "bloom (k, t) WITH (length = 80)",
}
"""Every method but the B-tree, with its ways, each on a table of its own."""
METHODS_SETUP = "CREATE EXTENSION bloom;" + "".join(
    f"CREATE TABLE {name} (id int, k int, t text, a int[], p point, r int4range)"
    f" WITH (autovacuum_enabled = off); CREATE INDEX {name}_x ON {name} USING {using};"
    for name, using in METHODS.items()
)
METHOD_ROWS = (
    "INSERT INTO {0} SELECT i, i % 13, md5((i * {1})::text) || repeat(chr(97 + i % 26), i % 60),"
    " ARRAY[i % 60, i % 7, i * {1}], point((i * 37 * {1}) % 1009, (i * 91) % 997),"
    " CASE WHEN i % 50 = 0 THEN 'empty' ELSE int4range(i % 700, i % 700 + i % 40 + 1) END"
    " FROM generate_series({2}, {3}) i"
)
METHOD_CHURN = (
    METHOD_ROWS.format("{0}", 1, 1, 1700),
    "VACUUM {0}",
    "DELETE FROM {0} WHERE id BETWEEN 300 AND 1100 OR k = 5",
    "VACUUM {0}",
    METHOD_ROWS.format("{0}", 3, 1701, 2600),
    "UPDATE {0} SET t = reverse(t), p = point(p[1], p[0]), k = k + 1, a = a || k WHERE id % 9 = 0",
    "DELETE FROM {0} WHERE id % 2 = 1",
    "VACUUM (FREEZE) {0}",
    METHOD_ROWS.format("{0}", 7, 2601, 3100),
    "BEGIN; " + METHOD_ROWS.format("{0}", 5, 1, 400) + "; ROLLBACK",
    "VACUUM {0}",
)

REWRITES_SETUP = """
    CREATE TABLE rw (id int PRIMARY KEY, v int, body text) WITH (autovacuum_enabled = off);
    CREATE INDEX rw_v ON rw (v); CREATE INDEX rw_gin ON rw USING gin (to_tsvector('simple', body));
    CREATE INDEX rw_expr ON rw ((v % 10)) WHERE v > 50;
    INSERT INTO rw SELECT i, (i * 7919) % 6000, repeat(md5(i::text), 1 + i % 3)
        FROM generate_series(1, 6000) i;
    CREATE TABLE fat (id int PRIMARY KEY, body text) WITH (autovacuum_enabled = off);
    ALTER TABLE fat ALTER body SET STORAGE EXTERNAL;
    INSERT INTO fat SELECT i, repeat(md5(i::text), 200) FROM generate_series(1, 200) i;
    CREATE UNLOGGED TABLE light (id int PRIMARY KEY, body text);
    CREATE INDEX light_hash ON light USING hash (body);
"""
REWRITES = (
    "DELETE FROM rw WHERE id % 3 = 0",
    "CLUSTER rw USING rw_v",
    "UPDATE rw SET v = v + 1 WHERE id % 4 = 0",
    "VACUUM FULL rw",
    "ALTER TABLE rw ALTER id TYPE bigint",
    "ALTER TABLE rw ALTER v TYPE numeric USING v / 2.0",
    "REINDEX TABLE rw",
    "REINDEX TABLE CONCURRENTLY rw",
    "CREATE INDEX CONCURRENTLY rw_late ON rw USING brin (v)",
    "BEGIN; ALTER TABLE rw ALTER v TYPE int; CREATE INDEX ON rw (body); ROLLBACK",
    "BEGIN; SAVEPOINT a; TRUNCATE rw; ROLLBACK TO a; INSERT INTO rw VALUES (-1, 1, 'x'); COMMIT",
    "BEGIN; TRUNCATE rw; INSERT INTO rw SELECT i, i, 'new' FROM generate_series(1, 900) i; COMMIT",
    # Within the transaction that made the file: Postgres need not log every page of these.
    "BEGIN; CREATE TABLE born (n int PRIMARY KEY); INSERT INTO born SELECT generate_series(1, 2000)"
    "; TRUNCATE born; INSERT INTO born SELECT generate_series(1, 999); CLUSTER born USING born_pkey"
    "; COMMIT",
    # TOAST: chunks out of line, rewritten, moved, deleted.
    "UPDATE fat SET body = body || repeat('tail', 900) WHERE id % 2 = 0",
    "VACUUM FULL fat",
    "DELETE FROM fat WHERE id > 120",
    "VACUUM fat",
    "ALTER TABLE fat ALTER body SET STORAGE EXTENDED; UPDATE fat SET body = body || 'z'",
    "UPDATE fat SET body = (SELECT string_agg(md5((i * id)::text), '')"
    " FROM generate_series(1, 300) i) WHERE id % 5 = 0",
    "CREATE TABLE fat2 (LIKE fat INCLUDING ALL); INSERT INTO fat2 SELECT * FROM fat; TRUNCATE fat",
    # Unlogged tables become logged, and the other way.
    "INSERT INTO light SELECT i, md5(i::text) FROM generate_series(1, 3000) i",
    "ALTER TABLE light SET LOGGED",
    "DELETE FROM light WHERE id % 2 = 0; VACUUM light",
    "ALTER TABLE fat2 SET UNLOGGED",
    "CREATE UNLOGGED TABLE brief (n int PRIMARY KEY); DROP TABLE brief",
    # Catalogs, with and without an entry in a relation map, shared and not.
    *[
        f"VACUUM FULL {catalog}"
        for catalog in (
            *("pg_class", "pg_attribute", "pg_type", "pg_proc", "pg_index", "pg_statistic"),
            *("pg_database", "pg_authid", "pg_shdepend", "pg_depend"),
        )
    ],
    "REINDEX TABLE pg_class; REINDEX INDEX pg_type_oid_index; REINDEX TABLE pg_database",
    "REINDEX SYSTEM postgres",
    "REINDEX DATABASE postgres",
    "CLUSTER",
    "VACUUM FULL",
    "VACUUM (FREEZE)",
)

LOGGED_SETUP = "CREATE TABLE noted (n int, at timestamptz DEFAULT now())"
LOGGED = (
    "CREATE SEQUENCE counter; SELECT count(nextval('counter')) FROM generate_series(1, 333)",
    "ALTER SEQUENCE counter RESTART 77; SELECT nextval('counter'), setval('counter', 900, false)",
    "CREATE UNLOGGED SEQUENCE brief; SELECT nextval('brief'); ALTER SEQUENCE brief SET LOGGED",
    "BEGIN; SELECT nextval('counter'); ROLLBACK",
    "SELECT pg_logical_emit_message(true, 'truth', repeat('content', 900))",
    "SELECT pg_logical_emit_message(false, 'truth', repeat('y', 20000))",
    "BEGIN; SELECT pg_logical_emit_message(true, 'undone', 'z'); ROLLBACK",
    "SELECT lo_from_bytea(4711, decode(repeat('c0ffee', 9000), 'hex'))",
    "SELECT lo_put(4711, 3000, repeat('x', 5000)::bytea)",
    "SELECT lo_truncate(lo_open(4711, 131072), 99)",
    "SELECT lo_from_bytea(0, repeat('gone', 3000)::bytea); SELECT lo_unlink(4711)",
    "SELECT pg_create_restore_point('here')",
    "SELECT pg_switch_wal()",
    "INSERT INTO noted SELECT generate_series(1, 500)",
    "CHECKPOINT",
    "SELECT pg_switch_wal()",
    # More commits than a page of pg_commit_ts holds.
    "CREATE PROCEDURE commits(many int) LANGUAGE plpgsql AS"
    " $$ BEGIN FOR i IN 1..many LOOP INSERT INTO noted VALUES (i); COMMIT; END LOOP; END $$",
    "CALL commits(1700)",
    "SELECT pg_replication_origin_create('from')",
    "SELECT pg_replication_origin_session_setup('from')",
    "BEGIN; SELECT pg_replication_origin_xact_setup('0/ABCDEF', '2024-01-02 03:04:05Z');"
    " INSERT INTO noted VALUES (0); COMMIT",
    "LISTEN chan; NOTIFY chan, 'hello'",
    "VACUUM (FREEZE) noted",
)

TABLESPACES_SETUP = """
    SET allow_in_place_tablespaces = on;
    CREATE TABLESPACE old LOCATION ''; CREATE TABLESPACE empty LOCATION '';
    SET default_tablespace = old;
    CREATE TABLE long_there (n int PRIMARY KEY, body text);
    INSERT INTO long_there SELECT i, repeat('x', 3000) FROM generate_series(1, 900) i;
"""
TABLESPACES = (
    "SET allow_in_place_tablespaces = on",
    "CREATE TABLESPACE new LOCATION ''",
    "CREATE TABLESPACE brief LOCATION ''",
    "CREATE TABLE moves (n int PRIMARY KEY, body text) TABLESPACE brief",
    "INSERT INTO moves SELECT i, md5(i::text) FROM generate_series(1, 4000) i",
    "CREATE INDEX moves_body ON moves USING hash (body) TABLESPACE old",
    "CREATE UNLOGGED TABLE light (n int) TABLESPACE new",
    "CREATE DATABASE spread TEMPLATE template1",
    r"\c spread",
    "CREATE TABLE here AS SELECT generate_series(1, 3000) n",
    "CREATE INDEX ON here (n) TABLESPACE new",
    "ALTER TABLE here SET TABLESPACE old",
    r"\c postgres",
    "CREATE DATABASE logged TEMPLATE spread STRATEGY wal_log",
    "CREATE DATABASE copied TEMPLATE spread STRATEGY file_copy",
    r"\c copied",
    "UPDATE here SET n = -n WHERE n % 3 = 0; VACUUM here",
    r"\c postgres",
    "ALTER TABLE moves SET TABLESPACE new",
    "DELETE FROM moves WHERE n % 2 = 0; VACUUM moves",
    "BEGIN; ALTER TABLE moves SET TABLESPACE old; ROLLBACK",
    "REINDEX (TABLESPACE new) INDEX moves_body",
    "ALTER INDEX moves_pkey SET TABLESPACE old",
    "CREATE MATERIALIZED VIEW seen TABLESPACE new AS SELECT count(*) FROM long_there",
    "DELETE FROM long_there WHERE n > 300; VACUUM long_there; TRUNCATE light",
    "ALTER TABLE ALL IN TABLESPACE old SET TABLESPACE pg_default",
    "DROP DATABASE spread; DROP TABLESPACE brief",
    "ALTER TABLESPACE empty RENAME TO still_empty",
    "VACUUM FULL moves",
)

MOVED_SETUP = """
    SET allow_in_place_tablespaces = on;
    CREATE TABLESPACE one LOCATION ''; CREATE TABLESPACE two LOCATION '';
    CREATE DATABASE apart; CREATE DATABASE long_apart TABLESPACE two;
"""
MOVED = (
    r"\c apart",
    "CREATE TABLE moves (n int PRIMARY KEY, body text)",
    "INSERT INTO moves SELECT i, repeat('x', i % 900) FROM generate_series(1, 4000) i",
    "CREATE INDEX ON moves USING hash (body); CREATE UNLOGGED TABLE light (n int PRIMARY KEY)",
    "CREATE TABLE stays TABLESPACE two AS SELECT generate_series(1, 3000) n",
    "VACUUM FULL pg_class",
    r"\c postgres",
    "ALTER DATABASE apart SET TABLESPACE one",
    r"\c apart",
    "DELETE FROM moves WHERE n % 3 = 0; VACUUM moves",
    "REINDEX INDEX pg_class_oid_index; VACUUM FULL pg_type",
    "INSERT INTO stays SELECT generate_series(1, 500); CREATE TABLE later AS TABLE moves",
    r"\c postgres",
    "CREATE DATABASE copied TEMPLATE apart STRATEGY file_copy",
    "CREATE DATABASE logged TEMPLATE apart STRATEGY wal_log",
    "CREATE DATABASE back TEMPLATE apart TABLESPACE pg_default STRATEGY file_copy",
    "CREATE DATABASE beside TABLESPACE two STRATEGY wal_log",
    "ALTER DATABASE copied SET TABLESPACE pg_default",
    "ALTER DATABASE long_apart SET TABLESPACE one",
    r"\c copied",
    "UPDATE moves SET body = reverse(body) || n WHERE n % 2 = 0; VACUUM (FREEZE) moves",
    "TRUNCATE later; DROP TABLE stays",
    r"\c postgres",
    # There, back, and there again, where another database of its number has been before.
    "ALTER DATABASE apart SET TABLESPACE pg_default",
    "ALTER DATABASE apart SET TABLESPACE one",
    r"\c apart",
    "UPDATE moves SET body = 'again' WHERE n % 5 = 0",
    r"\c postgres",
    "DROP DATABASE logged; DROP DATABASE long_apart",
    "ALTER DATABASE beside SET TABLESPACE one; CHECKPOINT",
)

MARCH = (
    # Over a million transaction ids: pg_xact goes into its second segment. Only the ids and what
    # became of them are in the WAL.
    "CREATE TEMP TABLE marched (n int) ON COMMIT DELETE ROWS",
    "DO $$ BEGIN FOR i IN 1..1100000 LOOP"
    " BEGIN INSERT INTO marched VALUES (i); EXCEPTION WHEN OTHERS THEN NULL; END;"
    " IF i % 20000 = 0 THEN COMMIT; END IF; END LOOP; END $$",
)
FREEZE = ("SET vacuum_multixact_freeze_min_age = 0", "VACUUM (FREEZE)")
"""In every database: then the oldest segments of pg_xact and pg_multixact are removed."""
