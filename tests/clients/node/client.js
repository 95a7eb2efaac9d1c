// node-postgres: its pool, and a session that listens. See ../programs.py for what it is told.
"use strict";
const fs = require("fs");
const net = require("net");
const readline = require("readline");
const assert = require("assert");
const { pipeline } = require("stream/promises");
const { Readable } = require("stream");
const { Client, Pool } = require("pg");
const copy = require("pg-copy-streams");

const door = JSON.parse(process.argv[process.argv.length - 1]);
const facts = {
  host: door.host, port: door.port, user: door.user, password: door.password,
  database: door.database, enableChannelBinding: Boolean(door.certificate),
  ssl: door.certificate ? { ca: fs.readFileSync(door.certificate) } : false,
};
const pool = new Pool({ ...facts, max: door.sessions, idleTimeoutMillis: 0 });
const listener = new Client(facts);
const payloads = [];
let lost = 0;
pool.on("error", () => { lost += 1; });
listener.on("notification", (told) => payloads.push(told.payload));

async function withAll(use) {
  const sessions = [];
  for (let i = 0; i < door.sessions; i += 1) sessions.push(await pool.connect());
  try {
    for (const session of sessions) await use(session);
  } finally {
    for (const session of sessions) session.release();
  }
}

async function copies(session) {
  await session.query("CREATE TABLE node_rows (a int, b text)");
  const lines = Readable.from((function* rows() {
    for (let i = 0; i < door.rows; i += 1) yield `${i}\t${"x".repeat(40)}\n`;
  })());
  await pipeline(lines, session.query(copy.from("COPY node_rows FROM STDIN")));
  let seen = 0;
  for await (const piece of session.query(copy.to("COPY node_rows TO STDOUT"))) {
    for (const byte of piece) if (byte === 10) seen += 1;
  }
  assert.strictEqual(seen, door.rows);
  await session.query("DROP TABLE node_rows");
}

// The driver's own cancel wants its query object; the protocol wants only the key.
function cancel(session) {
  const packet = Buffer.alloc(16);
  [16, 80877102, session.processID, session.secretKey].forEach((word, i) => {
    packet.writeUInt32BE(word >>> 0, i * 4);
  });
  net.connect(door.port, door.host).end(packet);
}

const more = { name: "more", text: "SELECT $1::int + 1 AS n" };
const verbs = {
  async exercise() {
    const session = await pool.connect();
    try {
      const [one, two] = await session.query("SELECT 1 AS a; SELECT 2 AS a");
      assert.deepStrictEqual([one.rows[0].a, two.rows[0].a], [1, 2]);
      assert.strictEqual((await session.query("SELECT $1::text AS t", ["ä"])).rows[0].t, "ä");
      await assert.rejects(session.query("SELECT 1 / $1::int", [0]), { code: "22012" });
      const many = await Promise.all([...Array(100).keys()].map(
        (n) => session.query("SELECT $1::int AS n", [n])));
      many.forEach((found, n) => assert.strictEqual(found.rows[0].n, n));
      await copies(session);
      const large = await session.query("SELECT repeat('z', $1) AS t", [door.large]);
      assert.strictEqual(large.rows[0].t.length, door.large);
      const rows = await session.query("SELECT generate_series(1, $1::int)", [door.rows]);
      assert.strictEqual(rows.rows.length, door.rows);
      const sleeping = session.query("SELECT pg_sleep(60)");
      setTimeout(() => cancel(session), 200);
      await assert.rejects(sleeping, { code: "57014" });
    } finally {
      session.release();
    }
  },
  async settle() {
    await withAll(async (session) => {
      await session.query(`SET work_mem = '${door.work_mem}'`);
      await session.query({ ...more, values: [1] });
    });
    await listener.query(`LISTEN ${door.channel}`);
  },
  async check() {
    await withAll(async (session) => {
      assert.strictEqual((await session.query({ ...more, values: [41] })).rows[0].n, 42);
      assert.strictEqual((await session.query("SHOW work_mem")).rows[0].work_mem, door.work_mem);
    });
    assert.strictEqual(lost, 0);
  },
  async heard() {
    for (let i = 0; i < 500 && payloads.length === 0; i += 1) {
      await new Promise((done) => { setTimeout(done, 20); });
    }
    return payloads.splice(0);
  },
  async close() {
    await listener.end();
    await pool.end();
  },
};

(async () => {
  const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
  const attempt = async (act) => {
    try {
      say({ ok: (await act()) || [] });
    } catch (error) {
      say({ failed: String(error.stack || error) });
    }
  };
  await attempt(() => listener.connect());
  for await (const line of readline.createInterface({ input: process.stdin })) {
    await attempt(verbs[line.trim()]);
  }
})();
