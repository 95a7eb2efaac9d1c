// The branch tree: only the rows in sight are elements, so ten thousand cost what thirty do.
import { get } from "./api.js";
import { bytes, drawn, element, milliseconds } from "./words.js";

const ROW = 30;
const BEYOND = 6; // rows above and below what is in sight
const LANE = 320;
const LANE_EDGE = 6;

export class Tree {
  constructor(place, store, chosen) {
    this.place = place;
    this.store = store;
    this.chosen = chosen; // told who was chosen, and whether to go there
    this.inner = place.querySelector(".inner");
    this.selected = null;
    this.visible = [];
    this.checkpoints = new Map(); // by name: LSN of the database when asked, and what was told
    place.addEventListener("scroll", () => this.draw(), { passive: true });
    place.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(place);
    store.addEventListener("change", () => this.refresh());
  }

  refresh() {
    this.visible = this.store.visible();
    this.inner.style.height = `${this.visible.length * ROW}px`;
    this.place.setAttribute("aria-rowcount", String(this.visible.length + 1));
    this.draw();
  }

  draw() {
    const top = this.place.scrollTop;
    const first = Math.max(0, Math.floor(top / ROW) - BEYOND);
    const last = Math.min(
      this.visible.length,
      Math.ceil((top + this.place.clientHeight) / ROW) + BEYOND,
    );
    const lines = this.connectors(first, last);
    const rows = [];
    for (let at = first; at < last; at += 1) rows.push(this.row(at, lines.get(at)));
    this.inner.replaceChildren(...rows);
    this.place.setAttribute("aria-activedescendant", this.selected ? `row-${this.selected}` : "");
    this.ask(first, last);
  }

  row(at, lines) {
    const index = this.visible[at];
    const row = this.store.rows[index];
    const open = this.store.hasChildren(index) ? !this.store.collapsed.has(row.name) : null;
    const toggle = element("span", { class: "toggle", "aria-hidden": "true" });
    toggle.textContent = open === null ? "" : open ? "▾" : "▸";
    toggle.addEventListener("click", (event) => {
      event.stopPropagation();
      this.toggle(row.name);
    });
    const name = element("span", { role: "rowheader", class: "name" }, toggle, row.name);
    name.style.paddingInlineStart = `${row.depth * 16}px`;
    const made = element(
      "div",
      {
        role: "row",
        id: `row-${row.name}`,
        class: row.name === this.selected ? "row selected" : "row",
        "aria-rowindex": at + 2,
        "aria-level": row.depth + 1,
        "aria-expanded": open === null ? null : String(open),
        "aria-selected": String(row.name === this.selected),
        onclick: () => this.select(row.name, true),
      },
      name,
      element("span", { role: "gridcell", class: "lane" }, this.lane(row, lines)),
      element("span", { role: "gridcell", class: `state ${row.state}` }, row.state),
      element("span", { role: "gridcell", class: "number" }, milliseconds(row.wake_seconds)),
      element("span", { role: "gridcell", class: "number" }, String(row.sessions || "–")),
      element("span", { role: "gridcell", class: "number" }, bytes(row.bytes)),
      element("span", { role: "gridcell", class: "why", title: row.why ?? "" }, row.why ?? ""),
    );
    made.style.transform = `translateY(${at * ROW}px)`;
    return made;
  }

  x(row, position) {
    const { low, high } = row.range;
    const part = high > low ? (position - low) / (high - low) : 1;
    return LANE_EDGE + Math.min(Math.max(part, 0), 1) * (LANE - 2 * LANE_EDGE);
  }

  lane(row, lines) {
    const from = row.from === null ? LANE_EDGE : this.x(row, row.from);
    const to = Math.max(this.x(row, row.at), from + 1);
    const label = `from ${row.from === null ? "its beginning" : "its branch"} to ${row.lsn}`;
    const made = drawn("svg", { width: LANE, height: ROW, role: "img", "aria-label": label });
    const y = ROW / 2;
    for (const { x, y1, y2 } of lines) {
      made.append(drawn("line", { class: "branch", x1: x, y1, x2: x, y2 }));
    }
    made.append(drawn("line", { class: `line ${row.state}`, x1: from, y1: y, x2: to, y2: y }));
    for (const found of this.checkpoints.get(row.name)?.found ?? []) {
      const x = this.x(row, found.position);
      const tick = drawn("path", {
        class: found.automatic ? "checkpoint automatic" : "checkpoint",
        d: `M${x} ${y - 5} l5 5 l-5 5 l-5 -5 z`,
      });
      const title = drawn("title");
      title.textContent = `${found.name} at ${found.lsn}`;
      tick.append(title);
      made.append(tick);
    }
    made.append(drawn("circle", { class: `head ${row.state}`, cx: to, cy: y, r: 3.5 }));
    return made;
  }

  // Lines from each branch in sight up to its parent: by row, where and over which part of it.
  connectors(first, last) {
    const lines = new Map();
    const places = new Map();
    for (let at = first; at < last; at += 1) {
      lines.set(at, []);
      const row = this.store.rows[this.visible[at]];
      places.set(row.name, at);
      if (row.from === null || this.store.wanted) continue;
      const above = places.get(row.parent);
      const x = this.x(row, row.from);
      for (let over = above ?? first; over <= at; over += 1) {
        const y1 = over === above ? ROW / 2 : 0;
        lines.get(over).push({ x, y1, y2: over === at ? ROW / 2 : ROW });
      }
    }
    return lines;
  }

  // Checkpoints of what is in sight, once for each position of a database.
  ask(first, last) {
    clearTimeout(this.asking);
    this.asking = setTimeout(async () => {
      const names = [];
      for (let at = first; at < last; at += 1) {
        const row = this.store.rows[this.visible[at]];
        if (row && this.checkpoints.get(row.name)?.at !== row.at) names.push(row);
      }
      if (names.length === 0) return;
      const query = names.map((row) => `name=${encodeURIComponent(row.name)}`).join("&");
      const told = await get(`/api/checkpoints?${query}`).catch(() => ({}));
      for (const row of names) {
        this.checkpoints.set(row.name, { at: row.at, found: told[row.name] ?? [] });
      }
      this.draw();
    }, 150);
  }

  forgetCheckpoints(name) {
    this.checkpoints.delete(name);
    this.draw();
  }

  select(name, go) {
    this.selected = name;
    const at = this.visible.findIndex((index) => this.store.rows[index].name === name);
    if (at >= 0) {
      const top = at * ROW;
      if (top < this.place.scrollTop) this.place.scrollTop = top;
      const most = top + ROW - this.place.clientHeight;
      if (most > this.place.scrollTop) this.place.scrollTop = most;
    }
    this.draw();
    this.chosen(name, go);
  }

  toggle(name) {
    const { collapsed } = this.store;
    if (!collapsed.delete(name)) collapsed.add(name);
    this.refresh();
  }

  key(event) {
    const at = this.visible.findIndex((index) => this.store.rows[index].name === this.selected);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -1e9, End: 1e9 };
    if (event.key in steps) {
      event.preventDefault();
      const next = Math.min(Math.max(at + steps[event.key], 0), this.visible.length - 1);
      if (next >= 0) this.select(this.store.rows[this.visible[next]].name, false);
      return;
    }
    if (at < 0) return;
    const index = this.visible[at];
    const row = this.store.rows[index];
    const open = this.store.hasChildren(index) && !this.store.collapsed.has(row.name);
    if (event.key === "ArrowLeft") {
      if (open) this.toggle(row.name);
      else if (row.parent && this.store.byName.has(row.parent)) this.select(row.parent, false);
    } else if (event.key === "ArrowRight") {
      if (this.store.hasChildren(index) && !open) this.toggle(row.name);
    } else if (event.key === "Enter") {
      this.select(row.name, true);
    } else return;
    event.preventDefault();
  }
}
