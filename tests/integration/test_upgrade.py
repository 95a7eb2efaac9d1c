"""`pagestore upgrade` on real parts and two real majors: what comes through, what is refused, that
a kill changes nothing, and that a tenant's code in there stays within walls."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pagestore.client.sync import PageClient
from pagestore.ids import DEFAULT_TENANT
from pagestore.postgres import majors
from tests.integration.installation import Whole, patiently, whole_pagestore
from tests.plain_postgres import MAJOR, plain_postgres
from tests.schemas import check
from tests.waiting import wait_until

THERE = sorted(majors.installed(majors.BINDIR))
pytestmark = pytest.mark.skipif(
    len(THERE) < 2, reason=f"an upgrade needs two majors of Postgres, and there is {THERE}"
)
OLD, NEW = (THERE or [0])[0], (THERE or [0])[-1]

CONTENT = """
CREATE EXTENSION amcheck;
CREATE TABLE rows AS SELECT i, md5(i::text) AS word, repeat(md5(i::text), 200) AS long
    FROM generate_series(1, 3000) i;
ALTER TABLE rows ADD PRIMARY KEY (i);
CREATE INDEX ON rows USING gin (to_tsvector('simple', word));
ALTER TABLE rows ALTER word SET (n_distinct = -1);
CREATE VIEW seen AS SELECT i, word FROM rows;
CREATE MATERIALIZED VIEW kept AS SELECT count(*) AS n FROM seen;
CREATE TABLE parts (i int, at text) PARTITION BY RANGE (i);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (1000);
INSERT INTO parts SELECT i, i::text FROM generate_series(1, 999) i;
CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS one;
CREATE TABLE elsewhere TABLESPACE aside AS SELECT i FROM generate_series(1, 2000) i;
CREATE INDEX ON elsewhere (i) TABLESPACE aside;
CREATE SEQUENCE numbers;
SELECT nextval('numbers') FROM generate_series(1, 7);
SELECT lo_from_bytea(4711, 'large'::bytea);
CREATE ROLE web LOGIN PASSWORD 'their own secret';
GRANT SELECT ON rows TO web;
ALTER ROLE web SET work_mem = '9MB';
ANALYZE;
"""
SUMS = """
SELECT (SELECT md5(string_agg(r::text, ',' ORDER BY i)) FROM rows r),
       (SELECT md5(string_agg(p::text, ',' ORDER BY i)) FROM parts p),
       (SELECT sum(i) FROM elsewhere),
       (SELECT n FROM kept), (SELECT count(*) FROM seen), (SELECT last_value >= 7 FROM numbers),
       convert_from(lo_get(4711), 'UTF8'),
       (SELECT attoptions::text LIKE '%n_distinct%' FROM pg_attribute
        WHERE attrelid = 'rows'::regclass AND attname = 'word')
"""
CHECKED = """
SELECT count(*), sum(CASE WHEN bt_index_check(i.indexrelid, true)::text = '' THEN 1 END)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
 WHERE a.amname = 'btree' AND c.relpersistence = 'p'
"""
DAMAGE = """
SELECT count(*) FROM pg_class c, LATERAL verify_heapam(c.oid) v
 WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'
"""


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore(programs=majors.BINDIR) as running:
        yield running


def created(whole: Whole, name: str, content: str = "CREATE TABLE t AS SELECT 1 AS a") -> None:
    whole.run("create", name, "--postgres", str(OLD))
    whole.sql(name, content)


def major(whole: Whole, name: str) -> int:
    return int(whole.sql(name, "SHOW server_version_num")[0][0]) // 10_000


def facts(whole: Whole, name: str) -> tuple[Any, ...]:
    """Its content, once Postgres itself has found nothing amiss with it."""
    checked, right = whole.sql(name, CHECKED)[0]
    assert checked == right > 50
    assert whole.sql(name, DAMAGE) == [(0,)]
    return whole.sql(name, SUMS)[0]


def test_all_comes_through_and_back_and_forth(whole: Whole) -> None:
    created(whole, "app", "SELECT 1")
    with whole.connect("app") as session:
        session.execute("SET allow_in_place_tablespaces = on")
        session.execute("CREATE TABLESPACE aside LOCATION ''")
    whole.sql("app", CONTENT)
    whole.sql("app", 'CREATE DATABASE "an other"')
    with whole.connect("app", "an other") as other:
        other.execute("CREATE TABLE there AS SELECT 5 AS five")
    whole.sql("app", 'ALTER DATABASE "an other" SET TABLESPACE aside')
    whole.run("settings", "app", "work_mem=7MB")
    before, url = facts(whole, "app"), whole.json("url", "app")["url"]
    whole.run("branch", "app", "child")
    with psycopg.connect(url, autocommit=True) as idle:
        idle.execute("SET search_path = pg_catalog, public")
        idle.execute("PREPARE one AS SELECT word FROM rows WHERE i = $1")
        checked = whole.json("upgrade", "app", "--to", str(NEW), "--dry-run")
        assert (checked["changed"], major(whole, "app")) == (False, OLD)

        done = whole.json("upgrade", "app", "--to", str(NEW))
        assert (done["changed"], done["postgres"]) == (True, NEW)
        check("upgrade", checked)
        check("upgrade", done)
        assert done["kept"]["checkpoint"] == "before-upgrade-1"
        assert {"exporting", "importing"} <= {step["step"].split()[0] for step in done["steps"]}
        # A session that was idle all the while goes on where it was, in the new server.
        assert idle.execute("SHOW search_path").fetchone() == ("pg_catalog, public",)
        assert idle.execute("EXECUTE one(3)").fetchone() is not None

    assert (major(whole, "app"), facts(whole, "app")) == (NEW, before)
    assert whole.json("url", "app")["url"] == url
    assert whole.sql("app", "SHOW work_mem") == [("7MB",)]
    with psycopg.connect(url, user="web", password="their own secret") as web:
        assert web.execute("SHOW work_mem").fetchone() == ("9MB",)
        assert web.execute("SELECT count(*) FROM rows").fetchone() == (3000,)
    with whole.connect("app", "an other") as other:
        assert other.execute("SELECT five FROM there").fetchone() == (5,)
        where = other.execute("SELECT pg_relation_filepath('there')").fetchone()
        assert where is not None
        assert where[0].startswith("pg_tblspc/")
    assert whole.sql("app", "TABLE fleeting") == []
    assert major(whole, "child") == OLD
    with psycopg.connect(url, dbname="app@before-upgrade-1") as past:
        assert past.info.server_version // 10_000 == OLD
        assert past.execute(SUMS).fetchone() == before

    assert whole.json("undo", "app")["changed"]
    assert (major(whole, "app"), facts(whole, "app")) == (OLD, before)
    assert whole.json("redo", "app")["changed"]
    assert (major(whole, "app"), facts(whole, "app")) == (NEW, before)
    whole.sql("app", "INSERT INTO rows SELECT 3001, '', ''")
    whole.run("stop", "app")
    assert whole.sql("app", "SELECT count(*) FROM rows") == [(3001,)]
    whole.run("restore", "app", "before-upgrade-1")
    assert (major(whole, "app"), facts(whole, "app")) == (OLD, before)


@pytest.mark.skipif(MAJOR != OLD, reason=f"plain clusters are of Postgres {MAJOR} in this run")
def test_an_imported_cluster_of_another_kind_stays_of_its_kind(whole: Whole) -> None:
    """With data checksums, another encoding, and another name for the role that it began with."""
    with plain_postgres("--data-checksums", "--locale=C", "-E", "LATIN1") as plain:
        plain.sql("CREATE ROLE helper SUPERUSER LOGIN")
        with plain.connect(user="helper") as session:
            session.execute('ALTER ROLE postgres RENAME TO "the boss"')
            session.execute("CREATE TABLE t AS SELECT 'gr\u00fcn' AS word")
        plain.stop()
        whole.run("import", "plain", "--from-pgdata", str(plain.data))
    kind = """SELECT current_setting('data_checksums'), word, length(word),
        (SELECT string_agg((datname, encoding, datcollate, datctype)::text, ' ' ORDER BY datname)
         FROM pg_database), (SELECT rolname FROM pg_roles WHERE oid = 10) FROM t"""
    before = whole.sql("plain", kind)
    assert before[0][:3] == ("on", "gr\u00fcn", 4)
    whole.run("upgrade", "plain", "--to", str(NEW))
    assert (major(whole, "plain"), whole.sql("plain", kind)) == (NEW, before)
    assert whole.run("verify", "plain").returncode == 0


def test_what_pg_upgrade_refuses_is_told_in_its_words_and_changes_nothing(whole: Whole) -> None:
    created(whole, "refused")
    whole.sql("refused", "BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'left'")
    for words in (("--dry-run",), ()):
        error = whole.error("upgrade", "refused", "--to", str(NEW), *words)
        assert error["reason"] == "UPGRADE_REFUSED"
        assert "prepared transactions" in error["message"]
    assert major(whole, "refused") == OLD
    whole.sql("refused", "COMMIT PREPARED 'left'")
    whole.run("upgrade", "refused", "--to", str(NEW))
    assert (major(whole, "refused"), whole.sql("refused", "SELECT sum(a) FROM t")) == (NEW, [(3,)])
    for to, reason in ((NEW, "SAME_MAJOR"), (OLD, "LOWER_MAJOR"), (99, "POSTGRES_MISSING")):
        assert whole.error("upgrade", "refused", "--to", str(to))["reason"] == reason
    assert whole.error("upgrade", "nobody", "--to", "18")["reason"] == "DATABASE_NOT_FOUND"


def test_a_setting_that_only_the_old_server_knows_is_set_aside_alone(whole: Whole) -> None:
    gone = {15: "old_snapshot_threshold", 17: None}[OLD]
    if gone is None:
        pytest.skip(f"whatever {OLD} knows, {NEW} does too")
    created(whole, "set")
    whole.run("settings", "set", f"{gone}=1h", "work_mem=7MB")
    whole.run("stop", "set")
    whole.run("start", "set")
    done = whole.json("upgrade", "set", "--to", str(NEW))
    assert done["set_aside"] == {gone: "1h"}
    assert whole.sql("set", "SHOW work_mem") == [("7MB",)]


@pytest.mark.parametrize("part", ["compute", "control"])
@pytest.mark.parametrize("where", ["old", "new"])
def test_a_kill_at_any_moment_changes_nothing(whole: Whole, part: str, where: str) -> None:
    """While it is exported, and while pg_upgrade is at work."""
    name = f"killed-{part}-{where}"
    created(whole, name)
    before = _timelines(whole)
    told: list[str] = []

    def upgrade() -> None:
        done = whole.run("upgrade", name, "--to", str(NEW), "--json", check=False)
        told.append(done.stderr if done.returncode else "")

    caller = threading.Thread(target=upgrade)
    caller.start()
    wait_until(lambda: [*whole.installation.compute_dir.glob(f"upgrade-*/work/{where}/base")])
    whole.kill(part)
    caller.join()
    assert json.loads(told[0])["error"]["reason"], "it was not told that it is done"
    patiently(lambda: _is_whole(whole, name))
    wait_until(lambda: not _scratch(whole), what="nothing is left of it")
    patiently(lambda: _none_but(whole, before))
    whole.run("upgrade", name, "--to", str(NEW))
    assert whole.sql(name, "SELECT a FROM t") == [(1,)]
    assert _scratch(whole) == []
    whole.run("rm", name)


def _is_whole(whole: Whole, name: str) -> None:
    assert (major(whole, name), whole.sql(name, "SELECT a FROM t")) == (OLD, [(1,)])


def _scratch(whole: Whole) -> list[Path]:
    return [*whole.installation.compute_dir.glob("upgrade-*")]


def _timelines(whole: Whole) -> set[bytes]:
    with PageClient(whole.installation.address("pageserver")) as pages:
        return {info.timeline_id for info in pages.list_timelines(DEFAULT_TENANT)}


def _none_but(whole: Whole, before: set[bytes]) -> None:
    assert _timelines(whole) <= before


def _hostile(whole: Whole, name: str, script: str) -> None:
    """A database whose owner has this run by the server at each login."""
    created(
        whole,
        name,
        f"""CREATE FUNCTION plant() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; {script}; true'; END $$;
        CREATE EVENT TRIGGER planting ON login EXECUTE FUNCTION plant();
        ALTER EVENT TRIGGER planting ENABLE ALWAYS""",
    )


@pytest.mark.walls
@pytest.mark.skipif(OLD < 17, reason=f"Postgres {OLD} has no triggers on login")
def test_what_a_tenant_has_run_at_a_login_stays_within_walls(whole: Whole, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    computes = whole.installation.compute_dir
    planted = [Path("/tmp/planted-by-upgrade"), computes / "planted", tmp_path / "planted"]
    _hostile(whole, "hostile", "; ".join(f"touch {path}" for path in planted))
    whole.run("upgrade", "hostile", "--to", str(NEW))
    assert [path for path in planted if path.exists()] == []
    assert major(whole, "hostile") == NEW


@pytest.mark.walls
@pytest.mark.skipif(OLD < 17, reason=f"Postgres {OLD} has no triggers on login")
def test_no_link_that_a_tenant_plants_beside_is_followed_at_the_import(whole: Whole) -> None:
    """The old server runs it while pg_upgrade is at work, with the new cluster beside."""
    _hostile(whole, "linking", "ln -s /etc/passwd ../new/base/planted")
    error = whole.error("upgrade", "linking", "--to", str(NEW))
    assert error["reason"] == "UPGRADE_TAMPERED", error
    assert "base/planted" in error["message"]
    assert major(whole, "linking") == OLD
