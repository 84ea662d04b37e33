"""A page server whose status the test sets, and a browser."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import pytest

from reconciler.values import dataclass, field
from reconciler.watch import clock
from reconciler.watch.page import detail
from reconciler.watch.page.address import PageAddress
from reconciler.watch.page.server import PageServer
from reconciler.watch.state import SandboxState, SandboxStatus, Standing
from tests import browser as browsers
from tests.browser import Browser


@dataclass
class Watched:
    """What a watcher would know. The page shows it within a second."""

    standings: dict[str, Standing] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=lambda: {"alarms": [], "problems": [], "polling": ""})
    # Whoever has it changes several things at once.
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, name: str, state: SandboxState = SandboxState.CONVERGED, **more: Any) -> SandboxStatus:
        now = clock.now()
        fields: dict[str, Any] = {"file": f"/m/{name}.yaml", "driver": f"netns {name}"}
        status = SandboxStatus(sandbox=name, state=state, **fields | {"looked": now, "valid_until": now + 600} | more)
        self.standings[name] = Standing(status)
        return status

    def to_data(self) -> dict[str, Any]:
        with self.lock:
            return self.about | {"sandboxes": [each.to_data() for _, each in sorted(self.standings.items())]}

    def pulse(self) -> Hashable:
        return json.dumps(self.to_data())

    def detail(self, name: str) -> dict[str, Any] | None:
        return detail.of(self.standings[name]) if name in self.standings else None


Serve = Callable[..., PageServer]


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def serve(watched: Watched) -> Iterator[Serve]:
    """Start page servers; at the end, they end."""
    started: list[PageServer] = []

    def start(**fields: Any) -> PageServer:
        address = PageAddress(**({"host": "127.0.0.1"} if "path" not in fields else {}) | fields)
        started.append(PageServer(address, watched))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsers.running(tmp_path_factory.mktemp("browser")) as made:
        yield made
