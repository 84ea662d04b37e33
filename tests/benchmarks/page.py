"""What the page costs at 2,000 sandboxes: first paint, an update, and the watcher's processor while nothing changes.

`python -m tests.benchmarks.page` prints the figures.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import browser as browsers
from tests.benchmarks.measure import Figure
from tests.benchmarks.watch import Watch, watch
from tests.browser import Browser, Page
from tests.conftest import Kernel, ip

MANY, PAGES, IDLE_SECONDS, ROUNDS = 2000, 3, 30.0, 5
# Seconds after which the watcher has nothing to do any more.
SETTLE = 20.0
MANIFEST = """\
apiVersion: reconciler/v1
sandbox: {name}
driver: {{netns: {{name: {name}}}}}
routes:
  - {{dest: 10.8.0.0/16, type: blackhole}}
"""
# Milliseconds from the navigation to the first contentful paint.
PAINT = """new Promise(done => new PerformanceObserver(list => done(list.getEntries().at(-1).startTime))
  .observe({type: "paint", buffered: true}))"""
# Seconds of the server's clock at which the state of a sandbox becomes another one on the page.
CHANGED = """new Promise(done => {{
  const cell = document.querySelector('a[href="#{name}"]').closest("tr").children[6], before = cell.textContent;
  const look = () => cell.textContent === before ? requestAnimationFrame(look) : done(Date.now() / 1000);
  look();
}})"""


@contextmanager
def namespaces(kernel: Kernel, folder: Path) -> Iterator[list[str]]:
    folder.mkdir()
    names = [f"{kernel.prefix}m{number}" for number in range(MANY)]
    ip("-batch", "-", stdin="".join(f"netns add {name}\n" for name in names))
    try:
        for name in names:
            (folder / f"{name}.yaml").write_text(MANIFEST.format(name=name))
        yield names
    finally:
        ip("-force", "-batch", "-", stdin="".join(f"netns delete {name}\n" for name in names))


def run(kernel: Kernel, folder: Path) -> list[Figure]:
    with namespaces(kernel, folder / "manifests") as names, watch(folder / "manifests", "--ui", "0") as watcher:
        watcher.await_events("converged", MANY)
        url = watcher.events("page")[0]["address"]
        time.sleep(SETTLE)
        alone = share(watcher)
        with browsers.running(folder / "browser") as browser:
            paints, complete = first(browser, url)
            pages = [opened(browser, url) for _ in range(PAGES)]
            time.sleep(SETTLE)
            idle = share(watcher)
            updates = sorted(update(page, name) for page, name in zip(pages * ROUNDS, names[7::13], strict=False))
            frames = scrolled(pages[0])
    print(f"{MANY:,} sandboxes, without a page: {alone * 100:.2f} % of a core")
    print(f"all rows are there after {complete * 1000:.0f} ms; the longest frame while scrolling takes {frames:.0f} ms")
    return [
        Figure(
            name=f"{MANY:,} sandboxes: first paint, of 1 s",
            detail=f"{paints * 1000:.0f} ms, the longest of {ROUNDS}",
            ratio=paints,
            bar=1,
            aim=0.5,
        ),
        Figure(
            name=f"{MANY:,} sandboxes: from a change in the kernel to the page, of 1 s",
            detail=f"{updates[len(updates) // 2] * 1000:.0f} ms, at most {updates[-1] * 1000:.0f} ms",
            ratio=updates[-1],
            bar=1,
            aim=0.6,
        ),
        Figure(
            name=f"{MANY:,} sandboxes, {PAGES} pages, nothing to do: of one core",
            detail=f"{idle * 100:.2f} % over {IDLE_SECONDS:.0f} s",
            ratio=idle,
            bar=0.05,
            aim=0.03,
        ),
    ]


def share(watcher: Watch) -> float:
    """Return what the watcher uses of one core."""
    begin, at = watcher.cpu(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (watcher.cpu() - begin) / (time.monotonic() - at)


def opened(browser: Browser, url: str) -> Page:
    page = browser.open(url)
    page.until(f"document.querySelectorAll('#rows tr').length === {MANY}")
    return page


def first(browser: Browser, url: str) -> tuple[float, float]:
    """Return the longest times, in seconds, from the navigation to the first paint and until all rows are there."""
    paints, complete = [], []
    for _ in range(ROUNDS):
        begin = time.monotonic()
        page = opened(browser, url)
        complete.append(time.monotonic() - begin)
        paints.append(float(page.value(PAINT)) / 1000)
        page.close()
    return max(paints), max(complete)


def update(page: Page, name: str) -> float:
    """Return the seconds from a change in a namespace until the page shows its repair."""
    page.value(f"window.changed = {CHANGED.format(name=name)}; 0")
    begin = time.time()
    ip("-n", name, "route", "del", "blackhole", "10.8.0.0/16")
    return float(page.value("window.changed")) - begin


def scrolled(page: Page) -> float:
    """Return the longest time between two frames, in milliseconds, while all rows are scrolled through."""
    return float(
        page.value("""new Promise(done => {
          let longest = 0, last = performance.now(), at = 0;
          const step = now => {
            longest = Math.max(longest, now - last);
            last = now;
            scrollTo(0, at += 400);
            at < document.documentElement.scrollHeight ? requestAnimationFrame(step) : done(longest);
          };
          requestAnimationFrame(step);
        })""")
    )


def main() -> None:
    kernel = Kernel()
    with tempfile.TemporaryDirectory() as folder:
        for each in run(kernel, Path(folder)):
            print(each)


if __name__ == "__main__":
    main()
