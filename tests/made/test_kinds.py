"""Each kind of link in a real machine: `ip` reads its options back, and whatever is done to it is repaired.

The kernel of the host need not have VLANs, bonds, VRFs and dummies; that of the machine has them. Nothing is plugged
in, so the machine needs no QEMU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from reconciler.cli import live
from reconciler.cli.main import main
from reconciler.manifest.load import load
from reconciler.manifest.sandbox import write
from reconciler.model.made import KINDS, Option
from reconciler.model.mark import made_altname
from reconciler.model.sandbox import Sandbox, VmAddress
from tests.conftest import Kernel
from tests.examples import examples
from tests.machine import Machine
from tests.made.conftest import state_of
from tests.strategies import OPTIONS, sandboxes
from tests.system.box import MACS, VmBox, errors

# A value of each option that is not its default, and the bond that can have it.
OTHERS: dict[str, dict[str, Any]] = {
    "vlan": {"id": 7, "protocol": "802.1ad"},
    "macvlan": {"mode": "private"},
    "bridge": {
        "stp": True,
        "forwardDelay": 4,
        "ageingTime": 60,
        "vlanFiltering": True,
        "multicastSnooping": False,
    },
    "bond": {"mode": "802.3ad", "miimon": 200, "minLinks": 2, "transmitHashPolicy": "layer3+4", "lacpRate": "fast"},
    "vrf": {"table": 1001},
    "dummy": {},
}
NEEDED: dict[str, dict[str, Any]] = {
    "vlan": {"id": 100, "link": "below"},
    "macvlan": {"link": "below"},
    "vrf": {"table": 1000},
}
BELOW = {"name": "below", "dummy": {}, "hwAddr": MACS[0]}


@pytest.fixture(scope="module")
def box(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmBox]:
    made = VmBox(Kernel(), tmp_path_factory.mktemp("made") / "box.yaml", machine)
    yield made
    made.empty()


def test_each_kind_and_option_is_tried() -> None:
    assert {kind: {option.name for option in each.options} for kind, each in KINDS.items()} == {
        kind: set(each) for kind, each in OTHERS.items()
    }


def told(option: Option, value: Any) -> Any:
    """Return how `ip` shows a value."""
    return value * option.unit if isinstance(value, int) and not isinstance(value, bool) else value


@pytest.mark.parametrize("kind", KINDS)
def test_each_option_is_what_ip_reads(box: VmBox, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = NEEDED.get(kind, {})
    known = {option.name: option for option in KINDS[kind].options}
    # Without any option that it can be without, and with another value of each.
    for own in (needed, needed | OTHERS[kind]):
        nics = [{"name": "made", kind: own}, BELOW]
        box.apply("--allow-delete", "all", interfaces=nics)
        assert box.diff(interfaces=nics) == []
        found = box.links()["made"]
        assert (found["kind"], found["up"], found["link"]) == (kind, True, own.get("link"))
        for each in known.values():
            if each.only_with and own.get("mode") != each.only_with:
                continue
            value = own.get(each.name, each.default)
            read = found["options"][each.words]
            read = {"802.1Q": "802.1q"}.get(read, read) if isinstance(read, str) else read
            assert (each.name, read) == (each.name, told(each, value)), found
    capsys.readouterr()
    assert main(["show", "-o", "json", str(box.file)]) == 0
    (shown,) = [each for each in json.loads(capsys.readouterr().out)["interfaces"] if each["name"] == "made"]
    assert shown == {"name": "made", kind: own}


# A port of each master, what lies on a bond and on a dummy, and routes in the table of the VRF.
NICS: list[dict[str, Any]] = [
    {"name": "over", "vlan": {"link": "bond1", "id": 7}, "addresses": ["10.7.0.2/24", "fd07::2/64"]},
    {"name": "bond1", "bond": {"mode": "active-backup"}, "mtu": 1400},
    {"name": "one", "dummy": {}, "hwAddr": MACS[1], "master": "bond1"},
    {"name": "two", "dummy": {}, "master": "bond1"},
    {"name": "routed", "dummy": {}, "master": "red", "addresses": ["10.60.0.2/24", "fd60::2/64"]},
    {"name": "red", "vrf": {"table": 1000}, "addresses": ["10.61.0.1/32"]},
    {"name": "idle", "dummy": {}, "master": "red", "state": "down", "addresses": ["10.62.0.2/24"]},
    {"name": "br1", "bridge": {"vlanFiltering": True}, "addresses": ["10.9.0.1/24"]},
    {"name": "port", "dummy": {}, "master": "br1"},
    {"name": "mv1", "macvlan": {"link": "base"}, "addresses": ["10.8.0.2/24"]},
    {"name": "base", "dummy": {}},
    {"name": "tagged", "vlan": {"link": "base", "id": 5}},
]
ROUTES = [
    {"dest": "10.70.0.0/16", "gateway": "10.7.0.1", "device": "over"},
    {"dest": "10.71.0.0/16", "gateway": "10.60.0.1", "device": "routed", "table": 1000},
    {"dest": "fd71::/64", "gateway": "fd60::1", "device": "routed", "table": 1000},
]
# What somebody does, and how many operations repair it. What the kernel takes along is restored by the same apply.
ATTACKS = {
    "link set port nomaster": 1,
    "link set one nomaster": 2,
    "link set routed nomaster": 6,
    "link set routed master br1": 6,
    "link set idle nomaster": 3,
    "link set idle up; route del local 10.62.0.2 table 1000": 2,
    "link set two down": 1,
    "link set base down": 2,
    "link set bond1 mtu 1300": 1,
    "link set bond1 type bond miimon 250": 1,
    "link set br1 type bridge vlan_filtering 0": 1,
    "link set mv1 type macvlan mode private": 1,
    f"link set one address {MACS[9]}": 0,
    "link set routed up": 0,
    "link del tagged": 2,
    "link del mv1": 3,
    "link del base": 7,
    "link del bond1": 11,
    "link del red": 12,
    "link del br1": 4,
    "link del port": 3,
    "link set tagged down; link set tagged name other": 2,
    "link set base down; link set base name other": 3,
    "address flush dev routed": 4,
    "link add link base name spare type vlan id 9": 0,
}


def test_whatever_is_done_to_them_is_repaired(box: VmBox, repeats: Callable[[int], int]) -> None:
    box.apply("--allow-delete", "all", interfaces=NICS, routes=ROUTES)
    assert box.diff(interfaces=NICS, routes=ROUTES) == []
    calm = state_of(box)
    assert {name: each["master"] for name, each in calm["links"].items() if each["master"]} == {
        "one": "bond1",
        "two": "bond1",
        "routed": "red",
        "idle": "red",
        "port": "br1",
    }
    wrong = {}
    # Each takes a second of a processor: `make soak` tries all of them.
    for attack, count in list(ATTACKS.items())[:: max(1, len(ATTACKS) // repeats(28))]:
        box.ip("-batch", "-", stdin=attack.replace("; ", "\n"))
        planned = box.diff(interfaces=NICS, routes=ROUTES)
        if planned:
            box.apply("--allow-delete", "all", interfaces=NICS, routes=ROUTES)
        left = box.diff(interfaces=NICS, routes=ROUTES)
        for foreign in box.state()["links"].keys() - calm["links"].keys():
            box.ip("link", "del", foreign)
        if len(planned) != count or left or state_of(box) != calm:
            wrong[attack] = planned, left
    assert [f"{attack}: {found}" for attack, found in wrong.items()] == []


@settings(
    max_examples=examples(8),
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(pair=st.tuples(*[sandboxes([], VmAddress(name="replaced"), kinds=OPTIONS)] * 2))
def test_b_after_a_is_b_from_nothing(box: VmBox, pair: tuple[Sandbox, Sandbox]) -> None:
    first, second = (_sections(each) for each in pair)
    nothing: dict[str, Any] = {name: [] for name in first}
    states = []
    for before in (nothing, first):
        box.apply("--allow-delete", "all", **nothing)
        box.apply("--allow-delete", "all", **before)
        box.apply("--allow-delete", "all", **second)
        assert box.diff(**second) == []
        states.append(state_of(box))
    assert states[0] == states[1]


def _sections(sandbox: Sandbox) -> dict[str, Any]:
    """Return the sections of a manifest, each of which is there."""
    names = ("interfaces", "neighbours", "routes", "rules")
    return {name: [] for name in names} | {name: value for name, value in write(sandbox).items() if name in names}


# What another program makes: each kind, ports of three masters, and a VLAN on a port of none.
THEIRS = f"""
link add base type dummy
link set base address {MACS[2]} up
link add base.7 link base up type vlan id 7 protocol 802.1ad
link add mv1 link base up type macvlan mode vepa
link add bond1 type bond mode 802.3ad miimon 200 lacp_rate fast
link add one type dummy
link set one master bond1
link set bond1 up
link add red up type vrf table 1000
link add two up type dummy
link set two master red
link add br1 up type bridge stp_state 1
link add three up type dummy
link set three master br1
address add 10.7.0.2/24 dev base.7
address add 10.8.0.2/24 dev two
route add 10.70.0.0/16 via 10.7.0.1
route add 10.71.0.0/16 via 10.8.0.1 table 1000
"""


def numbers(box: VmBox) -> dict[str, tuple[int, str]]:
    """Return the index and the MAC address of each link, which another one would not have."""
    (listed,) = box._listed("link")
    return {each["ifname"]: (each["ifindex"], each["address"]) for each in listed}


def test_what_others_made_is_adopted(box: VmBox, capsys: pytest.CaptureFixture[str]) -> None:
    box.empty()
    box.ip("-batch", "-", stdin=THEIRS)
    before, listed, routes = box.links(), numbers(box), box.routes_and_rules()[0]
    capsys.readouterr()
    (manifest,) = load([box.write()])
    assert live.run(manifest.sandbox) == 0
    said = capsys.readouterr()
    assert said.err == ""
    box.file.write_text(said.out)
    assert main(["apply", "--adopt", str(box.file)]) == 0
    assert main(["diff", str(box.file)]) == 0
    assert box.links() == {
        name: each | {"altnames": [made_altname(name)] * bool(each["kind"])} for name, each in before.items()
    }
    assert numbers(box) == listed
    assert [each | {"protocol": ""} for each in box.routes_and_rules()[0]] == [
        each | {"protocol": ""} for each in routes
    ]
    box.apply("--allow-delete", "all", interfaces=[], routes=[])
    assert set(box.links()) == {"lo"}


def test_what_the_kernel_cannot_change_is_made_again_and_an_undo_leads_back(
    box: VmBox, capsys: pytest.CaptureFixture[str]
) -> None:
    first = [BELOW, {"name": "v", "vlan": {"link": "below", "id": 7}, "addresses": ["10.7.0.2/24"]}]
    above = {"name": "w", "vlan": {"link": "v", "id": 8}, "addresses": ["10.8.0.2/24", "fd08::2/64"]}
    routes = [{"dest": "10.70.0.0/16", "gateway": "10.8.0.1", "device": "w"}]
    box.apply("--allow-delete", "all", interfaces=[*first, above], routes=routes)
    second = [BELOW, {"name": "v", "vlan": {"link": "below", "id": 9}, "addresses": ["10.7.0.2/24"]}, above]
    before = box.state()
    # The kernel has no such source address.
    refused = {"dest": "10.71.0.0/16", "gateway": "10.8.0.1", "device": "w", "source": "198.51.100.77"}
    file = box.write(interfaces=second, routes=[*routes, refused])
    assert main(["apply", "--all-or-nothing", file]) == 2
    assert "box is as it was before" in errors(capsys)
    assert box.state() == before
    (first_line, *others) = box.diff(interfaces=second, routes=routes)
    assert (first_line, others[0]) == ("ip link del dev w", "ip link del dev v")
    assert main(["diff", box.write(interfaces=second, routes=routes)]) == 1
    printed = capsys.readouterr().out
    assert "# was id 7, which the kernel cannot change; its addresses and routes are added again" in printed
    assert "# it goes with the link it lies on, and is made again with its addresses and routes" in printed
    box.apply("--allow-delete", "all", interfaces=second, routes=routes)
    assert box.diff(interfaces=second, routes=routes) == []
    assert box.links()["v"]["options"]["id"] == 9


def _following(mtu: int) -> list[dict[str, Any]]:
    """Return links whose MTU follows that of others: of the link below, of a port, and of what lies on a bond."""
    return [
        {"name": "base", "dummy": {}, "mtu": mtu},
        {"name": "v", "vlan": {"link": "base", "id": 7}},
        {"name": "w", "vlan": {"link": "v", "id": 8}},
        {"name": "mv", "macvlan": {"link": "base"}},
        {"name": "port", "dummy": {}, "mtu": mtu, "master": "br"},
        {"name": "br", "bridge": {}},
        {"name": "slave", "dummy": {}, "master": "bo"},
        {"name": "bo", "bond": {}, "mtu": mtu},
        {"name": "x", "vlan": {"link": "bo", "id": 7}},
    ]


def test_a_route_keeps_its_mtu_where_that_of_its_link_follows_another(box: VmBox) -> None:
    following = ("v", "w", "mv", "br", "x")
    routes = [{"dest": f"fd7{n}::/64", "device": name, "mtu": 1450} for n, name in enumerate(following)]
    for mtu in (1500, 1400, 1500, 1280):
        box.apply("--allow-delete", "all", interfaces=_following(mtu), routes=routes)
        found = box.links()
        assert {found[name]["mtu"] for name in ("base", "br", "bo")} == {mtu}
    assert {found[name]["mtu"] for name in following} == {1280}


def test_a_kind_that_the_kernel_lacks_is_named_before_anything_changes(
    box: VmBox, capsys: pytest.CaptureFixture[str]
) -> None:
    box.apply("--allow-delete", "all", interfaces=[BELOW])
    machine = box._machine
    modprobe = machine.output("cat", "/proc/sys/kernel/modprobe").strip()
    machine.output("sh", "-c", "echo /bin/false >/proc/sys/kernel/modprobe; busybox rmmod macvlan")
    try:
        made = [BELOW, {"name": "mv", "macvlan": {"link": "below"}}, {"name": "other", "dummy": {}}]
        file = box.write(interfaces=made)
        words = "the kernel of the sandbox has no links of kind macvlan; load or install its module: modprobe macvlan"
        assert main(["diff", file]) == 2
        assert f"interfaces[1].macvlan: interface mv: {words}" in errors(capsys)
        assert main(["apply", file]) == 2
        assert words in errors(capsys)
        assert set(box.links()) == {"lo", "below"}
    finally:
        machine.output("sh", "-c", f"echo {modprobe} >/proc/sys/kernel/modprobe")
    assert main(["apply", file]) == 0
    assert set(box.links()) == {"lo", "below", "other", "mv"}
