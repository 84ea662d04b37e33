"""Checks of facts that no test can have of a host that others use: limits, devices that it lacks, a hung watcher."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import pytest

from reconciler.doctor import host as reader
from reconciler.doctor.examination import judge
from reconciler.doctor.facts import (
    Address,
    Box,
    Broken,
    Facts,
    Failure,
    Host,
    Link,
    Neighbour,
    NeighbourState,
    Network,
    Port,
    Running,
    Trouble,
    Unknown,
    Usage,
    Watcher,
)
from reconciler.manifest.load import Manifest
from reconciler.model.interface import Interface
from reconciler.model.ipvs import Ipvs, Service
from reconciler.model.lookup import Lookup
from reconciler.model.route import NextHop, Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import LibvirtAddress, NetnsAddress, Observed, Sandbox, VmAddress
from reconciler.values import replace

WELL = Facts(host=Host(root=True, release=(6, 1)), watcher=Watcher(running=Running.YES, now=10_000.0))
LO = Link(1, "lo", hw_addr="00:00:00:00:00:00", mtu=65536)
LOCAL = Address("lo", "127.0.0.1/8")
NIC = Interface(name="eth0", device="tap-m", hw_addr="02:00:00:00:00:01", mtu=1500)
ETH0 = Link(2, "eth0", hw_addr="02:00:00:00:00:01")
TAP = Link(7, "tap-m", kind="tun", hw_addr="02:00:00:00:00:77", master=9, port=Port())
BRIDGE = Link(9, "br0", kind="bridge", hw_addr="02:00:00:00:00:99")
OTHER = Link(8, "eno1", hw_addr="02:00:00:00:00:88", master=9, port=Port(), physical=True)
TOLD = {
    "sandbox": "m",
    "file": "m.yaml",
    "detail": "",
    "fights": [],
    "since": 9_000.0,
    "looked": 9_990.0,
    "fresh": True,
}


def with_host(**changes: Any) -> Facts:
    return replace(WELL, host=replace(WELL.host, **changes))


def with_watcher(**changes: Any) -> Facts:
    return replace(WELL, watcher=replace(WELL.watcher, **changes))


def machine(host: tuple[Link, ...] = (TAP, BRIDGE, OTHER), eth0: Link = ETH0, **changes: Any) -> Facts:
    """Give the facts of a machine that is well, with changes of its box."""
    sandbox = Sandbox(id="m", driver=VmAddress(name="m"), interfaces=(NIC,))
    box = Box(
        sandbox=sandbox, network=Network(links=(LO, eth0), addresses=(LOCAL,)), observed=Observed(sandbox=sandbox)
    )
    return replace(with_host(network=Network(links=(LO, *host), addresses=(LOCAL,))), boxes=(replace(box, **changes),))


def told(**changes: Any) -> Facts:
    return replace(
        machine(), watcher=replace(WELL.watcher, data={"sandboxes": [{**TOLD, "state": "converged"} | changes]})
    )


SERVICES = Sandbox(
    id="n", driver=NetnsAddress(name="n"), ipvs=Ipvs(services=(Service(protocol="tcp", address="192.0.2.1", port=80),))
)
MANY = tuple(Neighbour("eth0", f"192.0.2.{each}", "", NeighbourState.STALE) for each in range(95))
VLANS = (
    TAP._replace(port=Port(vlans=frozenset({5}), untagged=5)),
    BRIDGE._replace(vlan_filtering=True),
    OTHER._replace(port=Port(vlans=frozenset({1}), untagged=1)),
)
# A route whose gateway an address with `noprefixroute` does not reach.
BEYOND = Network(
    links=(LO, ETH0),
    addresses=(LOCAL, Address("eth0", "192.0.2.2/24")),
    routes=(Route(dest="203.0.113.0/24", nexthops=(NextHop(device="eth0", gateway="192.0.2.1"),)),),
)
FOUND = [
    (with_host(release=(5, 10)), "kernel-old"),
    (replace(machine(), host=replace(machine().host, qemu="there is no program")), "qemu-missing"),
    (replace(machine(), host=replace(machine().host, kvm="/dev/kvm: no")), "kvm-missing"),
    (replace(with_host(ipvs=False), boxes=(Box(sandbox=SERVICES),)), "ipvs-missing"),
    (with_host(space={"/run": (Usage(99, 100), Usage(1, 100))}), "room-left"),
    (with_host(space={"/run": (Usage(1, 100 << 20), Usage(100, 100))}), "room-left"),
    (with_host(instances=Usage(129, 128)), "inotify-low"),
    (with_host(watches=Usage(9, 8)), "inotify-low"),
    (with_host(descriptors=100), "descriptors-low"),
    (with_host(files=Usage(95, 100)), "files-full"),
    (with_host(processes=Usage(95, 100)), "processes-full"),
    (with_host(conntrack=Usage(95, 100)), "conntrack-full"),
    (
        with_host(network=Network(neighbours=MANY, settings={"net.ipv4.neigh.default.gc_thresh3": "100"})),
        "neighbours-full",
    ),
    (with_host(synchronised=False), "clock-unsynchronised"),
    (with_host(folder_mode=0o755), "folder-open"),
    (with_host(network=Network(links=(LO._replace(up=False),))), "host-loopback-down"),
    (with_watcher(running=Running.NO, enabled=True), "watcher-gone"),
    (with_watcher(running=Running.KILLED), "watcher-gone"),
    (with_watcher(running=Running.SILENT, words="it hangs"), "watcher-silent"),
    (with_watcher(data={"alarms": ["all manifests are gone"]}), "watcher-alarm"),
    (with_watcher(data={"problems": ["a.yaml:1:1: wrong"]}), "watcher-problem"),
    (with_watcher(data={"polling": "a limit"}), "watcher-polling"),
    (told(state="fighting", fights=["ip route add default"]), "watcher-state"),
    (told(state="failed", detail="no such device"), "watcher-state"),
    (told(fresh=False), "watcher-state"),
    (told(state="paused", since=1_000.0), "watcher-paused"),
    (with_watcher(data={"policy": {"file": "/p", "read": 100.0}}, policy_changed=200.0), "watcher-policy"),
    (with_watcher(started=100.0, installed=200.0), "watcher-old"),
    (with_watcher(descriptors={7: Usage(9, 100), 8: Usage(90, 100)}), "watcher-descriptors"),
    (replace(WELL, broken=(Broken("a.yaml:1:1: wrong", "a.yaml", readable=True),)), "manifest-wrong"),
    (replace(WELL, policy="line 1: wrong"), "policy-wrong"),
    (machine(failure=Failure(Trouble.BUSY, "another process"), network=None), "sandbox-busy"),
    (machine(failure=Failure(Trouble.FAILED, "broken"), network=None), "sandbox-failed"),
    (machine(failure=Failure(Trouble.NO_BINDING, "no binding"), network=None), "libvirt-binding"),
    (machine(failure=Failure(Trouble.NO_LIBVIRT, "no libvirtd"), network=None), "libvirt-missing"),
    (machine(failure=Failure(Trouble.NO_CHANNEL, "no channel"), network=None), "channel-missing"),
    (
        machine(
            sandbox=Sandbox(id="m", driver=LibvirtAddress(domain="m")),
            failure=Failure(Trouble.NO_CONTROLLER, "no bus"),
            network=None,
        ),
        "controller-missing",
    ),
    (machine(no_plan=Failure(Trouble.REFUSED, "too much")), "plan-impossible"),
    (machine(network=BEYOND), "gateway-off-link"),
    (machine(host=VLANS), "bridge-blocked"),
    (machine(host=(TAP._replace(port=Port(vlans=frozenset())), *VLANS[1:])), "bridge-blocked"),
    (
        machine(host=(TAP._replace(port=Port(isolated=True)), BRIDGE, OTHER._replace(port=Port(isolated=True)))),
        "bridge-blocked",
    ),
    (machine(host=(TAP._replace(held=True, carrier=False), BRIDGE, OTHER)), "no-carrier"),
    (machine(eth0=ETH0._replace(carrier=False)), "no-carrier"),
    (machine(eth0=ETH0._replace(qdisc="netem")), "queue-loses"),
    (machine(host=(TAP._replace(qdisc="tbf"), BRIDGE, OTHER)), "queue-limits"),
    (machine(host=(TAP._replace(xdp=True), BRIDGE, OTHER)), "xdp"),
    (machine(host=(TAP, BRIDGE, OTHER._replace(mtu=1400))), "mtu-smaller"),
    (machine(host=(TAP._replace(hw_addr=NIC.hw_addr), BRIDGE, OTHER)), "mac-twice"),
]


@pytest.mark.parametrize("facts", [WELL, machine(), told()], ids=["host", "machine", "watched"])
def test_what_is_well_has_neither_finding_nor_note(facts: Facts) -> None:
    report = judge(facts)
    assert (report.findings, report.notes, report.unknown) == ([], [], [])


@pytest.mark.parametrize(("facts", "name"), FOUND, ids=[f"{name}-{number}" for number, (_, name) in enumerate(FOUND)])
def test_a_fault_has_one_finding(facts: Facts, name: str) -> None:
    report = judge(facts)
    assert [each.check.name for each in (*report.findings, *report.notes)] == [name]
    (found,) = (*report.findings, *report.notes)
    # What is printed can be pasted: one line, and something to run.
    assert found.hit.command.strip()
    assert "\n" not in found.hit.command + found.hit.what


def test_a_defect_of_one_check_hides_nothing() -> None:
    # A watcher of another version, whose report lacks what a check needs.
    facts = replace(with_watcher(data={"sandboxes": [{"sandbox": "m"}]}), boxes=machine().boxes)
    facts = replace(facts, host=replace(machine().host, folder_mode=0o755))
    report = judge(facts)
    assert [each.check.name for each in report.findings] == ["folder-open"]
    assert [each.what for each in report.unknown] == ["the check watcher-state", "the check watcher-paused"]
    assert report.unknown[0].why.startswith("a defect of reconciler: KeyError")


def test_what_could_not_be_looked_at_is_unknown() -> None:
    facts = machine(failure=Failure(Trouble.HIDDEN, "needs root"), network=None, observed=None)
    facts = replace(
        facts, host=replace(facts.host, root=False), watcher=Watcher(running=Running.UNKNOWN, words="only root")
    )
    report = judge(facts)
    assert (report.findings, report.notes) == ([], [])
    assert report.unknown == [
        Unknown("host", "what only root can see", "this user is not root; run the same command as root"),
        Unknown("watcher", "whether a watcher runs, and what it says", "only root"),
        Unknown("m", "the inside of the sandbox", "needs root"),
    ]


def test_what_inotify_has_in_use_is_counted(root: None) -> None:
    libc = ctypes.CDLL(None)
    made = [libc.inotify_init() for _ in range(3)]
    try:
        libc.inotify_add_watch(made[0], os.fsencode("/"), 0x100)
        found = reader.read()
    finally:
        for each in made:
            os.close(each)
    assert found.instances
    assert found.watches
    assert found.instances.used >= 3
    assert found.watches.used >= 1


def test_the_address_of_a_gateway_has_the_length_or_the_peer_of_the_one_that_faces_it() -> None:
    own = (("192.0.2.2/24", None), ("192.0.2.2/32", "198.51.100.1"), ("2001:db8::2/64", "2001:db8::1"))
    network = Network(addresses=tuple(Address("eth0", each, peer=peer) for each, peer in own))
    gateways = ("192.0.2.1", "198.51.100.1", "2001:db8::1", "2001:db8::3", "203.0.113.1")
    assert [network.facing("eth0", each) for each in gateways] == [
        "192.0.2.1/24",
        "198.51.100.1 peer 192.0.2.2/32",
        "2001:db8::1 peer 2001:db8::2/64",
        "2001:db8::3/64",
        "203.0.113.1",
    ]


def routed(*routes: tuple[str, str], rules: tuple[Rule, ...] = ()) -> Lookup:
    listed = tuple(Route(dest=dest, nexthops=(NextHop(device=device),)) for dest, device in routes)
    main = Rule(family="ipv4", priority=32766, table=254)
    return Lookup(listed, (*rules, main))


def test_a_lookup_takes_the_longest_prefix_and_the_first_rule() -> None:
    lookup = routed(("0.0.0.0/0", "eth0"), ("10.0.0.0/8", "eth1"), ("10.1.0.0/16", "eth2"))
    taken = [lookup.route(each) for each in ("10.1.2.3", "10.2.0.1", "192.0.2.1", "2001:db8::1")]
    assert [each and each.devices for each in taken] == [{"eth2"}, {"eth1"}, {"eth0"}, None]
    refuses = Rule(family="ipv4", priority=5, from_="192.0.2.0/24", action="prohibit")
    lookup = routed(("0.0.0.0/0", "eth0"), rules=(refuses,))
    found = [lookup.route("10.0.0.1", source) for source in ("192.0.2.7", "198.51.100.1", None)]
    assert [each and each.type for each in found] == ["prohibit", "unicast", "unicast"]
    # A rule that suppresses default routes goes on to the next one.
    only_more = Rule(family="ipv4", priority=5, table=254, suppress_prefixlength=0)
    assert routed(("0.0.0.0/0", "eth0"), rules=(only_more,)).route("10.0.0.1")


def test_a_sample_is_in_no_part_of_its_network() -> None:
    lookup = routed(("0.0.0.0/0", "a"), ("203.0.113.0/24", "b"), ("10.0.0.0/30", "c"), ("10.0.0.0/31", "d"))
    assert lookup.sample("0.0.0.0/0") == "198.51.100.113"
    assert lookup.sample("10.0.0.0/30") == "10.0.0.2"
    assert lookup.sample("10.0.0.0/31") == "10.0.0.1"
    assert lookup.sample("2001:db8::7/128") == "2001:db8::7"
    whole = routed(("10.0.0.0/8", "a"), ("10.0.0.0/9", "b"), ("10.128.0.0/9", "c"))
    assert whole.sample("10.0.0.0/8") is None


def test_a_manifest_is_only_a_name_here() -> None:
    # Without a plan, nothing is said of drift.
    manifest = Manifest("m.yaml", "", 1, machine().boxes[0].sandbox)
    assert judge(machine(manifest=manifest, drift=())).findings == []
    (found,) = judge(machine(manifest=manifest, drift=("ip link set eth0 up",))).findings
    assert found.check.name == "drift"
    assert found.hit.command == "reconciler diff m.yaml; reconciler apply m.yaml"
