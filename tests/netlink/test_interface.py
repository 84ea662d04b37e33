from __future__ import annotations

import ipaddress
import json
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from reconciler.errors import ProtocolError
from reconciler.model.attribute import ATTRIBUTES, Attributes
from reconciler.model.interface import Address, LinkState, Origin
from reconciler.netlink import interface, message
from reconciler.netlink.channel import SocketChannel
from reconciler.netlink.engine import Engine
from reconciler.netlink.execute import Request, execute, send
from reconciler.netlink.interface import Link, LinkAddress
from reconciler.netlink.message import Message
from reconciler.netlink.sections import is_gone
from reconciler.operations import Operation
from reconciler.operations.address import AddAddress, DeleteAddress, ReplaceAddress
from reconciler.operations.interface import RenameInterface, SetLink
from reconciler.operations.network import NetworkOperation
from reconciler.operations.outcome import Outcome, Status
from reconciler.values import replace
from tests.conftest import Kernel, ip
from tests.netlink.conftest import OpenEngine

# linux/if.h and linux/if_addr.h.
NAMED: Attributes = (("alias", "x"), ("txQueueLen", 77), ("gsoMaxSize", 30000), ("arp", False), ("allmulticast", True))
UP, NOARP, ALLMULTI, MULTICAST, LOWER_UP = 0x1, 0x80, 0x200, 0x1000, 0x10000
# net/if_inet6.h.
READY = 0x80000000
ARPHRD_ETHER = 1
NODAD, DADFAILED, TENTATIVE, PERMANENT = 0x02, 0x08, 0x40, 0x80


def show(*words: str, namespace: str | None = None) -> list[dict[str, Any]]:
    """What `ip -j` prints."""
    found: list[dict[str, Any]] = json.loads(ip("-j", "-d", *words, namespace=namespace))
    return found


def dump(engine: Engine, request: Callable[[int], bytes]) -> list[Message]:
    sequence = engine.next_sequence()
    return [m for m in engine.channel.exchange(request(sequence), sequence) if m.type != message.DONE]


def read_with_pyroute2(kind: Any, found: Message) -> tuple[Any, dict[str, Any]]:
    told = kind(message.pack(found.type, found.flags, found.sequence, found.payload))
    told.decode()
    return told, dict(told["attrs"])


@pytest.fixture
def network(kernel: Kernel) -> str:
    """A namespace with links of several kinds, of which `v0` and `v1` are a pair with a carrier."""
    name = kernel.namespace()

    def inside(*words: str) -> None:
        ip("link", *words, namespace=name)

    inside("add", "v0", "numtxqueues", "1", "type", "veth", "peer", "name", "v1", "numtxqueues", "1")
    inside("add", "w0", "numtxqueues", "4", "type", "veth", "peer", "name", "w1")
    inside("add", "bridge0", "type", "bridge")
    inside("add", "macvlan0", "link", "v0", "type", "macvlan")
    inside("add", "ifb7", "type", "ifb")
    inside("set", "v1", "alias", 'of "ours", ünï')
    inside("property", "add", "dev", "v1", "altname", "another-name-of-v1")
    inside("set", "v0", "mtu", "9000", "up")
    for up in ("lo", "v1", "w0"):
        inside("set", up, "up")
    for tap in (kernel.tap(), kernel.tap("multi_queue")):
        ip("link", "set", tap, "netns", name)
    # The kernel notices a carrier a little later.
    wait_until(lambda: {("v0", "UP"), ("v1", "UP"), ("w0", "LOWERLAYERDOWN")} <= operational_states(name))
    return name


def operational_states(namespace: str) -> set[tuple[str, str]]:
    return {(link["ifname"], link["operstate"]) for link in show("link", namespace=namespace)}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_links_are_what_ip_says(network: str, open_engine: OpenEngine) -> None:
    expected = [
        Link(
            index=link["ifindex"],
            name=link["ifname"],
            hw_addr=link["address"] if link["link_type"] == "ether" else "",
            mtu=link["mtu"],
            up="UP" in link["flags"],
            carrier="LOWER_UP" in link["flags"],
            alias=link.get("ifalias", ""),
            altnames=tuple(sorted(link.get("altnames", ()))),
            attributes=(
                ("alias", link.get("ifalias", "")),
                ("txQueueLen", link["txqlen"]),
                ("gsoMaxSize", link["gso_max_size"]),
                ("arp", "NOARP" not in link["flags"]),
                ("allmulticast", "ALLMULTI" in link["flags"]),
            ),
            kind=link.get("linkinfo", {}).get("info_kind", ""),
            queues=link["num_tx_queues"],
            ethernet=link["link_type"] == "ether",
            mtus=(link["min_mtu"], link["max_mtu"]),
            state=LinkState(
                ipv6=any(address["scope"] == "link" for address in link["addr_info"]),
                generation="eui64" if link["link_type"] == "ether" else "other",
                arp="NOARP" not in link["flags"],
                multicast="MULTICAST" in link["flags"],
                broadcast=link["broadcast"],
            ),
            link=number,
        )
        for link, number in lying_on(network)
    ]
    # What the options of kinds are: tests/made.
    found = [replace(link, data=b"") for link in open_engine(network).links()]
    assert found == expected
    told = [(link.name[-2:], link.kind, link.queues, link.up, link.carrier, link.mtu, link.alias) for link in found]
    assert {
        ("lo", "", 1, True, True, 65536, ""),
        ("v0", "veth", 1, True, True, 9000, ""),
        ("v1", "veth", 1, True, True, 1500, 'of "ours", ünï'),
        ("w0", "veth", 4, True, False, 1500, ""),
        ("t0", "tun", 1, False, False, 1500, ""),
        ("t1", "tun", 256, False, False, 1500, ""),
    } <= set(told)


def lying_on(namespace: str) -> list[tuple[dict[str, Any], int]]:
    """Return links, and the index of the one that each lies on, or of its peer; 0 for none."""
    listed = show("address", namespace=namespace)
    numbers = {link["ifname"]: link["ifindex"] for link in listed}
    return [(link, link.get("link_index", numbers.get(link.get("link"), 0))) for link in listed]


def pyroute2_state(told: Any, values: dict[str, Any]) -> LinkState:
    ipv6 = dict(dict(values["IFLA_AF_SPEC"]["attrs"])["AF_INET6"]["attrs"])
    return LinkState(
        ipv6=bool(ipv6["IFLA_INET6_FLAGS"] & READY) and bool(told["flags"] & UP) and told["ifi_type"] == ARPHRD_ETHER,
        generation="eui64" if told["ifi_type"] == ARPHRD_ETHER else "other",
        arp=not told["flags"] & NOARP,
        multicast=bool(told["flags"] & MULTICAST),
        broadcast=values["IFLA_BROADCAST"],
    )


def test_links_are_what_pyroute2_says(network: str, open_engine: OpenEngine) -> None:
    found = dump(open_engine(network), interface.dump_links_request)
    expected = []
    for each in found:
        told, values = read_with_pyroute2(ifinfmsg, each)
        expected.append(
            Link(
                index=told["index"],
                name=values["IFLA_IFNAME"],
                hw_addr=values["IFLA_ADDRESS"] if told["ifi_type"] == ARPHRD_ETHER else "",
                mtu=values["IFLA_MTU"],
                up=bool(told["flags"] & UP),
                carrier=bool(told["flags"] & LOWER_UP),
                alias=values.get("IFLA_IFALIAS", ""),
                altnames=("another-name-of-v1",) if values["IFLA_IFNAME"] == "v1" else (),
                attributes=(
                    ("alias", values.get("IFLA_IFALIAS", "")),
                    ("txQueueLen", values["IFLA_TXQLEN"]),
                    ("gsoMaxSize", values["IFLA_GSO_MAX_SIZE"]),
                    ("arp", not told["flags"] & NOARP),
                    ("allmulticast", bool(told["flags"] & ALLMULTI)),
                ),
                kind=dict(values["IFLA_LINKINFO"]["attrs"])["IFLA_INFO_KIND"] if "IFLA_LINKINFO" in values else "",
                queues=values["IFLA_NUM_TX_QUEUES"],
                ethernet=told["ifi_type"] == ARPHRD_ETHER,
                mtus=(values["IFLA_MIN_MTU"], values["IFLA_MAX_MTU"]),
                state=pyroute2_state(told, values),
                link=values.get("IFLA_LINK", 0),
            )
        )
    assert {link.kind for link in expected} == {"", "veth", "bridge", "macvlan", "ifb", "tun"}
    assert [replace(interface.decode_link(each.payload), data=b"") for each in found] == expected


def test_a_link_is_found_by_its_name(network: str, open_engine: OpenEngine) -> None:
    engine = open_engine(network)
    assert engine.link("w0") == next(link for link in engine.links() if link.name == "w0")
    assert engine.link("nobody") is None


def add_addresses(namespace: str) -> None:
    for words in (
        "10.0.0.1/24 dev v0",
        "10.0.0.2/24 dev v0",
        "10.0.1.1 peer 10.0.1.2/32 dev v0",
        "10.0.2.1/24 dev v0 valid_lft 1000 preferred_lft 500",
        "fd00::1/64 dev v0 nodad",
        "fd00::3 peer fd00::4/128 dev v0 nodad",
        "fd00::5/64 dev v0 nodad valid_lft 1000 preferred_lft 500",
        "fe80::99/64 dev v0 nodad",
        "fd00:1::1/64 dev w0",
        "fd00:1::2/64 dev w0 nodad",
    ):
        ip("address", "add", *words.split(), namespace=namespace)


def test_addresses_are_what_ip_says(network: str, open_engine: OpenEngine) -> None:
    add_addresses(network)
    found = open_engine(network).addresses()
    expected = [
        LinkAddress(
            index=link["ifindex"],
            address=f"{address['local']}/{address['prefixlen']}",
            nodad=address.get("nodad", False),
            tentative=address.get("tentative", False),
            dad_failed=address.get("dadfailed", False),
            permanent=not address.get("dynamic", False),
            protocol=3 if address["scope"] == "link" and address["local"] != "fe80::99" else 0,
            peer=address.get("address"),
            label=address.get("label", ""),
            opaque=("dynamic",) if address.get("dynamic") else (),
        )
        for link in show("address", namespace=network)
        for address in link["addr_info"]
    ]
    lo = next(link["ifindex"] for link in show("link", namespace=network) if link["ifname"] == "lo")
    assert sorted((each for each in found if each.index != lo), key=str) == sorted(
        (each for each in expected if each.index != lo), key=str
    )


def test_each_flag_of_an_address_is_told(network: str, open_engine: OpenEngine) -> None:
    add_addresses(network)
    engine = open_engine(network)
    indexes = {link.name: link.index for link in engine.links()}

    def address(device: str, text: str, **flags: Any) -> LinkAddress:
        unset: dict[str, Any] = dict.fromkeys(("nodad", "tentative", "dad_failed"), False)
        unset |= {"permanent": True, "label": "" if ":" in text else device}
        return LinkAddress(index=indexes[device], address=text, **{**unset, **flags})

    given = [each for each in engine.addresses() if not each.from_kernel and each.index != indexes["lo"]]
    assert sorted(given, key=str) == sorted(
        [
            address("v0", "10.0.0.1/24"),
            address("v0", "10.0.0.2/24"),
            address("v0", "10.0.1.1/32", peer="10.0.1.2"),
            address("v0", "10.0.2.1/24", permanent=False, opaque=("dynamic",)),
            address("v0", "fd00::1/64", nodad=True),
            address("v0", "fd00::3/128", nodad=True, peer="fd00::4"),
            address("v0", "fd00::5/64", nodad=True, permanent=False, opaque=("dynamic",)),
            address("v0", "fe80::99/64", nodad=True),
            # Without a carrier, duplicate address detection waits.
            address("w0", "fd00:1::1/64", tentative=True),
            address("w0", "fd00:1::2/64", nodad=True),
        ],
        key=str,
    )


def test_the_link_local_address_that_the_kernel_gives_is_the_kernels(kernel: Kernel, open_engine: OpenEngine) -> None:
    name = kernel.namespace()
    ip("link", "add", "v0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "v1", namespace=name)
    for link in ("v0", "v1"):
        ip("link", "set", link, "up", namespace=name)
    engine = open_engine(name)
    index = {link.name: link.index for link in engine.links()}["v0"]
    expected = LinkAddress(
        index=index,
        address="fe80::ff:fe00:1/64",
        nodad=False,
        tentative=False,
        dad_failed=False,
        permanent=True,
        protocol=3,
    )
    # The kernel gives it when it has taken notice of the carrier.
    wait_until(lambda: any(each.index == index for each in engine.addresses()))
    assert [replace(each, tentative=False) for each in engine.addresses() if each.index == index] == [expected]


def test_addresses_are_what_pyroute2_says(network: str, open_engine: OpenEngine) -> None:
    add_addresses(network)
    found = dump(open_engine(network), interface.dump_addresses_request)
    expected = []
    for each in found:
        told, values = read_with_pyroute2(ifaddrmsg, each)
        local = ipaddress.ip_address(values.get("IFA_LOCAL", values["IFA_ADDRESS"]))
        flags = values["IFA_FLAGS"]
        expected.append(
            {
                "index": told["index"],
                "address": f"{local}/{told['prefixlen']}",
                "nodad": bool(flags & NODAD),
                "tentative": bool(flags & TENTATIVE),
                "dad_failed": bool(flags & DADFAILED),
                "permanent": bool(flags & PERMANENT),
            }
        )
    decoded = [interface.decode_address(each.payload) for each in found]
    assert [
        {name: getattr(each, name) for name in ("index", "address", "nodad", "tentative", "dad_failed", "permanent")}
        for each in decoded
    ] == expected


def test_a_duplicate_address_is_told(kernel: Kernel, open_engine: OpenEngine) -> None:
    name = kernel.namespace()
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1", namespace=name)
    for link in ("v0", "v1"):
        for setting in ("router_solicitation_delay", "accept_dad"):
            value = "1" if setting == "accept_dad" else "0"
            words = ["ip", "netns", "exec", name, "sysctl", "-qw", f"net.ipv6.conf.{link}.{setting}={value}"]
            subprocess.run(words, check=True)
        ip("link", "set", link, "up", namespace=name)
    ip("address", "add", "fd00::1/64", "dev", "v0", "nodad", namespace=name)
    ip("address", "add", "fd00::1/64", "dev", "v1", namespace=name)
    engine = open_engine(name)
    indexes = {link.name: link.index for link in engine.links()}
    found: set[tuple[int, bool]] = set()

    def failed() -> bool:
        found.clear()
        found.update((a.index, a.dad_failed) for a in engine.addresses() if a.address == "fd00::1/64")
        return (indexes["v1"], True) in found

    wait_until(failed)
    assert found == {(indexes["v0"], False), (indexes["v1"], True)}


def test_malformed_links_are_protocol_errors() -> None:
    head = struct.pack("=BxHiII", 0, 1, 2, 0x1043, 0)
    for payload, expected in (
        (head[:-1], "link message of 15 bytes"),
        (head + message.attribute(4, bytes(3)), "link attribute of 3 bytes; 4 were expected"),
        (head + message.attribute(13, bytes(2)), "txqueuelen of 2 bytes; 4 were expected"),
        (head + message.attribute(31, bytes(8)), "link attribute of 8 bytes; 4 were expected"),
        (head + message.attribute(18, struct.pack("=HH", 9, 1)), "netlink attribute claims 9 bytes, but 4 are left"),
    ):
        with pytest.raises(ProtocolError) as caught:
            interface.decode_link(payload)
        assert str(caught.value) == expected


def test_a_link_of_which_nothing_is_said_has_only_an_index() -> None:
    found = interface.decode_link(struct.pack("=BxHiII", 0, 1, 7, 0, 0))
    assert found == Link(
        7,
        "",
        hw_addr="",
        mtu=0,
        up=False,
        carrier=False,
        alias="",
        kind="",
        queues=0,
        state=LinkState(multicast=False),
        attributes=tuple((each.field, each.usual) for each in ATTRIBUTES),
    )


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (b"eth0\0", "eth0"),
        ("ünï".encode(), "ünï"),
        (b"a\x1b[2Jb\n", "a\x1b[2Jb\n"),
        (b"caf\xe9", "caf\udce9"),
    ],
)
def test_a_text_is_read_as_it_is_and_can_be_written_back(given: bytes, shown: str) -> None:
    head = struct.pack("=BxHiII", 0, 1, 7, 0, 0)
    link = interface.decode_link(head + message.attribute(3, given) + message.attribute(20, given))
    assert (link.name, link.alias) == (shown, shown)


def address_head(family: int, length: int) -> bytes:
    return struct.pack("=BBBBI", family, length, PERMANENT, 0, 2)


def test_malformed_addresses_are_protocol_errors() -> None:
    for payload, expected in (
        (bytes(7), "address message of 7 bytes"),
        (address_head(socket.AF_INET, 24), "address of 0 bytes with prefix length 24"),
        (
            address_head(socket.AF_INET, 24) + message.attribute(2, bytes(16)),
            "address of 16 bytes with prefix length 24",
        ),
        (address_head(socket.AF_INET, 33) + message.attribute(2, bytes(4)), "address of 4 bytes with prefix length 33"),
        (
            address_head(socket.AF_INET6, 129) + message.attribute(1, bytes(16)),
            "address of 16 bytes with prefix length 129",
        ),
        (
            address_head(socket.AF_INET, 8) + message.attribute(2, bytes(4)) + message.attribute(8, bytes(1)),
            "link attribute of 1 bytes; 4 were expected",
        ),
    ):
        with pytest.raises(ProtocolError) as caught:
            interface.decode_address(payload)
        assert str(caught.value) == expected


def test_an_address_of_another_family_is_left_out() -> None:
    assert interface.decode_address(address_head(28, 20)) is None


def test_flags_of_old_kernels_stand_in_the_header() -> None:
    payload = struct.pack("=BBBBI", socket.AF_INET6, 64, NODAD, 0, 7) + message.attribute(1, bytes(15) + b"\1")
    assert interface.decode_address(payload) == LinkAddress(
        index=7, address="::1/64", nodad=True, tentative=False, dad_failed=False, permanent=False, opaque=("dynamic",)
    )


def done(*operations: Operation) -> list[list[Outcome]]:
    return [[Outcome(operation, Status.DONE) for operation in operations]]


@pytest.fixture
def pair(kernel: Kernel) -> str:
    """A namespace with a pair of links that are down."""
    name = kernel.namespace()
    ip("link", "add", "v0", "mtu", "1400", "address", "02:00:00:00:00:01", "type", "veth", "peer", "v1", namespace=name)
    return name


def indexes(engine: Engine) -> dict[str, int]:
    return {link.name: link.index for link in engine.links()}


@pytest.mark.parametrize(
    ("operation", "changed"),
    [
        (SetLink(name="v0", hw_addr="02:00:00:00:00:99"), {"hw_addr": "02:00:00:00:00:99"}),
        (SetLink(name="v0", mtu=9000), {"mtu": 9000}),
        (SetLink(name="v0", up=True), {"up": True}),
        (
            SetLink(name="v0", attributes=NAMED),
            {"attributes": NAMED, "alias": "x", "state": LinkState(arp=False, broadcast="ff:ff:ff:ff:ff:ff")},
        ),
        (SetLink(name="v0", up=False), {"up": False}),
        (
            SetLink(name="v0", hw_addr="02:00:00:00:00:99", mtu=68, up=True),
            {"hw_addr": "02:00:00:00:00:99", "mtu": 68, "up": True},
        ),
        (RenameInterface(name="v0", new_name="fifteen-letters"), {"name": "fifteen-letters"}),
    ],
    ids=["hw_addr", "mtu", "up", "attributes", "down", "all in one", "name"],
)
def test_a_link_is_changed_in_what_is_said_and_nothing_else(
    pair: str, open_engine: OpenEngine, operation: SetLink | RenameInterface, changed: dict[str, Any]
) -> None:
    engine = open_engine(pair)
    if operation == SetLink(name="v0", up=False):
        ip("link", "set", "v0", "up", namespace=pair)
    before = engine.link("v0")
    assert before is not None
    assert list(execute(engine, [operation], indexes(engine))) == done(operation)
    assert engine.link(changed.get("name", "v0")) == replace(before, **changed)


def test_names_go_on_to_later_operations(pair: str, open_engine: OpenEngine) -> None:
    engine = open_engine(pair)
    operations: list[NetworkOperation] = [
        RenameInterface(name="v0", new_name="x"),
        RenameInterface(name="v1", new_name="v0"),
        RenameInterface(name="x", new_name="v1"),
        SetLink(name="v1", mtu=1300),
    ]
    known = indexes(engine)
    before = dict(known)
    assert list(execute(engine, operations, known)) == done(*operations)
    assert known == indexes(engine) == {**before, "v0": before["v1"], "v1": before["v0"]}
    assert [link["mtu"] for link in show("link", "show", "v1", namespace=pair)] == [1300]


@pytest.mark.parametrize("kind", ["tun", "veth", "macvlan"])
def test_kinds_that_are_said_to_be_live_take_a_mac_while_they_are_up(
    network: str, open_engine: OpenEngine, kind: str
) -> None:
    engine = open_engine(network)
    link = next(link for link in engine.links() if link.kind == kind)
    ip("link", "set", link.name, "up", namespace=network)
    operation = SetLink(name=link.name, hw_addr="02:00:00:00:00:77")
    assert list(execute(engine, [operation], indexes(engine))) == done(operation)
    after = engine.link(link.name)
    assert after is not None
    assert (after.hw_addr, after.up) == ("02:00:00:00:00:77", True)


def tell(engine: Engine, sequence: int, data: bytes) -> None:
    """Send one request, which must succeed."""
    operation = RenameInterface(name="", new_name="")
    assert send(engine.channel, [Request(operation, sequence, data)], is_gone) == done(operation)[0]


ALIASES = {
    "none": "",
    "short": "of somebody",
    "longest": "x" * 255,
    "longest of two-byte letters": "é" * 127,
    "with quotes": """it's "his" $HOME""",
}


@pytest.mark.parametrize("alias", ALIASES.values(), ids=ALIASES)
def test_a_device_moves_in_under_its_new_name_and_comes_back_as_it_was(
    kernel: Kernel, open_engine: OpenEngine, alias: str
) -> None:
    device, namespace = kernel.tap(), kernel.namespace()
    ip("link", "set", device, "address", "02:00:00:00:00:01", "mtu", "1400", "alias", alias)
    before = show("link", "show", device)
    origin = Origin(device=device, hw_addr="02:00:00:00:00:01", mtu=1400, alias=alias)
    host = Engine(SocketChannel())
    link = host.link(device)
    assert link
    with open(f"/run/netns/{namespace}", "rb") as file:
        data = interface.encode_move(link.index, "eth0", origin.to_alias(), 1, namespace=file.fileno(), new_index=77)
        tell(host, 1, data)
    inside = open_engine(namespace)
    found = inside.link("eth0")
    assert found is not None
    assert (found.index, found.hw_addr, found.mtu, found.up) == (77, "02:00:00:00:00:01", 1400, False)
    # A long alias of somebody else is cut; what is ours in it is whole.
    kept = Origin.from_alias(found.alias)
    assert kept == replace(origin, alias=kept.alias if kept else "")
    assert alias.startswith(kept.alias)
    assert len(alias) < 128 or len(found.alias.encode()) >= 254

    ip("link", "set", "eth0", "address", "02:00:00:00:00:02", "mtu", "1300", "up", namespace=namespace)
    tell(inside, 1, interface.encode_up(77, up=False, sequence=1))
    tell(inside, 2, interface.encode_aside(77, f"{device}x", "", 2))
    with open("/proc/self/ns/net", "rb") as home:
        tell(inside, 3, interface.encode_move(77, f"{device}y", "", 3, namespace=home.fileno()))
    came = host.link(f"{device}y")
    assert came
    tell(host, 2, interface.encode_restore(came, kept, 2))
    host.channel.close()
    expected = {**before[0], "ifalias": kept.alias} if kept.alias else before[0]
    after = [{key: value for key, value in link.items() if key != "ifindex"} for link in show("link", "show", device)]
    assert after == [{key: value for key, value in expected.items() if key != "ifindex"}]
    assert [link["ifname"] for link in show("link", namespace=namespace)] == ["lo"]


IPV4 = ["10.0.0.1/24", "10.0.0.1/32", "10.0.0.0/31"]
IPV6 = ["fd00::1/64", "fe80::7/64", "fd00::1/128"]


@pytest.mark.parametrize(("text", "dad"), [*((text, True) for text in IPV4 + IPV6), *((text, False) for text in IPV6)])
def test_an_address_is_added_as_ip_would_add_it(pair: str, open_engine: OpenEngine, text: str, *, dad: bool) -> None:
    engine = open_engine(pair)
    nodad = [] if dad else ["nodad"]
    ip("address", "add", text, "dev", "v1", *nodad, namespace=pair)
    (expected,) = show("address", "show", "v1", namespace=pair)
    ip("address", "flush", "dev", "v1", namespace=pair)
    operation = AddAddress(device="v1", address=Address(address=text, dad=dad))
    assert list(execute(engine, [operation], indexes(engine))) == done(operation)
    assert show("address", "show", "v1", namespace=pair) == [expected]


def test_an_address_that_is_there_can_be_added_again(pair: str, open_engine: OpenEngine) -> None:
    engine = open_engine(pair)
    operations: list[NetworkOperation] = [
        AddAddress(device="v0", address=Address(address=text))
        for text in ("10.0.0.1/24", "fd00::1/64")
        for _ in range(2)
    ]
    assert list(execute(engine, operations, indexes(engine))) == done(*operations)
    assert [a.address for a in engine.addresses()] == ["10.0.0.1/24", "fd00::1/64"]


@pytest.mark.parametrize("dad", [True, False])
def test_duplicate_address_detection_is_turned_on_and_off_in_place(
    pair: str, open_engine: OpenEngine, *, dad: bool
) -> None:
    engine = open_engine(pair)
    before, after = Address(address="fd00::1/64", dad=not dad), Address(address="fd00::1/64", dad=dad)
    operations: list[NetworkOperation] = [
        AddAddress(device="v0", address=before),
        ReplaceAddress(device="v0", address=after),
    ]
    assert list(execute(engine, operations, indexes(engine))) == done(*operations)
    assert [(a.address, a.nodad) for a in engine.addresses()] == [("fd00::1/64", not dad)]


@pytest.mark.parametrize(
    ("text", "other"),
    [("10.0.0.1/24", "10.0.0.1/32"), ("10.0.0.1/32", "10.0.0.1/24"), ("fd00::1/64", "fd00::2/64")],
)
def test_only_the_address_that_is_said_is_deleted(pair: str, open_engine: OpenEngine, text: str, other: str) -> None:
    engine = open_engine(pair)
    for each in (text, other):
        ip("address", "add", each, "dev", "v0", namespace=pair)
    operation = DeleteAddress(device="v0", address=Address(address=text))
    assert list(execute(engine, [operation], indexes(engine))) == done(operation)
    assert [a.address for a in engine.addresses()] == [other]


def test_an_address_of_an_unknown_device_is_a_key_error() -> None:
    operation = AddAddress(device="eth7", address=Address(address="10.0.0.1/24"))
    with pytest.raises(KeyError, match=r"^'eth7'$"):
        interface.encode_address(operation, {"eth0": 2}, 1)
