"""Tunnels of a host, which have no MAC addresses, are given to a namespace; its kernel is one that has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from reconciler.manifest.dump import dump
from tests.uml import Ran, Uml

# On the host, in the sandbox; how it is made, and what `ip` calls its link.
TUNNELS = {
    "h-ipip": ("ipip0", "ipip local 192.0.2.1 remote 192.0.2.2", "ipip"),
    "h-sit": ("sit1", "sit local 192.0.2.1 remote 192.0.2.3", "sit"),
    "h-6to4": ("sit2", "sit local 192.0.2.1", "sit"),
    "h-gre": ("gre1", "gre local 192.0.2.1", "gre"),
    "h-ip6": ("ip6-1", "ip6tnl local 2001:db8::1 remote 2001:db8::2", "tunnel6"),
}
# One that is adopted is named by its sandbox.
DEVICES = {"tunnels": ["h-*", "tunnels-*"]}
BROKEN = """
link set ipip0 down
link set sit2 down
link set ip6-1 mtu 1300
address flush dev gre1 scope global
route del multicast ff00::/8 dev ip6-1 table local
"""
REPAIRED = [
    "ip -6 route add 2001:db8:9::/48 dev ipip0 metric 1024 proto 200",
    "ip -6 route add multicast ff00::/8 dev ip6-1 table local metric 256 proto kernel",
    "ip address add 10.3.0.1/24 dev gre1",
    "ip address add fd00:0:0:2::1/64 dev sit2",
    "ip address add fd00:0:0:3::1/64 dev gre1",
    "ip address add fd00::1/64 dev ipip0",
    "ip link set dev ip6-1 mtu 1400",
    "ip link set dev ipip0 up",
    "ip link set dev sit2 up",
]


@pytest.fixture
def host(uml: Uml) -> Iterator[Uml]:
    """A host with tunnels, and a namespace."""
    lines = [
        # Without the tunnels that the kernel makes of itself in each namespace.
        "sysctl -qw net.core.fb_tunnels_only_for_init_net=2",
        "ip netns add tunnels",
        "ip -n tunnels link set lo up",
        *(f"ip link add {device} mtu 1480 type {how}" for device, (_, how, _) in TUNNELS.items()),
    ]
    uml.output("sh", "-ec", "\n".join(lines))
    yield uml
    # One that was adopted is named by the sandbox.
    devices = [*TUNNELS, *(f"tunnels-{name}" for name, _, _ in TUNNELS.values())]
    uml.output("sh", "-c", "\n".join(["ip netns del tunnels", *(f"ip link del {each} 2>&1 || :" for each in devices)]))


def manifest(*interfaces: dict[str, Any], **sections: Any) -> str:
    head = {"apiVersion": "reconciler/v1", "sandbox": "tunnels", "driver": {"netns": {"name": "tunnels"}}}
    return dump([head | {"interfaces": interfaces} | sections])


def commands(host: Uml, path: str) -> list[str]:
    """Return what would be done, in the order of the alphabet."""
    ran = host.reconciler("diff", "-o", "json", path)
    assert ran.status in {0, 1}, ran
    (box,) = json.loads(ran.stdout)["sandboxes"]
    return sorted(each["command"] for each in box["operations"])


def run(host: Uml, *words: str) -> Ran:
    """Run a command under a policy that allows these devices; it has to succeed."""
    ran = host.reconciler(*words, "--policy", host.file("policy.yaml", dump([{"physicalDevices": DEVICES}])))
    assert ran.status == 0, ran
    return ran


def links(host: Uml) -> dict[str, dict[str, Any]]:
    listed = json.loads(host.output("ip", "-n", "tunnels", "-d", "-j", "address", "show"))
    return {each["ifname"]: each for each in listed}


def test_tunnels_are_given_kept_adopted_and_returned(host: Uml) -> None:
    interfaces = [
        {
            "name": name,
            "device": device,
            "mtu": 1400,
            "addresses": [f"10.{number}.0.1/24", f"fd00:0:0:{number}::1/64"],
        }
        | ({"master": "red"} if name == "gre1" else {})
        for number, (device, (name, _, _)) in enumerate(TUNNELS.items())
    ]
    routes = [{"dest": "2001:db8:9::/48", "device": "ipip0"}]
    red = {"name": "red", "vrf": {"table": 100}}
    path = host.file("tunnels.yaml", manifest(*interfaces, red, routes=routes))
    before = host.output("ip", "-d", "link", "show")
    run(host, "apply", path)
    assert commands(host, path) == []
    # No ARP is usual there.
    shown = yaml.load(run(host, "show", path).stdout, yaml.CBaseLoader)["interfaces"]
    assert [each["name"] for each in shown if "arp" in each] == []
    found = links(host)
    for device, (name, _, kind) in TUNNELS.items():
        link = found[name]
        assert [link[key] for key in ("link_type", "mtu", "ifalias")] == [
            kind,
            1400,
            f"reconciler: device={device} mtu=1480",
        ]
    host.output("ip", "-n", "tunnels", "-batch", host.file("broken", BROKEN))
    assert commands(host, path) == REPAIRED
    run(host, "apply", path)
    assert commands(host, path) == []
    again = links(host)
    for name, link in found.items():
        # What the kernel has made of the addresses of the tunnels has no order.
        one, other = ({each["local"] for each in listed["addr_info"]} for listed in (link, again[name]))
        assert one == other, name
    none = host.file("none.yaml", manifest(routes=[]))
    run(host, "apply", "--allow-delete", "all", none)
    assert host.output("ip", "-d", "link", "show") == before


def test_a_tunnel_is_adopted_if_its_packets_leave_by_the_host(host: Uml) -> None:
    lines = [
        *(f"ip link set {device} netns tunnels name {TUNNELS[device][0]} up" for device in TUNNELS),
        "ip -n tunnels address add 10.9.0.1/24 dev ipip0",
        "ip -n tunnels link add own up mtu 1400 type ipip remote 192.0.2.9",
    ]
    host.output("sh", "-ec", "\n".join(lines))
    ran = host.reconciler("import", "--live", "--netns", "tunnels")
    own = "nothing proves that it is a device of this host: a program in the sandbox could have made it"
    assert ran.stderr.startswith(f"tunnels: left out: interfaces: own: {own}, as its other end is there as well"), ran
    path = host.file("live.yaml", ran.stdout)
    run(host, "apply", "--adopt", path)
    none = host.file("none.yaml", manifest())
    run(host, "apply", "--allow-delete", "all", none)
    # Each by the name that the manifest has for it.
    kinds = [each["link_type"] for each in json.loads(host.output("ip", "-j", "link", "show")) if each["mtu"] == 1480]
    assert sorted(kinds) == sorted(kind for _, _, kind in TUNNELS.values())
