"""What a manifest may say of links that are made in the sandbox, and which words it gets for what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import ManifestError
from reconciler.manifest.dump import dump
from reconciler.manifest.load import load

NIC = {"name": "eth0", "device": "tap0", "hwAddr": "02:42:20:6f:a3:69", "mtu": 1500}
TUN = {"name": "tun0", "device": "tun0", "mtu": 1500}


def vlan(name: str, link: str, number: int = 7, **fields: Any) -> dict[str, Any]:
    return {"name": name, "vlan": {"link": link, "id": number}} | fields


def named(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, kind: {"table": 1000} if kind == "vrf" else {}} | fields


WRONG: list[tuple[str, list[dict[str, Any]], list[str]]] = [
    (
        "a link that does not exist",
        [NIC, vlan("v", "eth1")],
        ['interfaces[1].vlan.link: no interface is named "eth1"; did you mean "eth0"?'],
    ),
    (
        "a master that does not exist",
        [NIC | {"master": "br1"}, named("br0", "bridge")],
        ['interfaces[0].master: no interface is named "br1"; did you mean "br0"?'],
    ),
    (
        "a master without ports",
        [NIC, named("d", "dummy", master="eth0")],
        ["interfaces[1].master: eth0 has no ports; expected an interface that is one of bridge, bond, vrf"],
    ),
    (
        "a cycle of two",
        [vlan("a", "b"), vlan("b", "a")],
        [
            "interfaces[0].vlan.link: a lies on itself: a → b → a",
            "interfaces[1].vlan.link: b lies on itself: b → a → b",
        ],
    ),
    ("itself", [vlan("a", "a")], ["interfaces[0].vlan.link: a lies on itself: a → a"]),
    (
        "a cycle through a bridge",
        [named("br0", "bridge"), vlan("v", "br0", master="br0")],
        [
            "interfaces[0]: br0 lies on itself: br0 → v → br0",
            "interfaces[1].master: v lies on itself: v → br0 → v",
        ],
    ),
    (
        "a bridge on what lies on it",
        [vlan("v", "b"), named("b", "bond", master="br0"), named("br0", "bridge", master="v")],
        ["interfaces[2].master: v has no ports; expected an interface that is one of bridge, bond, vrf"],
    ),
    (
        "the same tag twice",
        [NIC, vlan("v", "eth0"), vlan("w", "eth0")],
        ["interfaces[2].vlan.id: v has this ID on eth0 already"],
    ),
    (
        "an MTU above that of its link",
        [NIC, vlan("v", "eth0", mtu=1501)],
        ["interfaces[1].mtu: 1501 is above the MTU of eth0, on which it lies: 1500"],
    ),
    (
        "a port of a bond with addresses",
        [NIC | {"master": "b", "addresses": ["10.0.0.2/24"]}, named("b", "bond")],
        ["interfaces[0].master: a port of a bond has no addresses; give them to b"],
    ),
    (
        "a bridge in a bridge",
        [named("a", "bridge"), named("b", "bridge", master="a")],
        ["interfaces[1].master: a bridge cannot be a port of a bridge"],
    ),
    (
        "a VLAN on a VRF",
        [named("red", "vrf"), vlan("v", "red")],
        ["interfaces[1].vlan.link: red is a VRF, which carries no frames of a vlan"],
    ),
    (
        "a VLAN and a bridge on devices without MAC addresses, and a VRF",
        [
            TUN | {"master": "br0"},
            TUN | {"name": "tun1", "device": "tun1", "master": "red"},
            vlan("v", "tun1"),
            named("br0", "bridge"),
            named("red", "vrf"),
        ],
        [
            "interfaces[0].master: tun0 has no hwAddr, and a bridge takes no port without a MAC address",
            "interfaces[2].vlan.link: tun1 has no hwAddr, so it carries no frames of a vlan",
        ],
    ),
    (
        "a macvlan on a macvlan",
        [NIC, {"name": "m", "macvlan": {"link": "eth0"}}, {"name": "n", "macvlan": {"link": "m"}}],
        ["interfaces[2].macvlan.link: m is a macvlan, and the kernel puts this one beside it, on eth0; name that link"],
    ),
    (
        "a macvlan on a port",
        [NIC | {"master": "br0"}, named("br0", "bridge"), {"name": "m", "macvlan": {"link": "eth0"}}],
        ["interfaces[2].macvlan.link: eth0 is a port of br0, so no macvlan can lie on it; put it on br0"],
    ),
    (
        "queues",
        [named("d", "dummy", queues=2)],
        ["interfaces[0].queues: only a device of the host has queues, and this interface is made in the sandbox"],
    ),
    (
        "an option of another mode",
        [{"name": "b", "bond": {"lacpRate": "fast"}}],
        ["interfaces[0].bond.lacpRate: only a bond with mode 802.3ad has it"],
    ),
    (
        "the main table",
        [{"name": "red", "vrf": {"table": 254}}],
        [
            "interfaces[0].vrf.table: 254 is a table of the sandbox itself; a VRF needs one of its own, such as 1000",
        ],
    ),
    (
        "two kinds",
        [NIC | {"dummy": {}}],
        ["interfaces[0].dummy: not beside device; an interface is one of them"],
    ),
    (
        "no ID",
        [NIC, {"name": "v", "vlan": {"link": "eth0"}}],
        ["interfaces[1].vlan.id: missing; expected a VLAN ID from 1 to 4094"],
    ),
]


def problems(
    folder: Path, interfaces: list[dict[str, Any]], driver: dict[str, Any], **sections: list[dict[str, Any]]
) -> list[str]:
    """Return the problems of a manifest, without their places in the file."""
    file = folder / "box.yaml"
    head = {"apiVersion": "reconciler/v1", "sandbox": "box", "driver": driver}
    file.write_text(dump([head | {"interfaces": interfaces} | sections]))
    try:
        load([str(file)])
    except ManifestError as error:
        return [line.partition(": ")[2] for line in str(error).splitlines()]
    return []


@pytest.mark.parametrize(("interfaces", "words"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG])
def test_it_is_refused_with_its_field(tmp_path: Path, interfaces: list[dict[str, Any]], words: list[str]) -> None:
    assert problems(tmp_path, interfaces, {"netns": {"name": "box"}}) == words


def test_an_mtu_that_is_left_to_the_kernel_limits_nothing(tmp_path: Path) -> None:
    links = [named("d", "dummy"), vlan("v", "d", mtu=9000)]
    routes = [{"dest": "10.8.0.0/16", "device": "d", "mtu": 9000}]
    neighbours = [{"address": "fd00::1", "device": "d", "hwAddr": "02:42:20:6f:a3:01"}]
    assert problems(tmp_path, links, {"netns": {"name": "box"}}, routes=routes, neighbours=neighbours) == []


@pytest.mark.parametrize("kind", ["dummy", "bridge", "bond", "vrf"])
def test_kata_runtime_makes_none(tmp_path: Path, kind: str) -> None:
    found = problems(tmp_path, [NIC | {"master": "m"}, named("m", kind)], {"kata": {"id": "box"}})
    assert (
        f"interfaces[1].{kind}: kata-runtime cannot make interfaces in the sandbox; give it a device of the host"
        in found
    )
    assert "interfaces[0].master: kata-runtime cannot make an interface a port of another one" in found


def test_a_machine_without_a_monitor_can_have_them(tmp_path: Path) -> None:
    driver = {"vm": {"agent": "vsock://3:200"}}
    assert problems(tmp_path, [named("d", "dummy"), vlan("v", "d")], driver) == []
    assert problems(tmp_path, [NIC], driver) != []
