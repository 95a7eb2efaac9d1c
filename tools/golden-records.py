"""Golden records: one of each kind that majors write differently, as this major wrote it.

    PAGESTORE_TEST_MAJOR=17 .venv/bin/python tools/golden-records.py

Runs what brings them forth on plain clusters of the distribution's Postgres, and writes
tests/unit/wal/golden/postgres-17.json: of every kind the shortest record, with what pg_waldump of
that major says of it. tests/unit/wal/test_golden_records.py decodes them on any machine.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pagestore.ids import format_lsn, parse_lsn
from pagestore.pgformat import wal
from pagestore.pgformat.wal import RecordHeader
from pagestore.postgres import majors
from tests.integration import ingest_workload
from tests.plain_postgres import BINDIR, MAJOR, VERSION, PlainPostgres, plain_postgres
from tests.truth import workloads
from tests.truth.test_minor_releases import WORKLOAD as MAP_BITS
from tests.wal_log import WalLog, waldump

GOLDEN = Path(__file__).resolve().parents[1] / "tests/unit/wal/golden"
SETTINGS = {
    "autovacuum": "off",
    "full_page_writes": "off",
    "max_prepared_transactions": 10,
    "track_commit_timestamp": "on",
    "wal_keep_size": "4GB",
}
HEAP = ("INSERT", "DELETE", "UPDATE", "HOT_UPDATE", "LOCK", "MULTI_INSERT")
KINDS = {
    **{
        f"xlog {name.lower()}": f"XLOG .*desc: {name} "
        for name in ("CHECKPOINT_SHUTDOWN", "CHECKPOINT_ONLINE", "CHECKPOINT_REDO")
    },
    "xlog end_of_recovery": "XLOG .*desc: END_OF_RECOVERY ",
    "clog zeropage": "CLOG .*desc: ZEROPAGE ",
    "clog truncate": "CLOG .*desc: TRUNCATE ",
    "commit_ts zeropage": r"CommitTs .*desc: (COMMIT_TS_)?ZEROPAGE ",
    "commit_ts truncate": r"CommitTs .*desc: (COMMIT_TS_)?TRUNCATE ",
    "multixact zero_off_page": "MultiXact .*desc: ZERO_OFF_PAGE ",
    "multixact zero_mem_page": "MultiXact .*desc: ZERO_MEM_PAGE ",
    "multixact truncate_id": "MultiXact .*desc: TRUNCATE_ID ",
    "relmap update": "RelMap .*desc: UPDATE ",
    "transaction commit": "Transaction .*desc: COMMIT .*rels: .*dropped stats",
    "transaction abort": "Transaction .*desc: ABORT .*rels: .*dropped stats",
    "transaction prepare": "Transaction .*desc: PREPARE .*dropped stats",
    "transaction commit_prepared": "Transaction .*desc: COMMIT_PREPARED .*dropped stats",
    **{
        f"heap2 {name.lower()}": f"Heap2 .*desc: {name} "
        for name in (
            *("PRUNE", "VACUUM", "FREEZE_PAGE", "VISIBLE"),
            *("PRUNE_ON_ACCESS", "PRUNE_VACUUM_SCAN", "PRUNE_VACUUM_CLEANUP"),
        )
    },
    "heap inplace": "Heap .*desc: INPLACE ",
    **{
        f"heap {name.lower()} names map": f"Heap2? .*desc: {name}(\\+INIT)? .*fork vm"
        for name in HEAP
    },
    "btree vacuum": "Btree .*desc: VACUUM ",
    "btree delete": "Btree .*desc: DELETE ",
    "heap2 lock_updated": "Heap2 .*desc: LOCK_UPDATED ",
    "gist delete": "Gist .*desc: DELETE ",
    "hash vacuum_one_page": "Hash .*desc: VACUUM_ONE_PAGE ",
    "spgist vacuum_redirect": "SPGist .*desc: VACUUM_REDIRECT ",
}
CLEARED_FLAG = {
    "INSERT": 2,
    "DELETE": 7,
    "UPDATE": 7,
    "HOT_UPDATE": 7,
    "LOCK": 7,
    "MULTI_INSERT": 0,
}
"""Where in main data of a heap record the flags are, of which 1 says that bits are cleared."""
DELETED = """
CREATE TABLE p (a int, b point, c text) WITH (autovacuum_enabled = off);
CREATE INDEX p_a ON p (a);
CREATE INDEX p_gist ON p USING gist (b);
CREATE INDEX p_hash ON p USING hash (c);
CREATE INDEX p_spgist ON p USING spgist (b);
INSERT INTO p SELECT i % 5, point(i % 50, i % 7), 'c' FROM generate_series(1, 4000) i;
DELETE FROM p;
SELECT count(*) FROM (SELECT a FROM p WHERE a = 1) s;
SET enable_seqscan = off; SET enable_bitmapscan = off;
SELECT count(*) FROM p WHERE a < 5;
SELECT count(*) FROM p WHERE c = 'c';
SELECT count(*) FROM p WHERE b <@ box '((0,0),(100,100))';
INSERT INTO p SELECT i % 5, point(i % 50, i % 7), 'c' FROM generate_series(1, 4000) i;
DELETE FROM p WHERE a < 4;
VACUUM p;
"""
KILLED_IN_GIST = """
CREATE TABLE g (b point) WITH (autovacuum_enabled = off);
CREATE INDEX g_b ON g USING gist (b);
INSERT INTO g SELECT point(i % 50, i % 7) FROM generate_series(1, 4000) i;
DELETE FROM g;
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off;
SELECT count(*) FROM g WHERE b <@ box '((0,0),(100,100))';
INSERT INTO g SELECT point(i % 50, i % 7) FROM generate_series(1, 4000) i;
"""
LOCKED_WHERE_UPDATED = """
CREATE TABLE l (a int PRIMARY KEY, b int);
INSERT INTO l VALUES (1, 1);
BEGIN; UPDATE l SET b = 2; PREPARE TRANSACTION 'updates';
SELECT * FROM l FOR KEY SHARE;
COMMIT PREPARED 'updates';
"""
"""Who locks the old version locks the new one too. That one's page is not all-visible as long as
anybody can see the old one, so the record never has a map to clear."""


def everything(cluster: PlainPostgres) -> None:
    ingest_workload.run(cluster)
    cluster.sql("ROLLBACK PREPARED 'kept'")
    for workload in (MAP_BITS, workloads.BY_NAME["methods"]):
        workloads.run_step(cluster, workload.setup)
        workload.run(cluster)
    for script in (DELETED, KILLED_IN_GIST, LOCKED_WHERE_UPDATED):
        workloads.run_step(cluster, script)
    cluster.sql("CREATE TABLE dropped (n int)")
    cluster.sql("BEGIN; DROP TABLE dropped; PREPARE TRANSACTION 'drops'")
    cluster.sql("COMMIT PREPARED 'drops'")
    workloads.BY_NAME["march"].run(cluster)


def promote(cluster: PlainPostgres) -> None:
    """A standby that recovers from nothing, and becomes a server of the second timeline."""
    cluster.stop()
    (cluster.data / "standby.signal").touch()
    cluster.start()
    cluster.sql("SELECT pg_promote()")
    while cluster.sql("SELECT pg_is_in_recovery()") != [(False,)]:
        time.sleep(0.1)


def described(cluster: PlainPostgres, timeline: int) -> Iterator[tuple[str, RecordHeader]]:
    """Each record that is left of a stopped cluster's timeline, and what pg_waldump says of it."""
    folder = cluster.data / "pg_wal"
    for file in folder.iterdir():
        if len(file.name) == 24 and int(file.name[:8], 16) != timeline:
            file.unlink()
    log = WalLog.of(cluster)
    dump = waldump(folder, log.start, "-t", str(timeline))
    said = {
        parse_lsn(found[1]): line
        for line in dump.splitlines()
        if (found := re.search(r"lsn: (\S+), prev", line)) is not None
    }
    for record in log.records():
        if record.start_lsn in said:
            yield said[record.start_lsn], record


def kinds_of(line: str, record: RecordHeader) -> Iterator[str]:
    for kind, pattern in KINDS.items():
        if re.search(f"rmgr: {pattern}", line):
            yield kind
    found = re.search(r"rmgr: Heap2? .*desc: (\w+)", line)
    if found is None or found[1] not in CLEARED_FLAG or "fork vm" in line:
        return
    body, at = record.data[wal.RECORD_HEADER :], CLEARED_FLAG[found[1]]
    length = main_length(body)
    if length is not None and body[len(body) - length :][at] & 1:
        yield f"heap {found[1].lower()} has a flag"


def main_length(body: bytes) -> int | None:
    """Of main data with a short header, in a record without images."""
    at = 0
    while body[at] <= 32:
        if body[at + 1] & 0x10:
            return None
        at += 8 if body[at + 1] & 0x80 else 20
    return body[at + 1] if body[at] == 255 else None


def collect(cluster: PlainPostgres, timeline: int, found: dict[str, dict[str, object]]) -> None:
    for line, record in described(cluster, timeline):
        for kind in kinds_of(line, record):
            known = found.get(kind)
            body = record.data[wal.RECORD_HEADER :].hex()
            if known is None or len(body) < len(str(known["body"])):
                says = re.sub(r"^rmgr: (\w+) .*?desc: ", r"\1 ", line)
                says = re.sub("; inval msgs.*?(?=, blkref|$)", "", says)
                found[kind] = {
                    "manager": record.rmgr,
                    "info": record.info,
                    "xid": record.xid,
                    "lsn": format_lsn(record.start_lsn),
                    "says": says,
                    "body": body,
                }


def main() -> None:
    found: dict[str, dict[str, object]] = {}
    for work, timeline in ((everything, 1), (promote, 2)):
        with plain_postgres(**SETTINGS) as cluster:
            work(cluster)
            cluster.stop()
            collect(cluster, timeline, found)
    GOLDEN.mkdir(exist_ok=True)
    target = GOLDEN / f"postgres-{MAJOR}.json"
    content = {
        "postgres": majors.exact(BINDIR),
        "catalog_version": VERSION.catalog_version,
        "records": {kind: found[kind] for kind in sorted(found)},
    }
    target.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{target}: {len(found)} kinds; not met: {sorted(set(KINDS) - set(found))}")


if __name__ == "__main__":
    main()
