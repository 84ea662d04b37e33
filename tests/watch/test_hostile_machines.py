"""A watch of good namespaces beside hostile machines of each kind: `make bench` has the figures of a longer one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.benchmarks.hostile import await_good, cost, good, hostile_machines
from tests.benchmarks.watch import watch
from tests.conftest import Kernel
from tests.watch.hostile import KINDS, MONITORS
from tests.watch.running import until

FAILING = {"listing", "name", "reason", *MONITORS}


def test_hostile_machines_delay_no_other(kernel: Kernel, tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    names = good(kernel, folder, 2)
    with hostile_machines(folder) as hostile, watch(folder) as watcher:
        assert set(hostile) == KINDS.keys() | MONITORS.keys()
        await_good(watcher, names)
        found = cost(watcher, names, 2)
        # Those that answer too much take their time on a busy host.
        until(lambda: {each.get("sandbox") for each in watcher.events("failed")} >= FAILING, "the others have failed")
        # It would wait 30 s for the machines that answer nothing.
        watcher.process.kill()
        events = watcher.lines()
    # Of a busy host. The figures are those of `make bench`.
    assert found.repairs[len(found.repairs) // 2] < 5.0
    assert found.memory < 200 << 20
    assert found.log < 1e6
    assert not [each for each in events if each["event"] == "defect"]
    # Nobody who lies is called converged while it does, and each has a bounded number of words.
    said = Counter(each["sandbox"] for each in events if each.get("sandbox") in hostile)
    assert max(said.values()) < 200
    assert max(len(str(each)) for each in events) < 4000
