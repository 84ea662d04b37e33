"""The page of a fleet in a real browser, over a real cluster: what it shows is what `fleet status` prints."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.fleet import keys, records
from reconciler.fleet.gate.page import PACKAGE, FleetSource
from reconciler.fleet.records import HostStatus, Unusual
from reconciler.watch.page.address import PageAddress
from reconciler.watch.page.server import PageServer
from tests import browser as browsers
from tests.browser import Browser
from tests.fleet.cluster import Cluster
from tests.fleet.gates import Certificates, Running, running
from tests.fleet.site import Site

ROWS = """[...document.querySelectorAll("#rows tr")].filter(row => !row.hidden).map(row =>
  [0, 1, 2, 3, 4].map(number => row.children[number].textContent))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsers.running(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def gate(cluster: Cluster, tmp_path: Path) -> Iterator[Running]:
    with running(cluster.store(), Certificates(tmp_path / "ca"), leads=True) as found:
        yield found


@pytest.fixture
def url(gate: Running) -> Iterator[str]:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    server = PageServer(PageAddress("127.0.0.1", 0), FleetSource(gate.store, gate.do(loop())), PACKAGE)
    yield server.url
    server.close()


def report(gate: Running, host: str, *unusual: Unusual) -> None:
    """Report for a host that it has reached what it was told."""
    pair = gate.do(gate.store.read(keys.desired(host)))
    assert pair
    release = records.decode(records.Desired, pair.value).release
    counts = {"failed": len(unusual)} if unusual else {"converged": 2}
    found = HostStatus(release, reached=True, counts=counts, unusual=unusual)
    gate.put(keys.status(host), records.encode(found))


def test_it_shows_hosts_waves_exceptions_and_one_host(gate: Running, site: Site, url: str, browser: Browser) -> None:
    site.hosts("abc")
    for each in "abc":
        gate.put(keys.alive(each), b"gate-1")
    release = site.push("--waves", "1,3")
    page = browser.open(url)
    page.until("document.getElementById('connection').textContent === 'Live'")
    page.until(f"JSON.stringify({ROWS}).includes('under way')")
    report(gate, "a")
    page.until(f"JSON.stringify({ROWS}).includes('{release}')")
    page.until("document.querySelector('#waves .now')?.textContent === 'wave 2: 0 of 2'")
    report(gate, "b", Unusual("b0", "failed", "<img src=x onerror=alert(1)>"))
    page.until(f"({ROWS}).some(row => row[1] === 'failed')")
    shown = {name: (state, reported) for name, state, reported, *_ in page.value(ROWS)}
    printed = json.loads(site.run("status", "-o", "json")[1])
    assert shown == {each["host"]: (each["state"], each["release"] or "-") for each in printed["hosts"]}
    assert "stopped" in page.value("document.getElementById('progress').textContent")
    # Only exceptions; and one host, whose text stays text.
    page.value("document.getElementById('exceptions').click()")
    assert {row[0] for row in page.value(ROWS)} == {"b", "c"}
    page.value("location.hash = 'b'")
    page.until("document.getElementById('sandboxes').textContent.includes('<img src=x')")
    assert page.value("document.querySelectorAll('#sandboxes img').length") == 0
    page.close()


def test_it_is_read_only_and_answers_only_its_own_name(gate: Running, url: str) -> None:
    for request, code in (
        (urllib.request.Request(url, method="POST", data=b"x"), 405),
        (urllib.request.Request(f"{url}sandboxes/nobody"), 404),
        (urllib.request.Request(url, headers={"Host": "evil.example"}), 421),
    ):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request, timeout=20)
        assert raised.value.code == code
        raised.value.close()
