-- Each access method and each kind of heap change, with enough rows for splits at two levels.
CREATE EXTENSION bloom;
CREATE EXTENSION btree_gist;

-- Heap: inserts one by one and many at once, updates HOT and not, deletes, pruning, freezing.
CREATE TABLE accounts (id int PRIMARY KEY, branch int, balance int, filler text)
  WITH (fillfactor = 80);
INSERT INTO accounts SELECT i, i % 10, 0, repeat('x', i % 90) FROM generate_series(1, 20000) i;
CREATE INDEX accounts_branch ON accounts (branch);
VACUUM accounts;
UPDATE accounts SET balance = balance + 1 WHERE id % 3 = 0;
UPDATE accounts SET branch = branch + 1 WHERE id % 7 = 0;
SELECT count(*) FROM accounts WHERE filler LIKE '%x';
DELETE FROM accounts WHERE id % 5 = 0;
VACUUM accounts;
UPDATE accounts SET balance = 5 WHERE id BETWEEN 100 AND 400;
INSERT INTO accounts SELECT i, i % 10, 0, 'again' FROM generate_series(20001, 24000) i;
DELETE FROM accounts WHERE id > 22000;
VACUUM (FREEZE) accounts;
UPDATE accounts SET balance = 6 WHERE id % 11 = 0;
SELECT count(*) FROM (SELECT id FROM accounts WHERE id < 300 FOR UPDATE) s;
SELECT count(*) FROM (SELECT id FROM accounts WHERE id BETWEEN 301 AND 400 FOR KEY SHARE) s;

-- COPY (multi-insert), TOAST, and a table that is cut and grows again.
CREATE TABLE documents (id serial PRIMARY KEY, body text);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
INSERT INTO documents (body) SELECT repeat(md5(i::text), 200 + i % 50) FROM generate_series(1, 300) i;
UPDATE documents SET body = body || 'tail' WHERE id % 4 = 0;
DELETE FROM documents WHERE id > 150;
VACUUM documents;
INSERT INTO documents (body) SELECT repeat('grown', 1000) FROM generate_series(1, 40);
COPY (SELECT i, md5(i::text) FROM generate_series(1, 8000) i) TO :'copy_file';
CREATE TABLE copied (id int, body text);
COPY copied FROM :'copy_file';
VACUUM copied;
DELETE FROM copied WHERE id > 2000;
VACUUM copied;
COPY copied FROM :'copy_file';
BEGIN;
CREATE TABLE fresh (id int);
COPY fresh FROM PROGRAM 'seq 1 5000';
COMMIT;

-- Speculative insertion, subtransactions, multixacts, aborts, two-phase commit.
INSERT INTO accounts VALUES (1, 1, 1, 'one') ON CONFLICT (id) DO UPDATE SET balance = 99;
INSERT INTO accounts SELECT i, 0, 0, 'u' FROM generate_series(1, 500) i ON CONFLICT DO NOTHING;
BEGIN;
SAVEPOINT a; UPDATE accounts SET balance = 1 WHERE id = 2; ROLLBACK TO a;
SAVEPOINT b; UPDATE accounts SET balance = 2 WHERE id = 3; RELEASE b;
SELECT count(*) FROM (SELECT * FROM accounts WHERE id = 3 FOR SHARE) s;
COMMIT;
BEGIN; DELETE FROM accounts WHERE id < 50; ROLLBACK;
BEGIN; UPDATE accounts SET balance = 77 WHERE id = 60; PREPARE TRANSACTION 'one';
BEGIN; UPDATE accounts SET balance = 78 WHERE id = 61; PREPARE TRANSACTION 'two';
COMMIT PREPARED 'one';
ROLLBACK PREPARED 'two';

-- B-tree: random keys, deduplication, deletion of whole pages, dead items.
CREATE TABLE keys (k int, v text);
CREATE INDEX keys_k ON keys (k);
CREATE INDEX keys_v ON keys (v);
INSERT INTO keys SELECT (i * 7919) % 30011, 'v' || i % 20 FROM generate_series(1, 30000) i;
DELETE FROM keys WHERE k BETWEEN 5000 AND 20000;
VACUUM keys;
VACUUM keys;
INSERT INTO keys SELECT i, 'w' FROM generate_series(1, 3000) i;
UPDATE keys SET v = v || '!' WHERE k < 2000;
UPDATE keys SET v = v || '?' WHERE k < 1000;

-- Hash: splits, overflow pages, squeeze.
CREATE TABLE hashed (k int);
CREATE INDEX hashed_k ON hashed USING hash (k);
INSERT INTO hashed SELECT i % 4000 FROM generate_series(1, 20000) i;
DELETE FROM hashed WHERE k % 3 <> 0;
VACUUM hashed;
INSERT INTO hashed SELECT 7 FROM generate_series(1, 1500);
DELETE FROM hashed WHERE k = 7;
VACUUM hashed;

-- GIN: pending list, posting trees, vacuum; GiST; SP-GiST; BRIN; bloom.
CREATE TABLE words (id int, w text[], p point, r int4range, q text, n int);
CREATE INDEX words_gin ON words USING gin (w);
CREATE INDEX words_gin_now ON words USING gin (w) WITH (fastupdate = off);
CREATE INDEX words_gist ON words USING gist (p);
CREATE INDEX words_range ON words USING gist (r);
CREATE INDEX words_int ON words USING gist (n);
CREATE INDEX words_quad ON words USING spgist (p);
CREATE INDEX words_radix ON words USING spgist (q);
CREATE INDEX words_brin ON words USING brin (n) WITH (pages_per_range = 2, autosummarize = off);
CREATE INDEX words_bloom ON words USING bloom (id, n);
INSERT INTO words SELECT i, ARRAY['w' || i % 50, 'common', md5(i::text)],
    point((i * 37) % 1000, (i * 91) % 1000), int4range(i % 500, i % 500 + 10),
    md5((i % 3000)::text), i FROM generate_series(1, 6000) i;
SELECT brin_summarize_new_values('words_brin');
VACUUM words;
DELETE FROM words WHERE id % 2 = 0 OR id BETWEEN 2000 AND 4000;
VACUUM words;
UPDATE words SET n = n + 100000, p = point(n % 77, n % 33), q = q || 'z' WHERE id % 5 = 0;
SELECT brin_desummarize_range('words_brin', 0);
SELECT brin_summarize_new_values('words_brin');
INSERT INTO words SELECT i, ARRAY['late'], point(i, i), int4range(i, i + 1), 'late' || i, i
    FROM generate_series(1, 1500) i;
SELECT gin_clean_pending_list('words_gin');
VACUUM words;

-- Rarer records: deleted posting tree pages, split radix tuples, a vacuumed SP-GiST root, index
-- tuples killed by scans and removed by the next insertion, BRIN tuples that outgrow their page.
CREATE TABLE postings (w int[]);
CREATE INDEX postings_w ON postings USING gin (w) WITH (fastupdate = off);
INSERT INTO postings SELECT '{1}' FROM generate_series(1, 60000);
DELETE FROM postings WHERE ctid > '(50,1)' AND ctid < '(280,1)';
VACUUM postings;
CREATE TABLE prefixes (q text);
CREATE INDEX prefixes_q ON prefixes USING spgist (q);
INSERT INTO prefixes SELECT repeat('a', 60) || md5(i::text) FROM generate_series(1, 600) i;
INSERT INTO prefixes SELECT repeat('a', 60 - i) || 'b' || i FROM generate_series(1, 50) i;
CREATE TABLE roots (p point);
CREATE INDEX roots_p ON roots USING spgist (p);
INSERT INTO roots SELECT point(i, i) FROM generate_series(1, 20) i;
DELETE FROM roots WHERE p[0] < 10;
VACUUM roots;
CREATE TABLE killed (k int, n int);
CREATE INDEX killed_hash ON killed USING hash (k);
CREATE INDEX killed_gist ON killed USING gist (n);
INSERT INTO killed SELECT i % 20, i % 700 FROM generate_series(1, 6000) i;
DELETE FROM killed WHERE k < 10;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT sum(c) FROM generate_series(0, 9) g, LATERAL (SELECT count(*) c FROM killed WHERE k = g) s;
SELECT count(*) FROM killed WHERE n BETWEEN 0 AND 700;
INSERT INTO killed SELECT i % 20, i % 700 FROM generate_series(1, 6000) i;
RESET enable_seqscan;
RESET enable_bitmapscan;
CREATE TABLE ranges (t text);
CREATE INDEX ranges_t ON ranges USING brin (t) WITH (pages_per_range = 1);
INSERT INTO ranges SELECT 'm' FROM generate_series(1, 5000);
SELECT brin_summarize_new_values('ranges_t');
UPDATE ranges SET t = repeat('z', 900) WHERE ctid IN ('(0,1)', '(1,1)', '(2,1)', '(3,1)');
DELETE FROM ranges WHERE ctid < '(4,1)';
VACUUM ranges;
INSERT INTO ranges SELECT repeat(chr(97 + i % 26), 800 + i) FROM generate_series(1, 60) i;

-- Indexes built over data; rewrites; sequences; large objects; a database of its own.
CREATE INDEX words_gin_built ON words USING gin (w);
CREATE INDEX words_spgist_built ON words USING spgist (q);
CREATE INDEX words_hash_built ON words USING hash (id);
CREATE TABLE rewritten AS SELECT * FROM accounts;
CREATE INDEX rewritten_id ON rewritten (id);
CLUSTER rewritten USING rewritten_id;
DELETE FROM rewritten WHERE id < 1000;
VACUUM FULL rewritten;
CREATE SEQUENCE s;
SELECT count(nextval('s')) FROM generate_series(1, 100);
SELECT setval('s', 5000);
SELECT lo_from_bytea(0, decode(repeat('ab', 20000), 'hex'));
CREATE TABLE cut (id int);
INSERT INTO cut SELECT generate_series(1, 5000);
VACUUM cut;
TRUNCATE cut;
INSERT INTO cut SELECT generate_series(1, 100);
CREATE DATABASE other STRATEGY wal_log;
VACUUM ANALYZE;
