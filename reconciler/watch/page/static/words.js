// Words for times and states, as `reconciler status` has them.

// What a state means to a person: the class of its colour and sign.
const KINDS = {
  converged: "good", draining: "good", paused: "other", new: "other", pending: "warn", waiting: "warn", drifted: "warn",
  fighting: "bad", refused: "bad", failed: "bad", outdated: "bad",
};

export const kind = (row) => (row.fresh || !row.looked ? KINDS[row.state] ?? "bad" : "other");

// A question mark: the last look is older than it should be.
export const state = (row) => (row.fresh || !row.looked ? row.state : `${row.state}?`);

export const isWell = (row) => row.fresh && ["converged", "draining", "paused"].includes(row.state);

export function age(when, now) {
  if (!when) return "-";
  const seconds = Math.max(0, Math.floor(now - when));
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${seconds} s ago`;
}

export const clock = (when) => new Date(when * 1000).toLocaleTimeString("en-GB");

export const moment = (when) => (when ? new Date(when * 1000).toLocaleString("sv-SE", { timeZoneName: "short" }) : "-");

// Text never becomes markup here: it is set as text, and nothing else sets content.
export function element(name, words = "", className = "") {
  const made = document.createElement(name);
  made.textContent = words;
  if (className) made.className = className;
  return made;
}
