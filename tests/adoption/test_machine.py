"""In a machine: what others made on our NIC becomes ours, and so does a NIC that others plugged."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.cli.main import main
from reconciler.drivers.vm.monitor import observe
from reconciler.guest.qmp import Monitor, QmpError
from tests.conftest import Kernel, ip
from tests.machine import Guest
from tests.system.box import VmBox, nic
from tests.watch.running import until

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


MAC = "02:42:20:6f:a3:0f"


@pytest.fixture
def plugged(box: VmBox, guest: Guest, kernel: Kernel) -> Iterator[str]:
    """Plug a NIC under IDs of somebody else's, and give it an address. Return its TAP, whose host is a peer of it."""
    tap = kernel.tap()
    ip("link", "set", "dev", tap, "up")
    ip("address", "add", "10.9.0.1/16", "dev", tap)
    with Monitor(guest.sandbox.qmp) as monitor:
        slot = observe(monitor, []).slots[0]
        monitor.execute("netdev_add", type="tap", id="net-9.x", ifname=tap, script="no", downscript="no")
        place = {"bus": slot.bus, "addr": slot.addr}
        monitor.execute("device_add", driver="virtio-net-pci", id="nic_9", netdev="net-9.x", mac=MAC, **place)
    box.ip("link", "set", "dev", _named(box, MAC), "name", "eth9", "up")
    box.ip("address", "add", "10.9.0.2/16", "dev", "eth9")
    box.ip("route", "add", "203.0.113.0/24", "via", "10.9.0.1")
    yield tap
    box.empty()
    with Monitor(guest.sandbox.qmp) as monitor:
        with suppress(QmpError):
            monitor.execute("device_del", id="nic_9")
            monitor.await_event("DEVICE_DELETED", lambda data: data.get("device") == "nic_9", 60)
        with suppress(QmpError):
            monitor.execute("netdev_del", id="net-9.x")


def test_a_nic_that_another_program_plugged_is_adopted(
    box: VmBox, guest: Guest, plugged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is marked in QEMU, under traffic, and goes as it came."""
    capsys.readouterr()
    assert main(["import", "--vm", guest.sandbox.name, "--live"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"device: {plugged}" in said.out
    box.file.write_text(said.out)
    refused = nic(f"{plugged}x", "eth9", hwAddr=MAC, addresses=["10.9.0.2/16"])
    assert main(["apply", "--adopt", box.write(interfaces=[refused])]) == 3
    assert f"does not take it over: QEMU has it on {plugged}, not on {plugged}x" in capsys.readouterr().err
    interface = nic(plugged, "eth9", hwAddr=MAC, addresses=["10.9.0.2/16"])
    undone = {"routes": [{"dest": "10.9.0.1/32", "type": "blackhole"}], "checks": [{"ping": "10.9.0.1"}]}
    assert main(["apply", "--adopt", box.write(interfaces=[interface], **undone)]) == 2
    assert "all undone. box is as it was before." in capsys.readouterr().err
    assert _marks(guest) == []
    box.file.write_text(said.out)
    assert main(["diff", str(box.file)]) == 3
    log = box.file.with_name("ping")
    with log.open("w") as stream, subprocess.Popen(["ping", "-n", "-i", "0.01", "10.9.0.2"], stdout=stream) as ping:

        def answered() -> int:
            return max(map(int, re.findall(r"icmp_seq=(\d+) ttl", log.read_text())), default=0)

        assert main(["apply", "--adopt", str(box.file)]) == 0
        assert main(["diff", str(box.file)]) == 0
        # Of what is asked after all of that, something is answered.
        after = answered() + 20
        until(lambda: answered() > after, "answers")
        ping.send_signal(2)
    # The last ones may be on their way when ping is stopped.
    numbers = [int(each) for each in re.findall(r"icmp_seq=(\d+) ttl", log.read_text())]
    assert numbers == list(range(1, len(numbers) + 1))
    assert _marks(guest) == [f"reconciler.adopted.{len(plugged)}.5.{plugged}nic_9net-9.x"]
    # It is ours: in place, and then it goes, with what marked it.
    interface = nic(plugged, "eth9", hwAddr=MAC, mtu=1400, addresses=["10.9.0.3/16"])
    assert main(["apply", box.write(interfaces=[interface])]) == 0
    assert main(["diff", str(box.file)]) == 0
    assert main(["apply", "--allow-delete", "all", box.write(interfaces=[])]) == 0
    assert [each["ifname"] for each in json.loads(box.ip("-j", "link"))] == ["lo"]
    with Monitor(guest.sandbox.qmp) as monitor:
        assert "net-9.x" not in monitor.human("info network")
    assert _marks(guest) == []


def test_an_adopted_nic_that_another_program_unplugs(box: VmBox, guest: Guest, plugged: str) -> None:
    """What it left is deleted, and its TAP is plugged anew."""
    interface = nic(plugged, "eth9", hwAddr=MAC, addresses=["10.9.0.2/16"])
    assert main(["apply", "--adopt", box.write(interfaces=[interface])]) == 0
    with Monitor(guest.sandbox.qmp) as monitor:
        monitor.execute("device_del", id="nic_9")
        assert monitor.await_event("DEVICE_DELETED", lambda data: data.get("device") == "nic_9", 60)
    assert main(["apply", str(box.file)]) == 0
    assert main(["diff", str(box.file)]) == 0
    with Monitor(guest.sandbox.qmp) as monitor:
        assert "net-9.x" not in monitor.human("info network")
    assert _marks(guest) == []
    box.apply("--allow-delete", "all", interfaces=[])


def _marks(guest: Guest) -> list[str]:
    with Monitor(guest.sandbox.qmp) as monitor:
        labels = [each["label"] for each in monitor.execute("query-chardev")]
    return [label for label in labels if "adopted" in label]


def _named(box: VmBox, mac: str) -> str:
    """Return the name of the NIC with a MAC address, which the guest detects after a moment."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for each in json.loads(box.ip("-j", "link")):
            if each.get("address") == mac:
                return str(each["ifname"])
    raise AssertionError(mac)
