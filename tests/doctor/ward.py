"""A host of its own with sandboxes that are well, and what `doctor` says there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconciler.values import dataclass
from tests.host import Host
from tests.watch.running import until

# What a kernel counts by itself.
TIMER = re.compile(r'"[a-z_]*timer":[0-9.]+,?')
# A bridge br0 with an address of each family; a and b are in it, c is beside it with a second NIC of its own.
SETUP = """\
set -e
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip link add br0 type bridge
ip link set br0 up
ip address add 192.0.2.1/24 dev br0
ip address add 2001:db8::1/64 dev br0 nodad
for name in a b c; do
  ip netns add $name
  ip -n $name link set lo up
  ip link add veth-$name type veth peer name host-$name
  ip link set host-$name master br0 up
done
ip link add veth-c2 type veth peer name host-c2
ip link set host-c2 up
ip address add 198.51.100.1/24 dev host-c2
"""
BOX = """\
apiVersion: reconciler/v1
sandbox: {name}
driver:
  netns: {{name: {name}}}
interfaces:
  - name: eth0
    device: veth-{name}
    hwAddr: "02:00:00:00:00:0{number}"
    mtu: 1500
    addresses: [192.0.2.1{number}/24, "2001:db8::1{number}/64"]
{second}routes:
  - {{dest: default, gateway: 192.0.2.1, device: eth0}}
  - {{dest: default, gateway: "2001:db8::1", device: eth0}}
"""
SECOND = """\
  - {name: eth1, device: veth-c2, hwAddr: "02:00:00:00:00:21", mtu: 1500, addresses: [198.51.100.13/24]}
"""


@dataclass
class Said:
    """What `doctor` said: its exit code, and the data that it printed."""

    code: int
    data: dict[str, Any]

    @property
    def found(self) -> set[tuple[str, str]]:
        """Give the checks that found something, each with what it is about."""
        return {(each["check"], each["about"]) for each in self.data["findings"]}

    @property
    def noted(self) -> set[tuple[str, str]]:
        """Give the checks that noted something."""
        return {(each["check"], each["about"]) for each in self.data["notes"]}

    def commands(self, check: str) -> list[str]:
        return [each["command"] for each in self.data["findings"] if each["check"] == check]


@dataclass
class Ward:
    """The host, and the folder of its manifests."""

    host: Host
    manifests: str

    def sh(self, script: str) -> str:
        return self.host.output("sh", "-ec", script)

    def doctor(self, *words: str) -> Said:
        code, printed = self.host.reconciler("doctor", "-o", "json", *(words or (self.manifests,)))
        return Said(code, json.loads(printed))

    def await_doctor(self, condition: Callable[[Said], object]) -> Said:
        """Wait until what `doctor` says meets a condition; return that."""
        said = [self.doctor()]

        def holds() -> bool:
            if condition(said[0]):
                return True
            said[:] = [self.doctor()]
            return False

        until(holds, "doctor says so", more=lambda: str(said[0].data))
        return said[0]

    def apply(self) -> None:
        code, printed = self.host.reconciler("apply", self.manifests)
        assert code == 0, printed


def made(host: Host, folder: Path) -> Ward:
    """Make the sandboxes, and apply their manifests."""
    host.output("sh", "-ec", SETUP)
    for number, name in enumerate("abc", 1):
        second = SECOND if name == "c" else ""
        (folder / f"{name}.yaml").write_text(BOX.format(name=name, number=number, second=second))
    ward = Ward(host, str(folder))
    ward.apply()
    return ward
