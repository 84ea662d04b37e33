"""The page of a real watcher, in a real browser: what it shows is what `status`, `diff` and `history` print."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from tests import browser as browsers
from tests.browser import Browser, Page
from tests.conftest import Kernel, ip
from tests.watch.running import REFUSED, ROUTE, Kept, Running, put, until, watching

COLUMNS = ("sandbox", "state", "driver", "drift_1h", "revision", "detail")
# The cells of each row without the age, which goes on.
ROWS = """[...document.querySelectorAll("#rows tr")].map(row =>
  [0, 1, 3, 4, 5, 6].map(number => row.children[number].textContent))"""


def output(*words: str) -> str:
    with redirect_stdout(io.StringIO()) as printed:
        assert main(list(words)) in {0, 1}
    return printed.getvalue()


def rows() -> tuple[list[list[str]], dict[str, Any]]:
    """Return what the rows of the page have to be, and the status that says so."""
    status = json.loads(output("status", "-o", "json"))
    found = []
    for each in status["sandboxes"]:
        shown = each | {
            "revision": each["revision"] or "-",
            "drift_1h": str(each["drift_1h"]) if each["looked"] else "-",
        }
        found.append([str(shown[name]) for name in COLUMNS])
    return found, status


@pytest.fixture
def kept(kernel: Kernel, tmp_path: Path) -> list[Kept]:
    return [Kept(kernel, tmp_path / "manifests", number) for number in range(3)]


def opened(browser: Browser, running: Running, sandbox: str = "") -> Page:
    (event,) = running.events("page")
    assert (event["level"], event["address"].startswith("http://127.0.0.1:")) == ("info", True)
    page = browser.open(f"{event['address']}#{sandbox}")
    page.until("document.getElementById('connection').textContent === 'Live'")
    return page


def await_rows(page: Page, running: Running) -> dict[str, Any]:
    """Wait until the page shows what `status -o json` prints; return that."""
    found: list[dict[str, Any]] = []

    def equal() -> bool:
        expected, status = rows()
        found[:] = [status]
        return bool(page.value(ROWS) == expected)

    running.until(equal, f"the page shows the status: {page.value(ROWS)}, {rows()[0]}")
    return found[0]


def test_it_shows_the_status_the_plan_and_the_history(kept: list[Kept], tmp_path: Path, browser: Browser) -> None:
    folder = tmp_path / "manifests"
    kept[1].end()
    with watching(folder, "--ui", "0") as running:
        running.await_state("converged", kept[0].name, kept[2].name)
        page = opened(browser, running, kept[0].name)
        await_rows(page, running)
        # Drift, and the repair.
        kept[0].ip("route", "del", "10.8.0.0/16")
        running.until(lambda: "drift: 1 operation, verified" in page.text("#history"), "the repair in the history")
        assert f"  + ip route add 10.8.0.0/16 via {ROUTE['gateway']} dev eth0 proto 200\n" in page.text("#history")
        page.until(
            "document.getElementById('differs').textContent.startsWith('Nothing to do after the last look, at ')"
        )
        status = await_rows(page, running)
        assert next(each for each in status["sandboxes"] if each["sandbox"] == kept[0].name)["repairs"] == 1
        # What cannot be done, a broken manifest, one that is deleted, and an alarm.
        kept[0].write(routes=[ROUTE, REFUSED])
        running.await_state("failed", kept[0].name)
        page.until("!document.getElementById('commands').hidden")
        diff = output("diff", str(kept[0].file)).splitlines()
        assert page.text("#commands").splitlines()[0] == next(each for each in diff if each.startswith("  + "))
        kept[2].file.unlink()
        put(kept[1].file, "apiVersion: reconciler/v1\nsandbox: [\n")
        left = {kept[0].name, kept[1].name}
        running.until(lambda: (status := running.status()).problems and set(status.sandboxes) == left, "a problem")
        status = await_rows(page, running)
        said = [*status["alarms"], *status["problems"]]
        running.until(lambda: page.texts("#notices li") == said, f"{said}")
        assert len(status["problems"]) == 1
        assert {each["sandbox"] for each in status["sandboxes"]} == left
        address = running.events("page")[0]["address"]
        assert all(each.startswith(address) for each in page.requests)
        assert page.complaints == []
        assert running.stop() == 0
        page.until("document.getElementById('connection').textContent === 'Disconnected'")
        page.close()


def test_only_reported_drift_is_shown_as_diff_prints_it(kept: list[Kept], tmp_path: Path, browser: Browser) -> None:
    output("apply", *(str(each.file) for each in kept))
    with watching(tmp_path / "manifests", "--mode", "report", "--ui", f"unix:{tmp_path}/page.sock"):
        # A browser cannot connect to such a socket; a tunnel of ssh can.
        assert (tmp_path / "page.sock").is_socket()
    with watching(tmp_path / "manifests", "--mode", "report", "--ui", "0") as running:
        running.await_state("converged", *(each.name for each in kept))
        for each in ("10.8.0.0/16",):
            kept[0].ip("route", "del", each)
        kept[0].ip("address", "del", "10.0.0.2/16", "dev", "eth0")
        page = opened(browser, running, kept[0].name)
        diff = output("diff", str(kept[0].file)).splitlines()
        expected = [line for line in diff if line.startswith(("  + ", "  ~ ", "  - "))]
        assert len(expected) == 2
        running.until(lambda: page.text("#commands").splitlines() == expected, f"{expected}")
        page.close()


@pytest.fixture
def alone(kernel: Kernel) -> str:
    """Make a namespace that reaches nothing but itself; return its name."""
    name = kernel.namespace()
    ip("-n", name, "link", "set", "lo", "up")
    return name


def test_nothing_is_asked_of_another_host(alone: str, tmp_path: Path) -> None:
    """The browser and the server run where no other host is reached: all of the page works."""
    within = ("ip", "netns", "exec", alone)
    words = [*within, sys.executable, "-c", SCRIPT]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with browsers.running(tmp_path / "browser", within) as browser:
            page = browser.open(f"{url}#web-1")
            page.until("document.getElementById('differs').textContent.startsWith('Unknown')")
            until(lambda: page.texts("#rows a") == ["web-1"], "the rows")
            assert page.complaints == []
            assert {each.split("/")[2] for each in page.requests} == {url.split("/")[2]}
        process.communicate()


# It ends with its standard input.
SCRIPT = """
import sys
from reconciler.watch.page.address import PageAddress
from reconciler.watch.page.server import PageServer
from tests.watch.page.conftest import Watched

watched = Watched()
watched.add("web-1")
server = PageServer(PageAddress("127.0.0.1", 0), watched)
print(server.url, flush=True)
sys.stdin.read()
"""
