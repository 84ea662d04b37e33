"""The answers to probes, of a watcher that was made and does not run, whose threads end or hang."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from reconciler.drivers.claims import Claims
from reconciler.manifest.load import Manifest
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.watch import clock, health
from reconciler.watch.manifests import ManifestSet
from reconciler.watch.meter import Meter
from reconciler.watch.revision import Revision
from reconciler.watch.settings import Settings
from reconciler.watch.state import SandboxState
from reconciler.watch.watcher import Options, Watcher
from reconciler.watch.worker import Common, Worker

SETTINGS = Settings(look=5.0, full_look=600.0)


@pytest.fixture
def watcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watcher:
    made = Watcher([str(tmp_path)], Options(SETTINGS, metrics=("127.0.0.1", 0)))
    # It listens to namespaces when it runs.
    monkeypatch.setattr(made, "_presence", SimpleNamespace(unheard={}), raising=False)
    return made


def ask(watcher: Watcher, path: str) -> tuple[int, str]:
    answer = watcher._pages[path]("")
    assert answer.kind == "text/plain; charset=utf-8"
    return answer.status, answer.body.decode()


def add(watcher: Watcher, name: str) -> Worker:
    """Add a worker whose thread does not run."""
    manifest = Manifest(f"{name}.yaml", "", 0, Sandbox(id=name, driver=NetnsAddress(name=name)))
    common = Common(SETTINGS, Claims(), watcher._authority, Meter(), watcher._history)
    worker = Worker(manifest, Revision(), common, lambda *_: None)
    watcher._held.workers[name] = worker
    return worker


def test_a_watcher_that_has_just_begun_is_healthy_and_not_ready(watcher: Watcher) -> None:
    assert ask(watcher, "/healthz") == (200, "ok\n")
    assert ask(watcher, "/readyz") == (503, "the manifests have not been read yet\n")


def test_a_watcher_whose_main_thread_hangs_is_ill(watcher: Watcher) -> None:
    watcher._held.alive_at = clock.now() - 12
    assert ask(watcher, "/healthz") == (503, "the main thread was last at work 12 s ago\n")


def test_a_watcher_whose_reading_hangs_is_ill(watcher: Watcher) -> None:
    watcher._reading._busy_since = clock.now() - 61
    assert ask(watcher, "/healthz") == (503, "the manifests have been being read for 61 s\n")


def test_a_watcher_with_a_thread_that_has_ended_is_ill_unless_it_ends_itself(watcher: Watcher) -> None:
    add(watcher, "web-1")
    add(watcher, "web-2\n")
    said = "the threads of these sandboxes have ended: web-1, web-2\\n\n"
    assert ask(watcher, "/healthz") == (503, said)
    assert ask(watcher, "/readyz") == (503, f"{said}the manifests have not been read yet\n")
    watcher._held.stopping = True
    assert ask(watcher, "/healthz") == (200, "ok\n")


def test_a_watcher_is_ready_once_each_sandbox_was_looked_at_and_stays_so(watcher: Watcher) -> None:
    workers = [add(watcher, f"web-{number:02}") for number in range(12)]
    manifests = {each.manifest.sandbox.id: each.manifest for each in workers}
    watcher._held.manifests = ManifestSet(manifests, {}, (), ())
    # While workers are being started, none of those that there are need be new.
    assert ask(watcher, "/readyz")[1].endswith("the manifests have not been read yet\n")
    watcher._held.distributed = True
    # Their threads do not run, which is no matter here.
    watcher._held.stopping = True
    names = ", ".join(f"web-{number:02}" for number in range(10))
    assert ask(watcher, "/readyz") == (503, f"these sandboxes have not been looked at yet: {names} and 2 more\n")
    for each in workers[1:]:
        each.status.set_state(SandboxState.WAITING)
    assert ask(watcher, "/readyz") == (503, "these sandboxes have not been looked at yet: web-00\n")
    workers[0].status.set_state(SandboxState.FAILED)
    assert ask(watcher, "/readyz") == (200, "ok\n")
    workers[0].status.set_state(SandboxState.NEW)
    assert ask(watcher, "/readyz") == (200, "ok\n")
    # It has to be healthy as well.
    watcher._held.alive_at = clock.now() - 12
    assert ask(watcher, "/readyz")[0] == 503


def test_no_line_is_endless() -> None:
    assert len(health.answer(["x" * 10_000]).body) < 4100
