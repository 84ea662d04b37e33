"""Warnings about links of real namespaces and machines, before and after they are changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli.main import main
from tests.conftest import Kernel, ip
from tests.machine import Guest
from tests.system.box import Box, VmBox, nic
from tests.vm.vm import make_tap


@pytest.fixture
def vm_box(kernel: Kernel, tmp_path: Path, guest: Guest) -> Iterator[VmBox]:
    box = VmBox(kernel, tmp_path / "box.yaml", guest)
    yield box
    box.empty()


def warned(capsys: pytest.CaptureFixture[str], command: str, file: str) -> list[str]:
    """Return the warnings of a command without the name of the file."""
    capsys.readouterr()
    assert main([command, file]) in {0, 1}
    return [line.removeprefix(f"{file}:") for line in capsys.readouterr().err.splitlines()]


LO = "driver: lo is down in the sandbox, so nothing there reaches its own addresses, such as 127.0.0.1"
NO_CARRIER = "interfaces[0].device: eth0 has no carrier (NO-CARRIER), so no packet passes"
ITSELF = "is an address of the sandbox itself, so packets that take this route go nowhere"


def test_links_of_a_namespace(kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = Box(kernel, tmp_path / f"{kernel.namespace()}.yaml")
    near, far = kernel.veth()
    file = box.write(interfaces=[nic(near)], routes=[])
    lo = f"4:3: warning: {LO}; ip -n {box.namespace} link set lo up"
    carrier = f"7:11: warning: {NO_CARRIER}: its peer is down"
    assert warned(capsys, "diff", file) == [lo]
    # Only an interface that is up shows whether it has a carrier.
    assert warned(capsys, "apply", file) == [lo, carrier]
    assert warned(capsys, "diff", file) == [lo, carrier]
    box.ip("link", "set", "lo", "up")
    assert warned(capsys, "apply", file) == [carrier]
    ip("link", "set", far, "up")
    assert warned(capsys, "diff", file) == []


def test_a_tap_that_no_process_uses(kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = Box(kernel, tmp_path / f"{kernel.namespace()}.yaml")
    box.ip("link", "set", "lo", "up")
    file = box.write(interfaces=[nic(kernel.tap())])
    assert warned(capsys, "diff", file) == []
    assert warned(capsys, "apply", file) == [f"7:11: warning: {NO_CARRIER}: no process uses it"]


def test_a_gateway_of_the_sandbox_itself(kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = Box(kernel, tmp_path / f"{kernel.namespace()}.yaml")
    box.ip("link", "set", "lo", "up")
    near, far = kernel.veth()
    ip("link", "set", far, "up")
    routes = [{"dest": "10.9.0.0/16", "gateway": "10.0.0.2", "device": "eth0"}]
    file = box.write(interfaces=[nic(near)], routes=routes)
    (told,) = warned(capsys, "validate", file)
    assert told.endswith(f"warning: routes[0].gateway: 10.0.0.2 {ITSELF}")
    assert warned(capsys, "apply", file) == [told]
    # Without the section, the addresses are those that were observed.
    file = box.write(routes=routes)
    assert warned(capsys, "validate", file) == []
    (told,) = warned(capsys, "diff", file)
    assert told.endswith(f"warning: routes[0].gateway: 10.0.0.2 {ITSELF}")


def test_a_table_that_no_rule_looks_up(kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = Box(kernel, tmp_path / f"{kernel.namespace()}.yaml")
    box.ip("link", "set", "lo", "up")
    file = box.write(routes=[{"dest": "10.9.0.0/16", "type": "blackhole", "table": 100}])
    (told,) = warned(capsys, "apply", file)
    assert told.endswith("routes[0].table: no IPv4 rule looks up table 100, so no packet takes this route")
    box.ip("rule", "add", "table", "100")
    assert warned(capsys, "diff", file) == []


def test_a_tap_of_a_machine_that_is_down(vm_box: VmBox, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    device = make_tap(kernel)
    file = vm_box.write(interfaces=[nic(device)])
    assert warned(capsys, "apply", file) == []
    ip("link", "set", device, "down")
    down = f"7:11: warning: interfaces[0].device: {device} is down on the host, so no packet passes; "
    assert warned(capsys, "diff", file) == [f"{down}ip link set {device} up"]
    ip("link", "set", device, "up")
    vm_box.ip("link", "set", "lo", "down")
    assert warned(capsys, "diff", file) == [f"4:3: warning: {LO}; set it up"]
    vm_box.ip("link", "set", "lo", "up")
    assert warned(capsys, "diff", file) == []
