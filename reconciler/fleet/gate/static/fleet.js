// The page of a fleet: hosts, the release and its waves, and one host's sandboxes.

import { Feed } from "./feed.js";
import { age, clock, element, moment } from "./words.js";

const get = (id) => document.getElementById(id);
// What a state of a host means to a person: the class of its colour.
const KINDS = {
  reached: "good", empty: "other", paused: "other", fenced: "other", due: "warn", withheld: "warn", "under way": "warn",
  silent: "bad", failed: "bad", unwell: "bad",
};
const SANDBOX_KINDS = { waiting: "warn", pending: "warn", drifted: "warn" };
const isException = (host) => !["reached", "empty", "paused", "fenced"].includes(host.state);
// Milliseconds after which an open host is asked for again.
const AGAIN = 5000;

const rows = new Map();
let seen = new Set();
let opened = "";
let about = { alarms: [] };

const feed = new Feed({
  begin() {
    seen = new Set();
  },
  rows(changed) {
    for (const host of changed) {
      seen.add(host.host);
      write(host);
    }
  },
  end(data) {
    const gone = data.all ? [...rows.keys()].filter((name) => !seen.has(name)) : data.gone;
    for (const name of gone) {
      rows.get(name)?.line.remove();
      rows.delete(name);
    }
    seen = new Set();
    if (data.about) showAbout(data.about);
    show();
  },
  heard(isHeard) {
    document.body.classList.toggle("stale", !isHeard);
    get("stale").hidden = isHeard;
    const since = feed.last() ? ` What is shown was so at ${clock(feed.last())}.` : "";
    get("stale").textContent = isHeard ? "" : `Disconnected: the state of all hosts is unknown.${since} Connecting again …`;
    get("connection").textContent = isHeard ? "Live" : "Disconnected";
    title();
  },
});

function write(host) {
  let row = rows.get(host.host);
  if (!row) {
    const line = element("tr");
    line.setAttribute("role", "row");
    const cells = Array.from({ length: 7 }, () => element("td"));
    cells.forEach((cell) => cell.setAttribute("role", "cell"));
    const link = element("a", host.host);
    link.href = `#${encodeURIComponent(host.host)}`;
    cells[0].append(link);
    line.append(...cells);
    row = { line, cells };
    rows.set(host.host, row);
    const after = [...rows.keys()].sort();
    const next = after[after.indexOf(host.host) + 1];
    get("rows").insertBefore(line, next ? rows.get(next).line : null);
  }
  const counts = Object.entries(host.counts).map(([state, number]) => `${number} ${state}`).join(", ");
  const texts = [null, host.state, host.release || "-", host.wave || "-", counts || "-", host.gate || "-", host.detail];
  texts.forEach((text, number) => {
    if (text !== null) row.cells[number].textContent = text;
  });
  row.cells[1].className = `state ${KINDS[host.state] ?? "bad"}`;
  row.data = host;
  row.words = `${host.host} ${texts.join(" ")}`.toLowerCase();
  if (host.host === opened) load();
}

function showAbout(data) {
  about = data;
  get("release").textContent = data.release ? `release ${data.release}, commit ${data.commit.slice(0, 12)}, pushed ${moment(data.pushed)} by ${data.author}` : "nothing was pushed yet";
  const rollout = data.rollout;
  get("progress").textContent = rollout ? `Rollout ${rollout.state}${rollout.reason ? `: ${rollout.reason}` : ""}. Led by ${data.leader || "nobody"}` : "";
  get("waves").replaceChildren(...data.waves.map((wave, number) => {
    const isNow = rollout && number + 1 === rollout.wave && rollout.state !== "done";
    return element("li", `wave ${number + 1}: ${wave.reached} of ${wave.hosts}`, isNow ? "now" : "");
  }));
  get("notices").hidden = !data.alarms.length;
  get("notices").replaceChildren(...data.alarms.map((each) => element("p", each, "alarm")));
}

function title() {
  const count = [...rows.values()].filter((row) => isException(row.data)).length + about.alarms.length;
  document.title = `${document.body.classList.contains("stale") ? "? " : count ? `(${count}) ` : ""}reconciler fleet`;
}

function show() {
  const words = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows.values()) {
    const isShown = (!get("exceptions").checked || isException(row.data)) && words.every((word) => row.words.includes(word));
    row.line.hidden = !isShown;
    shown += isShown;
  }
  get("count").textContent = `${shown} of ${rows.size}`;
  title();
}

async function load() {
  const name = opened;
  if (!name) return;
  let data = null;
  try {
    const answer = await fetch(`/sandboxes/${encodeURIComponent(name)}`);
    if (answer.ok) data = await answer.json();
  } catch {
    // The banner says that nothing is heard.
  }
  if (name !== opened) return;
  const facts = data ? [
    ["State", data.host.state + (data.host.detail ? `: ${data.host.detail}` : "")], ["Release", data.host.release || "-"],
    ["Should be", data.host.wanted || "-"], ["Gate", data.gate || "-"], ["Last report", age(data.reported, feed.now())],
    ["Labels", Object.entries(data.labels).map(([name, value]) => `${name}=${value}`).join(", ") || "-"],
    ...data.alarms.map((each) => ["Alarm", each]),
  ] : [["State", "unknown"]];
  get("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  get("sandboxes").replaceChildren(...(data?.sandboxes ?? []).map((each) => element(
    "li", each.state ? `${each.sandbox}: ${each.state}. ${each.detail}` : each.sandbox, each.state ? SANDBOX_KINDS[each.state] ?? "bad" : "",
  )));
}

function openFragment() {
  opened = "";
  try {
    opened = decodeURIComponent(location.hash.slice(1));
  } catch {
    // No fragment of ours.
  }
  get("detail").hidden = !opened;
  document.body.classList.toggle("open-one", Boolean(opened));
  get("detail-name").textContent = opened;
  if (opened) {
    load();
    get("detail-name").focus({ preventScroll: true });
  }
}

addEventListener("hashchange", openFragment);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && opened) location.hash = "";
});
get("close").addEventListener("click", (event) => {
  event.preventDefault();
  location.hash = "";
});
get("search").addEventListener("input", show);
get("exceptions").addEventListener("change", show);
setInterval(() => {
  if (!document.hidden) load();
}, AGAIN);
openFragment();
