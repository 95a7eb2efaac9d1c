// What there is to know of one database, and what can be done with it.
import { get, of, post } from "./api.js";
import { ask } from "./ask.js";
import { bytes, element, moment } from "./words.js";

const FACTS = [
  ["lsn", "stands at"],
  ["parent", "branched from"],
  ["branch_lsn", "at"],
  ["postgres", "Postgres"],
  ["kept_from", "history kept from"],
  ["error", "what is amiss"],
];
const SIZES = [
  ["logical_bytes", "logical"],
  ["own_bytes", "own"],
  ["shared_bytes", "shared"],
  ["history_bytes", "history"],
];

export class Detail {
  // `done` is told, in words, what was done, and to whom; `go` leads to another place.
  constructor(place, done, go) {
    this.place = place;
    this.done = done;
    this.go = go;
    this.name = null;
    this.view = "";
  }

  async show(name, view = "", other = "") {
    this.name = name;
    this.view = view;
    if (!name) {
      this.place.replaceChildren(element("p", { class: "hint" }, "Choose a database."));
      return;
    }
    if (view === "diff") return this.showDifference(other);
    let told;
    try {
      told = await get(of(name));
    } catch (error) {
      this.place.replaceChildren(element("p", { role: "alert" }, error.message));
      return;
    }
    if (this.name !== name || this.view !== view) return; // somebody chose another meanwhile
    this.place.replaceChildren(...this.facts(told), ...this.sql(name), ...this.log(told));
    if (view === "sql") this.place.querySelector("textarea").focus();
  }

  facts(told) {
    const list = element("dl");
    for (const [field, label] of FACTS) {
      if (told[field] !== null) list.append(pair(label, String(told[field])));
    }
    for (const [field, label] of SIZES) list.append(pair(`${label} bytes`, bytes(told[field])));
    if (told.usage) {
      const { awake_seconds, cpu_seconds, queries, wakes } = told.usage;
      const words = `${Math.round(awake_seconds)} s awake, ${cpu_seconds} s CPU, `;
      list.append(pair("in 7 days", `${words}${queries} queries, ${wakes} wakes`));
    }
    const verbs = [
      ["Branch", "b", () => this.branch()],
      ["Checkpoint", "c", () => this.checkpoint()],
      ["Undo", "u", () => this.move("undo")],
      ["Redo", "y", () => this.move("redo")],
      ["Compare", "d", () => this.compare(told.parent)],
      ["Remove", "Delete", () => this.remove()],
    ];
    const buttons = verbs.map(([words, key, action]) =>
      element("button", { type: "button", title: `${words} ( ${key} )`, onclick: action }, words),
    );
    return [element("h2", {}, told.name), element("div", { class: "verbs" }, ...buttons), list];
  }

  log(told) {
    const rows = told.log.map((entry) => {
      const words = entry.name ? `${entry.automatic ? "kept" : "checkpoint"} ${entry.name}` : entry.what;
      const more = [entry.detail, entry.git_commit?.slice(0, 12), entry.run_id]
        .concat(Object.entries(entry.notes ?? {}).map(([key, value]) => `${key}=${value}`))
        .filter(Boolean)
        .join(" · ");
      const restore = entry.name
        ? element("button", { type: "button", onclick: () => this.restore(entry.name) }, "Restore")
        : null;
      return element(
        "li",
        {},
        element("span", { class: "what" }, words),
        element("time", { datetime: entry.at }, `${moment(entry.at)} · ${entry.lsn}`),
        more ? element("span", { class: "more" }, more) : null,
        restore,
      );
    });
    return [element("h3", {}, "History"), element("ol", { class: "log" }, ...rows)];
  }

  sql(name) {
    const text = element("textarea", { rows: 3, spellcheck: "false", "aria-label": "SQL" });
    text.value = this.text ?? "SELECT now()";
    const only = element("input", { type: "checkbox", id: "read-only", checked: true });
    const result = element("div", { class: "result", "aria-live": "polite" });
    const run = async () => {
      this.text = text.value;
      result.replaceChildren(element("p", { class: "hint" }, "…"));
      try {
        const body = { text: text.value, read_only: only.checked };
        result.replaceChildren(...table(await post(of(name, "sql"), body)));
      } catch (error) {
        result.replaceChildren(element("p", { role: "alert" }, error.message));
      }
    };
    text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
    });
    return [
      element("h3", {}, "SQL"),
      text,
      element(
        "div",
        { class: "verbs" },
        element("button", { type: "button", onclick: run, title: "Run ( Ctrl Enter )" }, "Run"),
        element("label", { for: "read-only" }, only, " only read"),
      ),
      result,
    ];
  }

  async branch() {
    const given = await ask(`Branch ${this.name}`, "Branch", [
      { name: "name", label: "Name", hint: "made up where empty" },
      { name: "at", label: "At", hint: "now; or a checkpoint, an LSN, a time" },
      { name: "ttl", label: "For", hint: "ever; or 1h, 7d" },
    ]);
    if (given) await this.do("branch", given, ({ name }) => `branched ${name}`, ({ name }) => name);
  }

  async checkpoint() {
    const questions = [{ name: "name", label: "Name", required: true }];
    const given = await ask(`Name the state of ${this.name}`, "Checkpoint", questions);
    if (given) await this.do("checkpoint", given, ({ name, lsn }) => `${name} is at ${lsn}`);
  }

  async restore(at) {
    const sure = await ask(`Put ${this.name} to ${at}? What is there now is kept.`, "Restore", []);
    if (sure) await this.do("restore", { at }, ({ summary }) => summary);
  }

  async move(verb) {
    const sure = await ask(`${verb} on ${this.name}? It can be taken back.`, verb, []);
    if (sure) await this.do(verb, {}, ({ summary }) => summary);
  }

  async remove() {
    const question = `Remove ${this.name}, with its checkpoints? That cannot be taken back.`;
    const sure = await ask(question, "Remove", [], true);
    if (sure) await this.do("remove", {}, () => `removed ${this.name}`, () => "");
  }

  async compare(parent) {
    const questions = [{ name: "other", label: "With", value: parent ?? "", required: true }];
    const given = await ask(`Compare ${this.name}`, "Compare", questions);
    if (given) this.go(this.name, "diff", given.other);
  }

  async do(verb, body, words, then = () => this.name) {
    const name = this.name;
    try {
      const told = await post(of(name, verb), body);
      this.done(words(told), name);
      this.go(then(told));
    } catch (error) {
      this.done(error.message, name, true);
    }
  }

  async showDifference(other) {
    const name = this.name;
    const title = element("h2", {}, `${name} → ${other}`);
    this.place.replaceChildren(title, element("p", { class: "hint" }, "Comparing…"));
    try {
      const told = await get(of(name, `diff/${encodeURIComponent(other)}`));
      if (this.name === name && this.view === "diff") {
        this.place.replaceChildren(title, ...difference(told));
      }
    } catch (error) {
      this.place.replaceChildren(title, element("p", { role: "alert" }, error.message));
    }
  }
}

function pair(label, words) {
  return element("div", {}, element("dt", {}, label), element("dd", {}, words));
}

function table(told) {
  const said = element("p", { class: "hint" }, told.statements.join("; "));
  if (told.at_lsn) said.append(` at ${told.at_lsn}`);
  if (told.more) said.append("; there are more rows");
  if (told.columns.length === 0) return [said];
  const cell = (value) =>
    element("td", {}, value === null ? "∅" : typeof value === "object" ? JSON.stringify(value) : String(value));
  const head = element("tr", {}, ...told.columns.map((name) => element("th", { scope: "col" }, name)));
  const rows = told.rows.map((row) => element("tr", {}, ...row.map(cell)));
  const made = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  return [said, element("div", { class: "scrolled", tabindex: "0" }, made)];
}

function difference(told) {
  const parts = [];
  const schema = told.schema ?? [];
  const tables = told.tables ?? [];
  if (schema.length === 0 && tables.length === 0) return [element("p", {}, "They do not differ.")];
  for (const item of schema) {
    const words = [item.change, item.kind, item.name].filter(Boolean).join(" ");
    parts.push(element("h3", {}, words));
    for (const ddl of [item.before, item.after]) {
      if (ddl) parts.push(element("pre", { tabindex: "0" }, ddl));
    }
  }
  for (const item of tables) {
    parts.push(element("h3", {}, item.name ?? item.table));
    parts.push(element("pre", { tabindex: "0" }, JSON.stringify(item, null, 1)));
  }
  return parts;
}
