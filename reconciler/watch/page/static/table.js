// The table: a row for each sandbox, by its ID, of which only what has changed is written.

import { age, element, isWell, kind, state } from "./words.js";

const PAGE = 15;
const WELL = "not well";

export class Table {
  constructor() {
    this.body = document.getElementById("rows");
    this.search = document.getElementById("search");
    this.states = document.getElementById("states");
    this.count = document.getElementById("count");
    this.none = document.getElementById("none");
    this.rows = new Map();
    this.filter = "";
    this.current = null;
    this.search.addEventListener("input", () => this.show());
    this.body.addEventListener("keydown", (event) => this.move(event));
    this.body.addEventListener("focusin", (event) => this.reach(event.target.closest("tr")));
    this.body.addEventListener("click", (event) => {
      // A selection of text is no click, and a link is one already.
      if (event.target.closest("a") || String(getSelection())) return;
      event.target.closest("tr")?.querySelector("a").click();
    });
  }

  // Add and change rows. Return those whose state has changed.
  update(changed, now) {
    const news = [];
    const added = document.createDocumentFragment();
    for (const data of changed) {
      let row = this.rows.get(data.sandbox);
      if (!row) {
        row = this.add(data.sandbox);
        added.append(row.line);
      } else if (row.data.state !== data.state || row.data.fresh !== data.fresh) {
        news.push(data);
      }
      this.write(row, data, now);
    }
    if (added.childNodes.length) {
      this.body.append(added);
      this.isSorted = false;
    }
    return news;
  }

  add(name) {
    const line = element("tr");
    line.setAttribute("role", "row");
    const cells = Array.from({ length: 7 }, () => element("td"));
    cells.forEach((cell) => cell.setAttribute("role", "cell"));
    cells[5].className = "mono";
    const link = element("a", name);
    link.href = `#${encodeURIComponent(name)}`;
    link.tabIndex = -1;
    cells[0].append(link);
    line.append(...cells);
    const row = { line, cells, link, data: {}, texts: [] };
    line.row = row;
    this.rows.set(name, row);
    return row;
  }

  write(row, data, now) {
    const isNew = !row.data.state;
    if (isNew || kind(row.data) !== kind(data)) row.cells[1].className = `state ${kind(data)}`;
    if (!isNew && row.data.state !== data.state) {
      row.line.classList.remove("changed");
      requestAnimationFrame(() => row.line.classList.add("changed"));
    }
    row.data = data;
    row.words = `${data.sandbox} ${data.driver} ${data.state} ${data.revision} ${data.detail} ${data.file}`.toLowerCase();
    const drift = data.looked ? String(data.drift_1h) : "-";
    const texts = [null, state(data), age(data.looked, now), data.driver, drift, data.revision || "-", data.detail];
    texts.forEach((text, number) => this.set(row, number, text));
  }

  set(row, number, text) {
    if (text === null || row.texts[number] === text) return;
    row.texts[number] = text;
    row.cells[number].textContent = text;
  }

  remove(names) {
    for (const name of names) {
      const row = this.rows.get(name);
      if (!row) continue;
      if (row === this.current) this.current = null;
      row.line.remove();
      this.rows.delete(name);
    }
  }

  // Ages go on while nothing is heard: they are those of the last looks.
  tick(now) {
    for (const row of this.rows.values()) this.set(row, 2, age(row.data.looked, now));
  }

  // Bring the rows into order, and show those that are wanted.
  show() {
    if (!this.isSorted) {
      const lines = [...this.rows.keys()].sort().map((name) => this.rows.get(name).line);
      if (lines.some((line, number) => this.body.children[number] !== line)) this.body.append(...lines);
      this.isSorted = true;
    }
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of this.rows.values()) {
      const isShown = this.isWanted(row.data) && words.every((word) => row.words.includes(word));
      if (row.line.hidden === isShown) row.line.hidden = !isShown;
      shown += isShown;
    }
    this.say(this.count, `${shown.toLocaleString("en")} of ${this.rows.size.toLocaleString("en")}`);
    this.none.hidden = shown > 0;
    this.say(this.none, this.rows.size ? "No sandbox matches." : "The watcher knows no sandbox.");
    this.showStates();
    if (!this.current || this.current.line.hidden) this.reach(this.visible()[0]);
  }

  say(place, words) {
    if (place.textContent !== words) place.textContent = words;
  }

  isWanted(data) {
    return !this.filter || (this.filter === WELL ? !isWell(data) : data.state === this.filter);
  }

  // A button for each state that there is, with its number.
  showStates() {
    const counts = new Map([["", this.rows.size], [WELL, 0]]);
    for (const { data } of this.rows.values()) {
      counts.set(data.state, (counts.get(data.state) ?? 0) + 1);
      if (!isWell(data)) counts.set(WELL, counts.get(WELL) + 1);
    }
    if (!counts.has(this.filter)) counts.set(this.filter, 0);
    const names = ["", WELL, ...[...counts.keys()].filter((name) => name && name !== WELL).sort()];
    if (String(names) !== this.names) {
      this.names = String(names);
      const focused = document.activeElement?.value;
      this.states.replaceChildren(...names.map((name) => this.button(name)));
      if (focused !== undefined) [...this.states.children].find((each) => each.value === focused)?.focus();
    }
    for (const button of this.states.children) {
      this.say(button, `${button.value || "all"} ${counts.get(button.value).toLocaleString("en")}`);
      button.setAttribute("aria-pressed", String(button.value === this.filter));
    }
  }

  button(name) {
    const made = element("button");
    made.type = "button";
    made.value = name;
    made.addEventListener("click", () => {
      this.filter = this.filter === name ? "" : name;
      this.show();
    });
    return made;
  }

  visible() {
    return [...this.body.children].filter((line) => !line.hidden);
  }

  // One row is a stop of the Tab key; the arrows choose it.
  reach(line) {
    if (this.current) this.current.link.tabIndex = -1;
    this.current = line?.row ?? null;
    if (this.current) this.current.link.tabIndex = 0;
  }

  focus() {
    this.current?.link.focus();
  }

  move(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE, PageUp: -PAGE, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    const lines = this.visible();
    const at = lines.indexOf(event.target.closest("tr"));
    const next = lines[Math.max(0, Math.min(lines.length - 1, at + steps[event.key]))];
    event.preventDefault();
    this.reach(next);
    this.focus();
    next?.scrollIntoView({ block: "nearest" });
  }

  mark(name) {
    this.body.querySelector(".open")?.classList.remove("open");
    this.rows.get(name)?.line.classList.add("open");
  }
}
