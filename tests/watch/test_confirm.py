"""A watcher leaves alone what waits to be confirmed and finishes what was killed; what fails on trial is held."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler import pending
from reconciler.cli.main import main
from reconciler.manifest.dump import dump
from tests.conftest import Kernel
from tests.machine import Guest
from tests.system.box import VmBox
from tests.system.test_confirm import helpers
from tests.watch.running import OTHER, ROUTE, Keep, Kept, Running, until, watching

# The namespace has `lo` down, so nothing answers there, and its own address never does.
SILENT = {"ping": "10.0.0.2", "timeout": 1, "required": True}
ROUTED = {"route": "10.8.0.1", "device": "eth0", "timeout": 5}


@pytest.fixture
def kept(keep: Keep) -> Iterator[Kept]:
    made = keep()
    yield made
    pending.remove(made.name)
    Path("/run/reconciler/held", made.name).unlink(missing_ok=True)


def other(kept: Kept, folder: Path, **sections: Any) -> str:
    """Write another manifest of a sandbox beside the folder that is watched; return its path."""
    head = {"apiVersion": "reconciler/v1", "sandbox": kept.name, "driver": {"netns": {"name": kept.name}}}
    file = folder.parent / "other.yaml"
    file.write_text(dump([head | kept.sections | sections]))
    return str(file)


def mtu(kept: Kept) -> int:
    (link,) = json.loads(kept.ip("-j", "link", "show", "dev", "eth0"))
    return int(link["mtu"])


def bigger(kept: Kept) -> list[dict[str, Any]]:
    return [each | {"mtu": 1400} for each in kept.sections["interfaces"]]


def test_it_leaves_alone_what_waits_and_counts_down(
    folder: Path, kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        assert main(["apply", "--confirm", "5min", other(kept, folder, routes=[ROUTE, OTHER])]) == 0
        watcher.await_state("paused", kept.name)
        # It may have been seen while it was being made.
        watcher.until(lambda: watcher.status().sandboxes[kept.name]["confirm_by"] > 0, "it is known to wait")
        found = watcher.status().sandboxes[kept.name]
        assert "a change waits to be confirmed, until " in found["detail"]
        capsys.readouterr()
        main(["status", kept.name])
        assert " s left)" in capsys.readouterr().out
        kept.ip("route", "del", "10.8.0.0/16")
        watcher.await_quiet()
        assert not kept.has()
        assert main(["confirm", kept.name]) == 0
        # What it keeps is what its own manifest says.
        watcher.until(lambda: kept.has() and not kept.has("10.9.0.0/16"), "the sandbox is kept again")
        assert watcher.await_good().sandboxes[kept.name]["confirm_by"] == 0


def test_it_undoes_what_nobody_else_is_left_to_undo(folder: Path, kept: Kept) -> None:
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        assert main(["apply", "--confirm", "2s", other(kept, folder, interfaces=bigger(kept))]) == 0
        for pid in helpers(kept.name):
            os.kill(pid, 9)
        assert mtu(kept) == 1400
        until(lambda: pending.read(kept.name) is None)
        watcher.await_state("converged", kept.name)
        assert mtu(kept) == 1500


def test_what_fails_its_checks_is_undone_and_held_until_the_next_edit(folder: Path, kept: Kept) -> None:
    """A restart of the watcher does not try it once more, and drift is repaired as the manifest before says."""
    held = f"{kept.name}: rolled back: 1 check failed after the change: ping 10.0.0.2: "

    def alarmed(watcher: Running) -> bool:
        return any(alarm.startswith(held) for alarm in watcher.status().alarms)

    with watching(folder, "--confirm") as watcher:
        watcher.await_state("converged", kept.name)
        kept.write(routes=[ROUTE, OTHER], checks=[SILENT])
        watcher.await_state("refused", kept.name)
        assert alarmed(watcher)
        assert (kept.has(), kept.has("10.9.0.0/16")) == (True, False)
        assert watcher.await_event("rolled back", sandbox=kept.name)["reason"].startswith("rolled back: 1 check failed")
        kept.ip("route", "del", "10.8.0.0/16")
        watcher.until(kept.has, "drift is repaired")
        assert not kept.has("10.9.0.0/16")
    with watching(folder, "--confirm") as watcher:
        watcher.await_state("refused", kept.name)
        assert alarmed(watcher)
        assert watcher.events("applied") == []
        kept.write(checks=[ROUTED])
        watcher.until(lambda: kept.has("10.9.0.0/16"), "the edit takes effect")
        watcher.await_good()
        assert not alarmed(watcher)


def test_a_watcher_that_is_killed_while_it_changes_leaves_no_half(folder: Path, kept: Kept) -> None:
    """The change is undone at its next start, and tried anew."""
    with watching(folder, "--confirm") as watcher:
        watcher.await_state("converged", kept.name)
        # The check passes before the change. After it, it cannot, and takes its time.
        kept.write(routes=[OTHER], checks=[ROUTED | {"timeout": 30}])
        watcher.until(lambda: kept.has("10.9.0.0/16"), "the change is made")
        watcher.kill()
    assert pending.read(kept.name) is not None
    kept.write(routes=[ROUTE], checks=[])
    with watching(folder, "--confirm") as watcher:
        watcher.await_good()
        assert pending.read(kept.name) is None
        assert (kept.has(), kept.has("10.9.0.0/16")) == (True, False)


def test_a_rollout_stops_at_the_first_that_is_rolled_back(folder: Path, keep: Keep) -> None:
    all_kept = [keep() for _ in range(3)]
    with watching(folder, "--at-once", "1") as watcher:
        watcher.await_good()
        for each in all_kept:
            each.write(routes=[ROUTE, OTHER], checks=[SILENT])
        watcher.until(lambda: len(watcher.status().alarms) == 2, "the rollout stops")
        stopped = next(alarm for alarm in watcher.status().alarms if "rollout" in alarm)
        assert "2 changed manifests still to apply; it continues when any manifest changes" in stopped
        assert [each.has("10.9.0.0/16") for each in all_kept] == [False] * 3
        for each in all_kept:
            each.write(checks=[])
        watcher.await_good()
        assert all(each.has("10.9.0.0/16") for each in all_kept)
    for each in all_kept:
        Path("/run/reconciler/held", each.name).unlink(missing_ok=True)


def test_what_fails_after_it_has_baked_is_undone_as_well(folder: Path, kept: Kept, keep: Keep) -> None:
    """The next one begins only when it has baked."""
    later = keep()
    with watching(folder, "--at-once", "1", "--bake", "8s") as watcher:
        watcher.await_good()
        for each in (kept, later):
            each.write(routes=[ROUTE, OTHER], checks=[ROUTED])
        watcher.until(lambda: kept.has("10.9.0.0/16") or later.has("10.9.0.0/16"), "the first one changes")
        first, second = (kept, later) if kept.has("10.9.0.0/16") else (later, kept)
        assert watcher.state(second.name) == "pending"
        # That is not ours, so nobody repairs it.
        first.ip("route", "add", "blackhole", "10.8.0.0/24")
        watcher.until(lambda: any("rolled back" in alarm for alarm in watcher.status().alarms), "it is undone")
        watcher.until(lambda: not first.has("10.9.0.0/16"), "it is undone")
        assert not second.has("10.9.0.0/16")
    for each in (kept, later):
        Path("/run/reconciler/held", each.name).unlink(missing_ok=True)


def test_a_machine_that_is_watched_is_lent_for_the_change_and_for_its_undo(
    folder: Path, kernel: Kernel, guest: Guest
) -> None:
    """Its guard ends meanwhile: nothing restores what the change has deleted."""
    name = kernel.prefix
    place = VmBox(kernel, folder / f"{name}.yaml", guest)
    folder.mkdir()
    service = {"tcp": "127.0.0.1:80", "servers": [{"address": "127.0.0.1:81"}]}
    other = {"udp": "127.0.0.1:53", "servers": [{"address": "127.0.0.1:54"}]}
    place.write(sandbox=name, ipvs={"services": [service]})
    try:
        with watching(folder) as watcher:
            watcher.await_state("converged", name)
            before = guest.output("ipvsadm", "-Sn")
            changed = VmBox(kernel, folder.parent / "changed.yaml", guest)
            file = changed.write(sandbox=name, ipvs={"services": [other]})
            assert main(["apply", "--allow-delete", "all", "--confirm", "5s", file]) == 0
            assert "127.0.0.1:53" in guest.output("ipvsadm", "-Sn")
            assert "127.0.0.1:80" not in guest.output("ipvsadm", "-Sn")
            until(lambda: pending.read(name) is None)
            watcher.await_state("converged", name)
            assert guest.output("ipvsadm", "-Sn") == before
    finally:
        pending.remove(name)
        place.apply("--allow-delete", "all", sandbox=name, ipvs={"services": []})
