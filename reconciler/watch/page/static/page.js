// Puts the parts together: the stream fills the table, the fragment of the address opens one sandbox.

import { Detail } from "./detail.js";
import { Feed } from "./feed.js";
import { Table } from "./table.js";
import { clock, element, isWell } from "./words.js";

const get = (id) => document.getElementById(id);
// The most news that are read out at once.
const READ_OUT = 3;
// Milliseconds after which an open sandbox is asked for again, if nothing has changed meanwhile.
const AGAIN = 5000;

const table = new Table();
let seen = new Set();
let about = { host: "", alarms: [], problems: [], polling: "" };
let isComplete = false;
let news = [];

const feed = new Feed({
  // What was sent of an update that has not ended counts for nothing.
  begin() {
    seen = new Set();
  },
  rows(changed) {
    changed.forEach((each) => seen.add(each.sandbox));
    news.push(...table.update(changed, feed.now()));
    // The first rows are shown before the last have come.
    if (!isComplete) table.show();
    if (changed.some((each) => each.sandbox === detail.name)) detail.load();
  },
  end(data) {
    // All of it: what was not sent is gone.
    table.remove(data.all ? [...table.rows.keys()].filter((name) => !seen.has(name)) : data.gone);
    if (data.all ? !seen.has(detail.name) : data.gone.includes(detail.name)) if (detail.name) detail.load();
    seen = new Set();
    if (data.about) showAbout(data.about);
    isComplete = true;
    table.tick(feed.now());
    table.show();
    table.mark(detail.name);
    readOut();
    showTitle();
  },
  heard: showHeard,
});
const detail = new Detail(() => feed.now());

function showAbout(data) {
  about = data;
  get("host").textContent = `on ${data.host}`;
  const list = (name, words, className) => {
    if (!words.length) return [];
    const made = element("ul");
    made.append(...words.map((each) => element("li", each, className)));
    return [element("strong", name), made];
  };
  const polling = data.polling ? [element("p", `Files are checked every 2 s: ${data.polling}`)] : [];
  get("notices").replaceChildren(
    ...list("Alarms", data.alarms, "alarm"), ...list("Problems of manifests", data.problems, "problem"), ...polling,
  );
  get("notices").hidden = !get("notices").childNodes.length;
}

function showTitle() {
  const unwell = [...table.rows.values()].filter((row) => !isWell(row.data)).length;
  const count = unwell + about.alarms.length + about.problems.length;
  document.title = `${document.body.classList.contains("stale") ? "? " : count ? `(${count}) ` : ""}reconciler ${about.host ?? ""}`.trim();
}

function showHeard(isHeard) {
  const isStale = !isHeard;
  if (document.body.classList.contains("stale") !== isStale || !get("connection").dataset.heard) {
    get("connection").dataset.heard = String(isHeard);
    document.body.classList.toggle("stale", isStale);
    get("stale").hidden = isHeard;
    const since = feed.last() ? ` What is shown was so at ${clock(feed.last())}.` : "";
    get("stale").textContent = isHeard ? "" : `Disconnected: the state of all sandboxes is unknown.${since} Connecting again …`;
    get("connection").textContent = isHeard ? "Live" : "Disconnected";
    if (isHeard && detail.name) detail.load();
    showTitle();
  }
}

function readOut() {
  if (news.length) {
    const first = news.slice(0, READ_OUT).map((each) => `${each.sandbox} is ${each.state}`).join(", ");
    get("news").textContent = news.length > READ_OUT ? `${first}, and ${news.length - READ_OUT} more` : first;
    news = [];
  }
}

function openFragment() {
  let name = "";
  try {
    name = decodeURIComponent(location.hash.slice(1));
  } catch {
    // No fragment of ours.
  }
  if (name === "sandboxes") name = "";
  const before = detail.name;
  if (!detail.open(name)) return;
  table.mark(name);
  if (name) get("detail-name").focus({ preventScroll: true });
  else if (before) {
    table.reach(table.rows.get(before)?.line);
    table.focus();
  }
}

function close() {
  if (detail.name) location.hash = "";
}

addEventListener("hashchange", openFragment);
addEventListener("keydown", (event) => {
  const isTyping = event.target.matches?.("input, textarea");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.altKey && !event.metaKey) {
    event.preventDefault();
    get("search").focus();
    get("search").select();
  } else if (event.key === "Escape") {
    if (isTyping && get("search").value) {
      get("search").value = "";
      table.show();
    } else if (isTyping) table.focus();
    else close();
  } else if (event.key === "ArrowDown" && event.target === get("search")) {
    event.preventDefault();
    table.focus();
  }
});
get("skip").addEventListener("click", (event) => {
  event.preventDefault();
  if (table.current) table.focus();
  else get("sandboxes").focus();
});
get("close").addEventListener("click", (event) => {
  event.preventDefault();
  close();
});
setInterval(() => {
  if (document.hidden) return;
  table.tick(feed.now());
  detail.tick();
}, 1000);
// What others did, such as a command of a person, may be recorded after the last look.
setInterval(() => {
  if (!document.hidden && detail.data) detail.load();
}, AGAIN);
openFragment();
