// Puts the page together: the tree, the chosen database, keys, deep links, the theme.
import { post } from "./api.js";
import { ask } from "./ask.js";
import { Detail } from "./detail.js";
import { Store } from "./store.js";
import { Tree } from "./tree.js";
import { bytes } from "./words.js";

const said = document.getElementById("said");
const search = document.getElementById("search");
const place = document.getElementById("tree");
const store = new Store();

function go(name, view = "", other = "") {
  const parts = name ? ["db", name, view, other].filter(Boolean).map(encodeURIComponent) : [];
  const hash = `#/${parts.join("/")}`;
  if (location.hash === hash) follow();
  else location.hash = hash;
}

function tell(words, name, fault = false) {
  said.textContent = words;
  said.className = fault ? "fault" : "";
  if (name) tree.forgetCheckpoints(name);
}

const detail = new Detail(document.getElementById("detail"), tell, go);
const tree = new Tree(place, store, (name, there) => there && go(name));

// What the address says is shown.
function follow() {
  const [kind, name, view, other] = location.hash.slice(2).split("/").map(decodeURIComponent);
  const chosen = kind === "db" ? name : null;
  if (chosen && tree.selected !== chosen) tree.select(chosen, false);
  detail.show(chosen, view ?? "", other ?? "");
}

function count() {
  const { awake, sessions, bytes: own } = store.counts();
  const words = `${store.total} databases · ${awake} awake · ${sessions} sessions · ${bytes(own)}`;
  document.getElementById("counts").textContent = words;
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
}

function otherTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const now = document.documentElement.dataset.theme ?? dark;
  setTheme(now === "dark" ? "light" : "dark");
}

function help() {
  const keys =
    "/ find · ↑ ↓ choose · ← → close and open · Enter show · b branch · c checkpoint · " +
    "u undo · y redo · d compare · s SQL · Delete remove · t theme";
  ask(keys, "Good", []);
}

const KEYS = {
  "/": () => search.focus(),
  "?": help,
  t: otherTheme,
  s: () => tree.selected && go(tree.selected, "sql"),
  b: () => detail.branch(),
  c: () => detail.checkpoint(),
  u: () => detail.move("undo"),
  y: () => detail.move("redo"),
  d: () => detail.compare(store.byName.get(detail.name)?.parent),
  Delete: () => detail.remove(),
};
const OF_ONE = new Set(["b", "c", "u", "y", "d", "Delete"]);

document.addEventListener("keydown", (event) => {
  const writes = event.target.closest("input, textarea, dialog");
  if (event.key === "Escape" && event.target === search) place.focus();
  if (writes || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  if (OF_ONE.has(event.key) && !detail.name) return;
  event.preventDefault();
  KEYS[event.key]();
});
search.addEventListener("input", () => {
  store.wanted = search.value.trim();
  place.scrollTop = 0;
  tree.refresh();
});
document.getElementById("theme").addEventListener("click", otherTheme);
document.getElementById("help").addEventListener("click", help);
document.getElementById("leave").addEventListener("click", async () => {
  await post("/logout");
  location.assign("/login");
});
store.addEventListener("change", (event) => {
  count();
  if (event.detail?.includes(detail.name) && detail.view === "" && !detailIsUsed()) follow();
});
store.addEventListener("fault", (event) => tell(event.detail.message, null, true));
addEventListener("hashchange", follow);

function detailIsUsed() {
  return document.getElementById("detail").contains(document.activeElement);
}

const theme = localStorage.getItem("theme");
if (theme) setTheme(theme);
await store.load();
follow();
place.focus();
store.follow();
