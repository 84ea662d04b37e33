"""Make the pictures of the page in docs/pictures: `python -m tests.pictures`. The sandboxes in them are made up.

It needs chromium and pngquant, both of Debian.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from unittest import mock

from reconciler.history.lines import Step
from reconciler.history.record import CHANGE, Record
from reconciler.operations.listing import PlanLine
from reconciler.watch import clock
from reconciler.watch.outstanding import Outstanding
from reconciler.watch.page import detail
from reconciler.watch.page.address import PageAddress
from reconciler.watch.page.server import PageServer
from reconciler.watch.revision import Revision
from reconciler.watch.state import SandboxState
from tests import browser as browsers
from tests.watch.page.conftest import Watched

FOLDER = Path(__file__).parents[1] / "docs/pictures"
WIDTH, HEIGHT = 1080, {"light": 560, "dark": 840}
REVISION = Revision("3f9c2ab", "b59de3b2c65415c9c6a597f03cd284a418a414e8")
ROUTE = "ip route add default via 192.0.2.1 dev eth0 proto 200"
FIGHT = f"another program keeps reverting a repair, made 41 times so far: {ROUTE}"


def watched() -> Watched:
    """Return what a watcher would know."""
    made, now = Watched(), clock.now()
    for number in range(1, 60):
        name = f"web-{number:02}"
        made.add(name, revision=REVISION, file=f"/etc/reconciler/manifests/{name}.yaml", looked=now - 7 * number % 600)
    left = Outstanding(
        now - 2,
        (
            PlanLine("+", f"  + {ROUTE}"),
            PlanLine("~", "  ~ ip route replace 10.8.0.0/16 via 192.0.2.2 dev eth0", "      # was via 192.0.2.9"),
        ),
    )
    more = {"revision": REVISION, "file": "/etc/reconciler/manifests/db.yaml"}
    made.add("db-1", SandboxState.FIGHTING, detail=FIGHT, outstanding=left, fights=(ROUTE,), repairs=41, **more)
    made.add("db-2", SandboxState.FAILED, detail="no device tap-db-2 on this host", **more)
    made.add("edge-1", SandboxState.WAITING, detail="namespace edge-1 does not exist", looked=0.0, **more)
    made.add("edge-2", SandboxState.PAUSED, detail="maintenance, until 04:30:00", **more)
    alarm = "the rollout stopped because db-2 failed; 12 changed manifests still to apply"
    made.about["alarms"] = [f"{alarm}; it continues when any manifest changes"]
    return made


def history() -> list[Record]:
    """Return what would have happened."""

    def at(ago: float) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - ago))

    def change(ago: float, cause: str, seconds: float, *steps: Step) -> Record:
        return Record(
            time=at(ago),
            sandbox="db-1",
            event=CHANGE,
            cause=cause,
            revision="3f9c2ab",
            count=len(steps),
            steps=steps,
            result="verified",
            seconds=seconds,
        )

    address = Step("add", "ip address add 192.0.2.10/24 dev eth0")
    return [
        change(9000, "manifest", 0.04, Step("change", "ip link set dev eth0 mtu 1400"), address),
        change(130, "drift", 0.01, Step("add", ROUTE)),
        Record(time=at(2), sandbox="db-1", event="fighting", reason=FIGHT),
    ]


def main() -> None:
    with (
        mock.patch("socket.gethostname", return_value="host-7.example"),
        mock.patch.object(detail, "read", return_value=history()),
        tempfile.TemporaryDirectory() as folder,
        browsers.running(Path(folder)) as browser,
    ):
        known = watched()
        server = PageServer(PageAddress("127.0.0.1", 0), known)
        for theme, fragment in (("light", ""), ("dark", "#db-1")):
            page = browser.open(f"{server.url}{fragment}", width=WIDTH, height=HEIGHT[theme], dark=theme == "dark")
            page.until("document.getElementById('connection').textContent === 'Live'")
            page.until(f"document.querySelectorAll('#history li').length === {3 if fragment else 0}")
            small = subprocess.run(
                ["pngquant", "--strip", "96", "-"], input=page.screenshot(), stdout=subprocess.PIPE, check=True
            )
            (FOLDER / f"page-{theme}.png").write_bytes(small.stdout)
        server.close()


if __name__ == "__main__":
    main()
