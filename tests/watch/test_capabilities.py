"""The watcher needs the rights that its unit gives it, and no others: with them all works, and without each something.

The kernel itself takes the rights away (setpriv(1)); systemd does the same by the unit.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.manifest.dump import dump
from tests.conftest import Kernel
from tests.ipvs.rules import rules
from tests.machine import Guest
from tests.processes import process_in
from tests.system.box import nic
from tests.watch import running as module
from tests.watch.running import ROUTE, Kept, Running, is_on_host, put, until, watching
from tests.watch.test_unit import UNIT, read_unit

UNIT_SET = [word.removeprefix("CAP_").lower() for word in read_unit()["Service"]["CapabilityBoundingSet"].split()]
NOBODY = 65534
RULES = rules(5)


@contextmanager
def limited(names: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a watcher with these rights, and without a way to get others, during the block."""
    kept = ",".join(["-all", *(f"+{name}" for name in names)])
    limits = ["setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={kept}"]
    monkeypatch.setattr(module, "COMMAND", [*limits, *module.COMMAND])
    with watching(folder, "--look", "1s") as found:
        status = Path(f"/proc/{found.process.pid}/status").read_text()
        masks = {line.split()[1] for line in re.findall("^Cap(?:Prm|Eff|Bnd):.*$", status, re.MULTILINE)}
        assert {int(mask, 16).bit_count() for mask in masks} == {len(names)}
        yield found


def write(folder: Path, name: str, driver: dict[str, Any], **sections: Any) -> None:
    folder.mkdir(exist_ok=True)
    head = {"apiVersion": "reconciler/v1", "sandbox": name, "driver": driver}
    put(folder / f"{name}.yaml", dump([head | sections]))


@contextmanager
def sockets_of_another_user(guest: Guest) -> Iterator[None]:
    """Give the sockets of a machine to a user that is not root, as if that one had started QEMU."""
    paths = (guest.sandbox.agent, guest.sandbox.qmp)
    try:
        for each in paths:
            os.chown(each, NOBODY, NOBODY)
        yield
    finally:
        for each in paths:
            os.chown(each, 0, 0)


def machine(folder: Path, guest: Guest, **sections: Any) -> None:
    write(folder, "machine", {"vm": {"agent": guest.sandbox.agent, "qmp": guest.sandbox.qmp}}, **sections)


def test_with_the_rights_of_the_unit_all_is_kept(
    kernel: Kernel, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "manifests"
    kept, process, device = Kept(kernel, folder, 0), kernel.namespace(), kernel.tap()
    kept.write(
        sysctls={"net.ipv4.ip_forward": 1},
        rules=[{"priority": 100, "from": "10.1.0.0/16", "table": 100}],
        neighbours=[{"address": "10.0.0.1", "device": "eth0", "hwAddr": "02:42:20:6f:a3:f1"}],
    )
    machine(folder, guest, ipvs={"rules": "\n".join(RULES) + "\n"})
    with process_in(process) as pid, sockets_of_another_user(guest):
        write(
            folder,
            "process",
            {"netns": {"pid": pid}},
            interfaces=[nic(device, number=3)],
            routes=[ROUTE | {"gateway": "10.3.0.1"}],
        )
        with limited(UNIT_SET, folder, monkeypatch) as running:
            running.await_state("converged", kept.name, "process", "machine")
            assert kept.is_as_written()
            kept.ip("route", "del", "10.8.0.0/16")
            kept.ip("rule", "del", "priority", "100")
            guest.output("ipvsadm", "-C")
            until(lambda: kept.has() and "from 10.1.0.0/16" in kept.ip("rule"), "repairs", more=running._tail)
            until(
                lambda: guest.output("ipvsadm", "-Sn").count("\n") == len(RULES), "rules of a guest", more=running._tail
            )
            # Devices come home.
            kept.write(interfaces=[], routes=[], neighbours=[])
            write(folder, "process", {"netns": {"pid": pid}}, interfaces=[], routes=[])
            machine(folder, guest, routes=[])
            until(lambda: is_on_host(kept.device) and is_on_host(device), "devices at home", more=running._tail)
        guest.output("ipvsadm", "-C")


WITHOUT = {
    "net_broadcast": "listening to network namespaces needs root",
    "net_admin": "listening to network namespaces needs root",
    "sys_admin": "entering a network namespace needs root (CAP_SYS_ADMIN)",
    "sys_ptrace": "Permission denied",
    "dac_override": "Permission denied",
}


@pytest.mark.parametrize("missing", UNIT_SET)
def test_without_each_of_them_something_fails(
    missing: str, kernel: Kernel, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "manifests"
    names = [each for each in UNIT_SET if each != missing]
    if missing.startswith("net_"):
        # The watcher does not even begin.
        folder.mkdir()
        with pytest.raises(AssertionError, match=WITHOUT[missing]), limited(names, folder, monkeypatch):
            pass
        return
    with process_in(kernel.namespace()) as pid, sockets_of_another_user(guest):
        if missing == "dac_override":
            name = "machine"
            machine(folder, guest, ipvs={"services": []})
        elif missing == "sys_ptrace":
            name = "process"
            write(folder, name, {"netns": {"pid": pid}}, routes=[])
        else:
            name = Kept(kernel, folder, 0).name
        if missing != "dac_override":
            machine(folder, guest, routes=[])
        with limited(names, folder, monkeypatch) as running:
            running.until(lambda: running.state(name) in {"failed", "waiting"}, "a failure")
            assert WITHOUT[missing] in running.status().sandboxes[name]["detail"]
            # The others are not affected.
            if missing != "dac_override":
                running.await_state("converged", "machine")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_exposure_is_the_documented_one() -> None:
    words = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNIT)]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", ran.stdout)
    assert found, ran.stdout
    documented = re.search(r"exposure figure is ([0-9.]+)", " ".join(Path("docs/security.md").read_text().split()))
    assert documented
    assert found[1] == documented[1]
