// The rows of the tree as the server tells them: first by pages, then what changes.
import { get } from "./api.js";

const FIRST = 100;
const PAGE = 500;
const AGAIN_MS = 2000;

export class Store extends EventTarget {
  constructor() {
    super();
    this.rows = []; // in the order of the tree
    this.byName = new Map();
    this.total = 0;
    this.version = 0;
    this.collapsed = new Set();
    this.wanted = ""; // what is searched for
  }

  async load() {
    let offset = 0;
    const rows = [];
    for (let limit = FIRST; ; limit = PAGE) {
      const page = await get(`/api/databases?offset=${offset}&limit=${limit}`);
      if (offset === 0) this.version = page.version;
      rows.push(...page.rows);
      offset += page.rows.length;
      this.take(rows, page.total);
      if (page.rows.length === 0 || offset >= page.total) return;
    }
  }

  take(rows, total) {
    this.rows = rows;
    this.total = total;
    this.byName = new Map(rows.map((row) => [row.name, row]));
    this.measure();
    this.dispatchEvent(new Event("change"));
  }

  // From and to which LSN the lanes of each tree go.
  measure() {
    let range = null;
    for (const row of this.rows) {
      if (row.depth === 0) range = { low: row.at, high: row.at };
      if (row.from !== null) range.low = Math.min(range.low, row.from);
      range.high = Math.max(range.high, row.at);
      row.range = range;
    }
  }

  async follow() {
    for (;;) {
      try {
        const news = await get(`/api/news?since=${this.version}`);
        await this.learn(news);
      } catch (error) {
        this.dispatchEvent(new CustomEvent("fault", { detail: error }));
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }

  async learn(news) {
    const moved = news.rows.filter((row) => row.moved);
    const rows = this.moved(moved, news.gone);
    // Another server; or something moved between two pages of the list.
    if (news.version < this.version || rows.length !== news.total) {
      await this.load();
      return;
    }
    this.version = news.version;
    for (const row of news.rows) {
      const before = this.byName.get(row.name);
      if (before) Object.assign(before, row);
    }
    if (moved.length > 0 || news.gone.length > 0) {
      this.take(rows, news.total);
      return;
    }
    if (news.rows.length > 0) {
      this.measure();
      this.dispatchEvent(new CustomEvent("change", { detail: news.rows.map((row) => row.name) }));
    }
  }

  // The rows without those that are gone, and with those that have moved where they are now: what
  // is left stands in the order that it was in.
  moved(moved, gone) {
    const elsewhere = new Set([...gone, ...moved.map((row) => row.name)]);
    if (elsewhere.size === 0) return this.rows;
    const rows = this.rows.filter((row) => !elsewhere.has(row.name));
    for (const row of [...moved].sort((a, b) => a.index - b.index)) rows.splice(row.index, 0, row);
    return rows;
  }

  hasChildren(index) {
    const next = this.rows[index + 1];
    return next !== undefined && next.depth > this.rows[index].depth;
  }

  // Rows in sight of nobody's closed parent, or, while something is searched for, those it fits.
  visible() {
    const wanted = this.wanted.toLowerCase();
    const shown = [];
    let under = Infinity;
    for (const [index, row] of this.rows.entries()) {
      if (wanted) {
        if (row.name.toLowerCase().includes(wanted)) shown.push(index);
        continue;
      }
      if (row.depth > under) continue;
      under = this.collapsed.has(row.name) ? row.depth : Infinity;
      shown.push(index);
    }
    return shown;
  }

  counts() {
    const counts = { awake: 0, sessions: 0, bytes: 0 };
    for (const row of this.rows) {
      if (row.state !== "asleep") counts.awake += 1;
      counts.sessions += row.sessions;
      counts.bytes += row.bytes;
    }
    return counts;
  }
}
