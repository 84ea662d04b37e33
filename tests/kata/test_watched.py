"""Commands against a namespace that a real watcher keeps: they work, and say that they will be undone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Kernel
from tests.watch.running import Kept, Running, reconciler, until, watching


@pytest.fixture
def kept(kernel: Kernel, tmp_path: Path) -> Kept:
    return Kept(kernel, tmp_path / "manifests", 0)


@pytest.fixture
def running(kept: Kept) -> Iterator[Running]:
    with watching(kept.file.parent) as running:
        running.await_state("converged", kept.name)
        running.await_quiet()
        yield running


def add_route(kept: Kept, dest: str) -> str:
    """Add a route; give what is on stderr."""
    file = kept.file.parent.with_name("route.json")
    file.write_text(json.dumps({"dest": dest, "device": "eth0"}))
    ran = reconciler("kata-network", "add-route", kept.name, str(file), "--manifests", str(kept.file))
    assert (ran.returncode, json.loads(ran.stdout)[0]["dest"]) == (0, dest), ran
    return ran.stderr


def test_a_change_is_said_to_be_undone_and_is(kept: Kept, running: Running) -> None:
    said = f"{kept.name}: `reconciler watch` will revert whatever differs from {kept.file}\n"
    assert add_route(kept, "10.77.0.0/16") == said
    running.until(lambda: not kept.has("10.77.0.0/16"), "the watch undoes it")


def test_what_is_paused_is_left(kept: Kept, running: Running) -> None:
    assert reconciler("pause", kept.name, "--for", "1h").returncode == 0
    try:
        running.await_state("paused", kept.name)
        assert add_route(kept, "10.77.0.0/16") == ""
        assert kept.has("10.77.0.0/16")
    finally:
        reconciler("pause", kept.name, "--end")
    until(lambda: not kept.has("10.77.0.0/16"), "the watch undoes it once the pause is over")
