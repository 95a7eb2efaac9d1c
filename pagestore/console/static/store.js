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
    if (news.version < this.version) this.version = 0; // another server
    const moved = news.rows.some((row) => {
      const before = this.byName.get(row.name);
      return !before || before.depth !== row.depth || before.parent !== row.parent;
    });
    if (moved || news.gone.length > 0) {
      await this.load();
      return;
    }
    this.version = news.version;
    for (const row of news.rows) Object.assign(this.byName.get(row.name), row);
    if (news.rows.length > 0) {
      this.measure();
      this.dispatchEvent(new CustomEvent("change", { detail: news.rows.map((row) => row.name) }));
    }
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
