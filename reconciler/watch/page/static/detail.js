// One sandbox: all that the watcher knows of it, what differs still, and what happened in it.

import { age, clock, element, moment, state } from "./words.js";

const SIGNS = { "+": "add", "~": "change", "-": "delete" };
const ACTIONS = { add: "+", change: "~", delete: "-" };

export class Detail {
  constructor(now) {
    this.now = now;
    this.panel = document.getElementById("detail");
    this.name = "";
  }

  get(id) {
    return document.getElementById(id);
  }

  // Show a sandbox, "" for none. Return whether that is another one than before.
  open(name) {
    if (name === this.name) return false;
    this.name = name;
    this.data = null;
    this.panel.hidden = !name;
    document.body.classList.toggle("open-one", Boolean(name));
    this.get("detail-name").textContent = name;
    for (const id of ["facts", "commands", "history"]) this.get(id).replaceChildren();
    this.get("commands").hidden = true;
    this.get("differs").textContent = name ? "Loading …" : "";
    this.get("history-note").textContent = "";
    if (name) this.load();
    return true;
  }

  // Ask for a sandbox again. While an answer is on its way, or came just now, that waits.
  async load() {
    if (this.isLoading) {
      this.isDue = true;
      return;
    }
    this.isLoading = true;
    this.isDue = false;
    const name = this.name;
    try {
      const answer = await fetch(`/sandboxes/${encodeURIComponent(name)}`, { redirect: "error" });
      if (name === this.name) this.show(answer.ok ? await answer.json() : null, answer.status);
    } catch {
      if (name === this.name) this.fail("Unknown: the watcher does not answer.");
    }
    await new Promise((done) => setTimeout(done, 500));
    this.isLoading = false;
    if (this.name && (this.isDue || name !== this.name)) this.load();
  }

  show(data, status) {
    this.data = data;
    if (!data) {
      this.fail(status === 404 ? "The watcher knows no sandbox of this name." : `Unknown: the watcher answered ${status}.`);
      return;
    }
    this.write("facts", this.facts(data.sandbox));
    this.write("commands", this.commands(data.outstanding));
    this.get("commands").hidden = !data.outstanding?.lines.length;
    this.write("history", data.history.map((record) => this.record(record)));
    const none = data.history.length ? "" : "Nothing is recorded.";
    const problem = data.history_problem;
    this.get("history-note").textContent = problem ? `Unknown: the history cannot be read: ${problem}` : none;
    this.tick();
  }

  // Replace the content of an element, unless it is the same: whoever reads or selects it is not disturbed.
  write(id, parts) {
    const made = document.createDocumentFragment();
    made.append(...parts);
    const place = this.get(id);
    const before = place.cloneNode(true);
    before.replaceChildren(made.cloneNode(true));
    if (!before.isEqualNode(place)) place.replaceChildren(made);
  }

  // Ages go on.
  tick() {
    if (!this.data) return;
    const words = this.differs(this.data.outstanding, this.data.sandbox);
    if (this.get("differs").textContent !== words) this.get("differs").textContent = words;
  }

  fail(words) {
    this.data = null;
    for (const id of ["facts", "commands", "history"]) this.get(id).replaceChildren();
    this.get("commands").hidden = true;
    this.get("differs").textContent = words;
    this.get("history-note").textContent = "Unknown.";
  }

  facts(row) {
    const facts = { State: state(row), Since: moment(row.since), "Last look": moment(row.looked), Driver: row.driver };
    Object.assign(facts, { Manifest: row.file, Revision: row.revision || "-", Blob: row.blob || "-" });
    Object.assign(facts, { "Drift 1 h": row.drift_1h, Repairs: row.repairs, Detail: row.detail || "-" });
    if (row.fights.length) facts.Fights = row.fights.join("\n");
    return Object.entries(facts).flatMap(([name, words]) => [element("dt", name), element("dd", words)]);
  }

  commands(outstanding) {
    const lines = (outstanding?.lines ?? []).flatMap((line) => [
      element("span", line.text, SIGNS[line.sign] ?? ""), element("span", `${line.comment}\n`, "comment"),
    ]);
    if (outstanding?.more) lines.push(element("span", `  … and ${outstanding.more.toLocaleString("en")} more`));
    return lines;
  }

  // Nothing is looked at anew for this page: it shows what the last look of the watcher has left.
  differs(outstanding, sandbox) {
    if (!outstanding) {
      const last = sandbox.looked ? `the last one that did ended at ${clock(sandbox.looked)}` : "none ever did";
      if (sandbox.state === "paused") return "Unknown: the watcher does not look at the sandbox while it is paused.";
      return `Unknown: the last look could not find that out; ${last}.`;
    }
    const when = `the last look, at ${clock(outstanding.looked)} (${age(outstanding.looked, this.now())})`;
    const doubt = ["pending", "outdated"].includes(sandbox.state) ? ", compared with the manifest in force before" : "";
    const stale = sandbox.fresh ? "" : " That look is older than it should be.";
    if (!outstanding.lines.length) return `Nothing to do after ${when}${doubt}.${stale}`;
    return `Still to do after ${when}${doubt}:${stale}`;
  }

  record(record) {
    const item = element("li");
    const time = element("time", moment(record.at));
    time.dateTime = record.time;
    item.append(time, element("div", this.summary(record)));
    if (record.reason) item.append(element("div", record.reason));
    const lines = (record.operations ?? []).map((each) => this.operation(each));
    const left = (record.count ?? 0) - (record.operations ?? []).length;
    if (left > 0) lines.push(element("span", `  … and ${left.toLocaleString("en")} more\n`));
    if (lines.length) {
      const list = element("pre");
      list.tabIndex = 0;
      list.setAttribute("aria-label", "operations");
      list.append(...lines);
      item.append(list);
    }
    return item;
  }

  operation(each) {
    const fate = each.fate ? ` (${each.fate})` : "";
    const comment = each.comment ? `      # ${each.comment}` : "";
    return element("span", `  ${ACTIONS[each.action] ?? " "} ${each.command}${comment}${fate}\n`, each.action in ACTIONS ? each.action : "");
  }

  summary(record) {
    if (record.event !== "change") return record.event;
    const count = `${(record.count ?? 0).toLocaleString("en")} ${record.count === 1 ? "operation" : "operations"}`;
    const by = record.by?.user && record.cause === "by hand" ? ` by ${record.by.login ?? record.by.user} (${record.by.command})` : "";
    const seconds = record.seconds === undefined ? "" : ` in ${record.seconds} s`;
    const revision = record.revision ? `, revision ${record.revision}` : "";
    return `${record.cause}${by}: ${count}, ${record.result}${seconds}${revision}`;
  }
}
