// The stream of events: what the watcher knows, and whether it is still heard.

// Milliseconds without an event after which nothing is known any more; the server sends one every 5 s.
const SILENCE = 12000;
// Milliseconds until a connection that the server has refused is tried again.
const AGAIN = 2000;

export class Feed {
  // `begin`: called when a connection begins. `rows`: with changed sandboxes. `end`: with what ends an update. `heard`:
  // with whether the watcher is heard.
  constructor({ begin, rows, end, heard }) {
    this.handlers = { begin, rows, end, heard };
    this.heardAt = 0;
    this.offset = 0;
    this.open();
    setInterval(() => this.check(), 1000);
  }

  open() {
    this.source?.close();
    this.openedAt = performance.now();
    this.source = new EventSource("/events");
    this.source.addEventListener("open", () => this.handlers.begin());
    this.source.addEventListener("rows", (event) => this.take(JSON.parse(event.data), (data) => this.handlers.rows(data.rows)));
    this.source.addEventListener("end", (event) => {
      this.take(JSON.parse(event.data), this.handlers.end);
      this.handlers.heard(true);
    });
    this.source.addEventListener("beat", (event) => {
      this.take(JSON.parse(event.data), () => {});
      this.handlers.heard(true);
    });
    this.source.addEventListener("error", () => this.handlers.heard(false));
  }

  take(data, handler) {
    // The clock of the server, which made all times, and that of this browser, which nobody sets.
    this.offset = data.now - performance.now() / 1000;
    this.heardAt = performance.now();
    handler(data);
  }

  // Unix seconds by the clock of the server.
  now() {
    return performance.now() / 1000 + this.offset;
  }

  // The time of the last event, in Unix seconds of the server; 0 for never.
  last() {
    return this.heardAt ? this.heardAt / 1000 + this.offset : 0;
  }

  check() {
    const silent = performance.now() - Math.max(this.heardAt, this.openedAt);
    const closed = this.source.readyState === EventSource.CLOSED && performance.now() - this.openedAt > AGAIN;
    if (silent > SILENCE) this.handlers.heard(false);
    // The browser itself connects again after an error, but not after an answer that is none.
    if (closed || silent > SILENCE) this.open();
  }
}
