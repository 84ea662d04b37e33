"""In a machine: what others made on our NIC becomes ours; a NIC that others plugged does not."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli.main import main
from reconciler.drivers.vm.monitor import observe
from reconciler.guest.qmp import Monitor
from tests.conftest import Kernel, ip
from tests.machine import Guest
from tests.system.box import VmBox, nic

# What somebody typed: rules that the kernel could mistake for each other among them.
TYPED = """
route add 203.0.113.0/24 via 10.0.0.1 proto static
route add default via 10.0.0.1
rule add from 10.0.0.0/16 iif eth0 lookup 100 priority 600
rule add from 10.0.0.0/16 lookup 100 priority 600
rule add from 10.0.0.0/16 lookup 101 priority 601 protocol static
neigh add 10.0.0.1 lladdr 02:42:20:6f:a3:77 dev eth0 nud permanent
neigh add proxy 10.0.0.9 dev eth0
"""
TYPED_6 = """
route add 2001:db8:7::/48 via 2001:db8::1
rule add from 2001:db8::/64 lookup 100 priority 600
"""


@pytest.fixture
def box(kernel: Kernel, tmp_path: Path, guest: Guest) -> Iterator[VmBox]:
    made = VmBox(kernel, tmp_path / "box.yaml", guest)
    yield made
    made.empty()


def test_what_others_made_in_a_machine_is_adopted(box: VmBox, guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    box.apply(interfaces=[nic(box.device(), addresses=["10.0.0.2/16", {"address": "2001:db8::2/64", "dad": False}])])
    box.ip("-batch", "-", stdin=TYPED)
    box.ip("-6", "-batch", "-", stdin=TYPED_6)
    capsys.readouterr()
    assert main(["import", "--vm", guest.sandbox.name, "--live"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    box.file.write_text(said.out)
    before = box.state()
    assert main(["apply", "--adopt", str(box.file)]) == 0
    assert main(["diff", str(box.file)]) == 0
    assert _without_owners(box.state()) == _without_owners(before)
    assert {each["protocol"] for each in box.rules()} == {"kernel", "200"}
    assert main(["apply", "--allow-delete", "all", box.write(routes=[], rules=[], neighbours=[])]) == 0
    assert {each["protocol"] for each in box.rules()} == {"kernel"}
    assert box.neighbours() == []


def _without_owners(state: object) -> str:
    return re.sub(r', "protocol": "[^"]*"', "", json.dumps(state))


def test_a_nic_that_another_program_plugged_is_not_adopted(
    box: VmBox, guest: Guest, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    """QEMU keeps its ID. What is on it can be adopted without the section `interfaces`."""
    device, mac = kernel.tap(), "02:42:20:6f:a3:0f"
    ip("link", "set", "dev", device, "up")
    with Monitor(guest.sandbox.qmp) as monitor:
        monitor.execute("netdev_add", type="tap", id="net9", ifname=device, script="no", downscript="no")
        place = {"bus": (slot := observe(monitor, []).slots[0]).bus, "addr": slot.addr}
        monitor.execute("device_add", driver="virtio-net-pci", id="nic9", netdev="net9", mac=mac, **place)
    try:
        box.ip("link", "set", "dev", _named(box, mac), "name", "eth9", "up")
        box.ip("address", "add", "10.9.0.2/16", "dev", "eth9")
        box.ip("route", "add", "203.0.113.0/24", "via", "10.9.0.1")
        capsys.readouterr()
        assert main(["import", "--vm", guest.sandbox.name, "--live"]) == 0
        said = capsys.readouterr()
        assert f"{guest.sandbox.name}: left out: interfaces: eth9: reconciler did not plug it. QEMU keeps" in said.err
        assert "interfaces" not in said.out
        box.file.write_text(said.out)
        assert main(["apply", "--adopt", str(box.file)]) == 0
        assert main(["diff", str(box.file)]) == 0
        assert json.loads(box.ip("-j", "-d", "route", "show", "203.0.113.0/24"))[0]["protocol"] == "200"
        refused = box.write(interfaces=[nic(device, "eth9", 14, hwAddr=mac, addresses=["10.9.0.2/16"])])
        assert main(["apply", "--adopt", refused]) == 3
        assert "--adopt does not take it over: reconciler did not plug it." in capsys.readouterr().err
    finally:
        with Monitor(guest.sandbox.qmp) as monitor:
            monitor.execute("device_del", id="nic9")
            assert monitor.await_event("DEVICE_DELETED", lambda data: data.get("device") == "nic9", 20)
            monitor.execute("netdev_del", id="net9")


def _named(box: VmBox, mac: str) -> str:
    """Return the name of the NIC with a MAC address, which the guest detects after a moment."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for each in json.loads(box.ip("-j", "link")):
            if each.get("address") == mac:
                return str(each["ifname"])
    raise AssertionError(mac)
