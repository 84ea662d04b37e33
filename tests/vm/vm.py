"""A virtual machine for tests, and what QEMU and `ip` in the guest say of it (not our own decoders)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.cli.main import main
from reconciler.guest.qmp import Monitor
from reconciler.manifest.dump import dump
from reconciler.values import dataclass
from tests.conftest import Kernel, ip
from tests.machine import Guest, freeze

# `info network`: a NIC, and a netdev, which is indented if it has a NIC.
_NIC = re.compile(r"^reconciler-(\S+): index=0,type=nic,.*macaddr=(\S+)", re.MULTILINE)
_NETDEV = re.compile(r"^( \\ )?reconciler-(\S+): index=\d+,type=(?!nic)", re.MULTILINE)


@dataclass
class Vm:
    """A machine that runs, and the manifest that is written for it."""

    guest: Guest
    file: Path

    @property
    def name(self) -> str:
        return self.guest.sandbox.name

    def write(self, **sections: Any) -> str:
        """Write the manifest with these sections; give its path."""
        data = {"apiVersion": "reconciler/v1", "sandbox": self.name, "driver": {"vm": {"name": self.name}}}
        self.file.write_text(dump([data | sections]))
        return str(self.file)

    def run(self, *options: str, **sections: Any) -> int:
        """Write the manifest and apply it; give the exit code."""
        return main(["apply", "--allow-delete", "all", *options, self.write(**sections)])

    def apply(self, **sections: Any) -> None:
        """Write the manifest and apply it; it must succeed."""
        assert self.run(**sections) == 0

    def empty(self) -> None:
        """Take everything of ours away, and look whether it is."""
        self.apply(interfaces=[], routes=[])
        self.assert_is([])

    def order(self, command: str, **arguments: Any) -> Any:
        """Execute a command of QMP over the monitor for people."""
        with Monitor(os.path.join(self.guest.sandbox.folder, "qmp2.sock")) as monitor:
            return monitor.execute(command, **arguments)

    def human(self, line: str) -> str:
        return str(self.order("human-monitor-command", **{"command-line": line})).replace("\r", "")

    def plugged(self) -> dict[str, str]:
        """Say what QEMU has plugged for us: device → MAC address of the moment."""
        return dict(_NIC.findall(self.human("info network")))

    def assert_is(self, interfaces: Sequence[dict[str, Any]]) -> None:
        """Assert that the guest and QEMU have exactly these interfaces, and nothing is left half done."""
        network = self.human("info network")
        assert dict(_NIC.findall(network)) == {each["device"]: each["hwAddr"] for each in interfaces}, network
        netdevs = [device for _, device in _NETDEV.findall(network)]
        assert sorted(netdevs) == sorted(each["device"] for each in interfaces for _ in range(_queues(each))), network
        assert all(below for below, _ in _NETDEV.findall(network)), network
        peripherals = [each["name"] for each in self.order("qom-list", path="/machine/peripheral")]
        ours = {name.removeprefix("reconciler-") for name in peripherals if name.startswith("reconciler-")}
        assert ours == {each["device"] for each in interfaces}
        chardevs = [each["label"] for each in self.order("query-chardev")]
        assert not [label for label in chardevs if label.startswith("reconciler-")]
        assert self.links() == {
            each["name"]: {
                "mac": each["hwAddr"],
                "mtu": each["mtu"],
                "up": True,
                "queues": _queues(each),
                "addresses": sorted(_text(address) for address in each.get("addresses", ())),
            }
            for each in interfaces
        }

    def links(self) -> dict[str, Any]:
        """Say what `ip` in the guest sees, but for `lo`."""
        return {
            link["ifname"]: {
                "mac": link["address"],
                "mtu": link["mtu"],
                "up": "UP" in link["flags"],
                "queues": link["num_tx_queues"],
                "addresses": sorted(
                    f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["scope"] != "link"
                ),
            }
            for link in json.loads(self.guest.output("ip", "-j", "-d", "address"))
            if link["ifname"] != "lo"
        }

    def index(self, name: str) -> int:
        """Give the index of a link: the same for as long as it stays plugged."""
        (link,) = json.loads(self.guest.output("ip", "-j", "link", "show", "dev", name))
        return int(link["ifindex"])

    def pid(self) -> int:
        pid = self.guest.sandbox.pid()
        assert pid
        return pid

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop QEMU's process for a while."""
        pid = self.pid()
        freeze(pid)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


def _queues(interface: dict[str, Any]) -> int:
    return max(int(interface.get("queues", 0)), 1)


def _text(address: str | dict[str, Any]) -> str:
    return address if isinstance(address, str) else str(address["address"])


def make_tap(kernel: Kernel, *options: str) -> str:
    """Make a TAP that is up."""
    device = kernel.tap(*options)
    ip("link", "set", "dev", device, "up")
    return device


def reach(device: str, host: str, guest: str) -> None:
    """Give the host's end an address, and a route to nothing but the guest."""
    ip("address", "add", host, "peer", guest, "dev", device)


def assert_answers(device: str, guest: str) -> None:
    # No NIC tells its neighbours of a new MAC address.
    ip("neighbour", "flush", "dev", device)
    command = ["ping", "-q", "-n", "-c", "3", "-i", "0.1", "-W", "30", "-I", device, guest]
    assert "3 received" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
