from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from reconciler.formats.iproute2 import Item, route_words
from reconciler.model.interface import Address, Origin
from reconciler.model.route import NextHop, Route
from reconciler.operations import Operation
from reconciler.operations.address import AddAddress, AwaitAddress, DeleteAddress, ReplaceAddress
from reconciler.operations.interface import (
    AdoptInterfaces,
    AttachInterface,
    DetachInterface,
    MoveOperation,
    RenameInterface,
    SetLink,
)
from reconciler.operations.ipvs import IpvsOperation
from reconciler.operations.item import ItemOperation
from reconciler.operations.machine import MachineOperation
from reconciler.operations.network import NetworkOperation
from reconciler.operations.outcome import is_independent
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute
from reconciler.operations.runtime import ObjectCommand
from reconciler.operations.sysctl import SetNetworkSysctl
from reconciler.values import replace
from tests.conftest import Kernel, ip

ORIGIN = Origin(device="tap-test", hw_addr="02:00:00:00:00:01", mtu=1500)
QUOTED = replace(ORIGIN, alias="it's his")
IPV4, IPV6 = Address(address="10.0.0.2/24"), Address(address="fd00::2/64")
NODAD = replace(IPV6, dad=False)

LINKS_AND_ADDRESSES: list[tuple[Operation, str, str]] = [
    (
        AdoptInterfaces(nics=(("eth0", ORIGIN), ("a\nb", replace(ORIGIN, device="tap-two")))),
        "~",
        """# from now on ours: eth0 (on the host: tap-test), "$(printf 'a\\012b')" (on the host: tap-two)""",
    ),
    (
        AdoptInterfaces(nics=(("eth0", ORIGIN),), marked=False),
        "~",
        "# not ours any more: eth0 (on the host: tap-test)",
    ),
    (
        AttachInterface(host_name="tap-test", namespace="web-1", name="eth0", origin=ORIGIN),
        "+",
        (
            "ip link set dev tap-test netns web-1 name eth0 "
            "alias 'reconciler: device=tap-test hwaddr=02:00:00:00:00:01 mtu=1500'"
        ),
    ),
    (
        AttachInterface(host_name="dev7", namespace="/proc/7/ns/net", name="eth0", origin=QUOTED),
        "+",
        (
            "ip link set dev dev7 netns /proc/7/ns/net name eth0 "
            """alias 'reconciler: device=tap-test hwaddr=02:00:00:00:00:01 mtu=1500 alias=it'"'"'s his'"""
        ),
    ),
    (
        DetachInterface(name="eth0", origin=ORIGIN),
        "-",
        "ip link set dev eth0 netns $$ name tap-test address 02:00:00:00:00:01 mtu 1500 alias ''",
    ),
    (
        DetachInterface(name="eth0", origin=QUOTED),
        "-",
        (
            "ip link set dev eth0 netns $$ name tap-test address 02:00:00:00:00:01 mtu 1500 "
            """alias 'it'"'"'s his'"""
        ),
    ),
    (RenameInterface(name="a", new_name="b"), "~", "ip link set dev a name b"),
    (SetLink(name="eth0", mtu=1400), "~", "ip link set dev eth0 mtu 1400"),
    (SetLink(name="eth0", up=True), "~", "ip link set dev eth0 up"),
    (SetLink(name="eth0", up=False), "~", "ip link set dev eth0 down"),
    (
        SetLink(name="eth0", hw_addr="02:00:00:00:00:02", mtu=1400, up=True, sign="+"),
        "+",
        "ip link set dev eth0 address 02:00:00:00:00:02 mtu 1400 up",
    ),
    (SetNetworkSysctl(name="net.ipv4.ip_forward", value=1, before=0), "~", "sysctl -w net.ipv4.ip_forward=1"),
    (
        SetNetworkSysctl(name="net/ipv6/conf/eth0.5/accept_source_route", value=-1, nic="eth0.5"),
        "~",
        "sysctl -w net/ipv6/conf/eth0.5/accept_source_route=-1",
    ),
    (AddAddress(device="eth0", address=IPV4), "+", "ip address add 10.0.0.2/24 dev eth0"),
    (AddAddress(device="eth0", address=IPV6), "+", "ip address add fd00::2/64 dev eth0"),
    (AddAddress(device="eth0", address=NODAD), "+", "ip address add fd00::2/64 dev eth0 nodad"),
    (ReplaceAddress(device="eth0", address=NODAD), "~", "ip address replace fd00::2/64 dev eth0 nodad"),
    (DeleteAddress(device="eth0", address=NODAD), "-", "ip address del fd00::2/64 dev eth0"),
    (
        AwaitAddress(device="eth0", address=IPV6),
        "+",
        "while ip -6 address show dev eth0 tentative | grep -qF ' fd00::2/64 '; do sleep 0.1; done",
    ),
]


@pytest.mark.parametrize(("operation", "sign", "command"), LINKS_AND_ADDRESSES)
def test_an_operation_reads_like_the_command(operation: Operation, sign: str, command: str) -> None:
    assert (operation.sign, operation.command) == (sign, command)
    assert operation.kind == type(operation).__name__
    assert not is_independent(operation)


# Whoever is in the sandbox can name its links and write their aliases; the kernel takes all but spaces and slashes.
HOSTILE = "$(id);`id`&x"


@pytest.mark.parametrize(
    "operation",
    [
        AttachInterface(host_name=HOSTILE, namespace="web-1", name="eth0", origin=ORIGIN),
        AttachInterface(host_name="tap0", namespace=f"/srv/{HOSTILE}", name="eth0", origin=ORIGIN),
        AttachInterface(host_name="tap0", namespace="web-1", name="eth0", origin=replace(ORIGIN, device=HOSTILE)),
        DetachInterface(name=HOSTILE, origin=ORIGIN),
        DetachInterface(name="eth0", origin=replace(ORIGIN, device=HOSTILE)),
        DetachInterface(name="eth0", origin=replace(ORIGIN, alias=HOSTILE)),
        RenameInterface(name=HOSTILE, new_name="eth0"),
        SetLink(name=HOSTILE, up=False),
        SetNetworkSysctl(name=f"net.ipv4.conf.{HOSTILE}.forwarding", value=1),
        AddAddress(device=HOSTILE, address=IPV4),
        ReplaceAddress(device=HOSTILE, address=IPV6),
        DeleteAddress(device=HOSTILE, address=IPV6),
        AddRoute(route=Route(dest="10.8.0.0/16", nexthops=(NextHop(device=HOSTILE),))),
        DeleteRoute(route=Route(dest="10.8.0.0/16", nexthops=(NextHop(device=HOSTILE),))),
        AddRoute(route=Route(dest="10.8.0.0/16", nexthops=(NextHop(device=HOSTILE), NextHop(device="eth1")))),
    ],
)
def test_no_name_is_more_than_a_word_to_a_shell(operation: Operation) -> None:
    # `$$` is the one thing that a shell is to put in.
    shown = f"printf '%s\\n' {operation.command}".replace(" netns $$ ", " netns pid ")
    words = subprocess.run(["sh", "-c", shown], check=True, capture_output=True, text=True).stdout.splitlines()
    assert [word for word in words if HOSTILE in word] != []
    assert words == shlex.split(operation.command.replace(" netns $$ ", " netns pid "))


HOP4, HOP6 = NextHop(device="eth0", gateway="10.0.0.1"), NextHop(device="eth0", gateway="fd00::1")
ON_LINK = NextHop(device="eth0", gateway="10.7.7.7", on_link=True)
BARE = NextHop(device="eth0")
PLAIN4 = Route(dest="10.8.0.0/16", nexthops=(HOP4,))
PLAIN6 = Route(dest="fd08::/64", nexthops=(HOP6,), metric=1024)

# A route, and how iproute2 says it.
ROUTES: dict[str, tuple[Route, str]] = {
    "gateway": (PLAIN4, "10.8.0.0/16 via 10.0.0.1 dev eth0"),
    "device": (replace(PLAIN4, nexthops=(BARE,)), "10.8.0.0/16 dev eth0"),
    "default": (replace(PLAIN4, dest="0.0.0.0/0"), "default via 10.0.0.1 dev eth0"),
    "host": (replace(PLAIN4, dest="10.8.0.1/32"), "10.8.0.1/32 via 10.0.0.1 dev eth0"),
    "onlink": (replace(PLAIN4, nexthops=(ON_LINK,)), "10.8.0.0/16 via 10.7.7.7 dev eth0 onlink"),
    "blackhole": (Route(dest="10.8.0.0/16", type="blackhole"), "blackhole 10.8.0.0/16"),
    "unreachable": (Route(dest="0.0.0.0/0", type="unreachable", metric=7), "unreachable default metric 7"),
    "prohibit": (Route(dest="10.8.0.0/16", type="prohibit", table=1000), "prohibit 10.8.0.0/16 table 1000"),
    "everything": (
        replace(
            PLAIN4,
            nexthops=(ON_LINK,),
            table=4294967295,
            metric=4294967295,
            source="10.0.0.2",
            mtu=1400,
            metrics=(("advmss", 1360),),
        ),
        "10.8.0.0/16 via 10.7.7.7 dev eth0 table 4294967295 metric 4294967295 src 10.0.0.2 mtu 1400 advmss 1360 onlink",
    ),
    "next hops": (
        replace(PLAIN4, nexthops=(HOP4, replace(ON_LINK, weight=256), replace(BARE, weight=2))),
        (
            "10.8.0.0/16 nexthop via 10.0.0.1 dev eth0 weight 1 nexthop via 10.7.7.7 dev eth0 weight 256 onlink "
            "nexthop dev eth0 weight 2"
        ),
    ),
    "next hops and everything": (
        replace(
            PLAIN4,
            nexthops=(HOP4, replace(HOP4, gateway="10.0.0.9")),
            table=100,
            metric=5,
            source="10.0.0.2",
            mtu=1400,
            metrics=(("advmss", 1360),),
        ),
        (
            "10.8.0.0/16 table 100 metric 5 src 10.0.0.2 mtu 1400 advmss 1360 "
            "nexthop via 10.0.0.1 dev eth0 weight 1 nexthop via 10.0.0.9 dev eth0 weight 1"
        ),
    ),
    "IPv6": (PLAIN6, "fd08::/64 via fd00::1 dev eth0 metric 1024"),
    "IPv6 default": (replace(PLAIN6, dest="::/0"), "default via fd00::1 dev eth0 metric 1024"),
    "IPv6 blackhole": (Route(dest="fd08::/64", type="blackhole", metric=1024), "blackhole fd08::/64 metric 1024"),
    "IPv6 everything": (
        replace(PLAIN6, table=1000, metric=5, source="fd00::2", mtu=1400, metrics=(("advmss", 1360),)),
        "fd08::/64 via fd00::1 dev eth0 table 1000 metric 5 src fd00::2 mtu 1400 advmss 1360",
    ),
    "IPv6 next hops": (
        replace(PLAIN6, nexthops=(HOP6, replace(HOP6, gateway="fd00::9", weight=3))),
        "fd08::/64 metric 1024 nexthop via fd00::1 dev eth0 weight 1 nexthop via fd00::9 dev eth0 weight 3",
    ),
}

each_route = pytest.mark.parametrize(("route", "words"), ROUTES.values(), ids=ROUTES)


@each_route
def test_a_route_reads_like_that_of_iproute2(route: Route, words: str) -> None:
    first, nexthop, others = words.partition(" nexthop ")
    ip_ = "ip -6" if route.is_ipv6 else "ip"
    assert route_words(route) == words
    assert AddRoute(route=route).command == f"{ip_} route add {first} proto 200{nexthop}{others}"
    # A deletion names no next hops: the kernel would compare them in the order in which it has them.
    assert DeleteRoute(route=route).command == f"{ip_} route del {first} proto 200"
    replacement = ReplaceRoute(route=route, before=PLAIN4)
    assert replacement.command == f"{ip_} route replace {first} proto 200{nexthop}{others}"
    assert (AddRoute.sign, DeleteRoute.sign, ReplaceRoute.sign) == ("+", "-", "~")


@pytest.fixture
def namespace(kernel: Kernel) -> str:
    """A namespace with a pair of links, both up, of which `eth0` has addresses of both families."""
    name = kernel.namespace()
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1", namespace=name)
    for link in ("lo", "eth0", "eth1"):
        ip("link", "set", link, "up", namespace=name)
    ip("address", "add", "10.0.0.2/24", "dev", "eth0", namespace=name)
    ip("address", "add", "fd00::2/64", "dev", "eth0", "nodad", namespace=name)
    return name


def run(command: str, namespace: str | None) -> None:
    """Type a command into a shell on the host or in a namespace; `$$` stays the shell on the host."""
    if namespace is not None:
        within = f"nsenter --net=/run/netns/{namespace}"
        is_loop = command.startswith("while ")
        command = f"{within} sh -c {shlex.quote(command)}" if is_loop else f"{within} {command}"
    done = subprocess.run(["sh", "-c", f"{command}; exit"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def show(*words: str, namespace: str | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ip("-j", *words, namespace=namespace))
    return found


def shown_routes(namespace: str, route: Route) -> list[str]:
    family = "-6" if route.is_ipv6 else "-4"
    lines = ip(family, "route", "show", "table", "all", "proto", "200", namespace=namespace)
    return lines.replace("\n\t", "").splitlines()


@each_route
def test_ip_takes_the_command_of_a_route_and_does_what_it_says(namespace: str, route: Route, words: str) -> None:
    """Each word of the command is in what `ip` prints afterwards, and nothing is there after the deletion."""
    run(AddRoute(route=route).command, namespace)
    (printed,) = shown_routes(namespace, route)
    said = [word.removesuffix("/32") for word in words.split()]
    assert sorted(set(said) - set(printed.split())) == []
    run(ReplaceRoute(route=route, before=route).command, namespace)
    assert shown_routes(namespace, route) == [printed]
    run(DeleteRoute(route=route).command, namespace)
    assert shown_routes(namespace, route) == []


def test_ip_replaces_a_route_in_its_place(namespace: str) -> None:
    for plain, gateway in ((PLAIN4, "10.0.0.9"), (PLAIN6, "fd00::9")):
        after = replace(plain, nexthops=(NextHop(device="eth0", gateway=gateway),))
        run(AddRoute(route=plain).command, namespace)
        run(ReplaceRoute(route=after, before=plain).command, namespace)
        (printed,) = shown_routes(namespace, plain)
        assert f"via {gateway} dev eth0" in printed


def test_ip_takes_the_command_of_a_link_whose_name_is_hostile(namespace: str) -> None:
    ip("link", "set", "eth1", "down", namespace=namespace)
    ip("link", "set", "eth1", "name", HOSTILE, namespace=namespace)
    run(RenameInterface(name=HOSTILE, new_name="eth7").command, namespace)
    assert {link["ifname"] for link in show("link", namespace=namespace)} == {"lo", "eth7", "eth0"}


def test_ip_takes_the_commands_of_a_link(namespace: str) -> None:
    for operation in (
        SetLink(name="eth0", up=False),
        RenameInterface(name="eth0", new_name="eth9"),
        SetLink(name="eth9", hw_addr="02:00:00:00:00:02", mtu=1400, up=True),
    ):
        run(operation.command, namespace)
    (link,) = show("link", "show", "eth9", namespace=namespace)
    assert (link["address"], link["mtu"], "UP" in link["flags"]) == ("02:00:00:00:00:02", 1400, True)


def addresses(namespace: str) -> list[tuple[str, bool]]:
    (link,) = show("address", "show", "eth1", namespace=namespace)
    return [
        (f"{each['local']}/{each['prefixlen']}", each.get("nodad", False))
        for each in link["addr_info"]
        if each["scope"] == "global"
    ]


def test_ip_takes_the_commands_of_an_address(namespace: str) -> None:
    run(AddAddress(device="eth1", address=IPV4).command, namespace)
    run(AddAddress(device="eth1", address=Address(address="fd05::5/64")).command, namespace)
    assert addresses(namespace) == [("10.0.0.2/24", False), ("fd05::5/64", False)]
    run(AwaitAddress(device="eth1", address=Address(address="fd05::5/64")).command, namespace)
    assert ip("address", "show", "dev", "eth1", "tentative", "to", "fd05::5", namespace=namespace) == ""
    run(ReplaceAddress(device="eth1", address=Address(address="fd05::5/64", dad=False)).command, namespace)
    assert addresses(namespace) == [("10.0.0.2/24", False), ("fd05::5/64", True)]
    run(DeleteAddress(device="eth1", address=IPV4).command, namespace)
    run(DeleteAddress(device="eth1", address=Address(address="fd05::5/64")).command, namespace)
    assert addresses(namespace) == []


@pytest.mark.parametrize("alias", ["", "it's his $HOME"])
def test_ip_moves_a_device_in_and_back_as_it_was(kernel: Kernel, alias: str) -> None:
    device, namespace = kernel.tap(), kernel.namespace()
    ip("link", "set", device, "address", "02:00:00:00:00:01", "mtu", "1400", "alias", alias)
    (before,) = show("link", "show", device)
    origin = Origin(device=device, hw_addr="02:00:00:00:00:01", mtu=1400, alias=alias)
    run(AttachInterface(host_name=device, namespace=namespace, name="eth0", origin=origin).command, None)
    (inside,) = show("link", "show", "eth0", namespace=namespace)
    assert inside["ifalias"] == origin.to_alias()
    ip("link", "set", "eth0", "address", "02:00:00:00:00:02", "mtu", "1300", "up", namespace=namespace)
    run(DetachInterface(name="eth0", origin=origin).command, namespace)
    (after,) = show("link", "show", device)
    assert {**after, "ifindex": 0} == {**before, "ifindex": 0}


def test_the_documentation_lists_every_operation() -> None:
    """Operations of a runtime on IPVS rules are listed as what they do; a rule of policy routing is never replaced."""
    unions = (NetworkOperation, MoveOperation, IpvsOperation, MachineOperation, ObjectCommand)
    named = {each.__name__ for union in unions for each in get_args(union)}
    verbs = {each.__name__.removesuffix("Item") for each in get_args(ItemOperation)}
    kinds = named - {f"{verb}Item" for verb in verbs}
    kinds |= {verb + item.__name__ for verb in verbs for item in get_args(Item)} - {"ReplaceRule"}
    text = (Path(__file__).parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
    sentence = text.partition("`operation` is one of")[2].partition(", and those of IPVS rules")[0]
    listed = re.findall(r"`([A-Z]\w+)`", sentence)
    assert (set(listed), len(listed)) == (kinds, len(kinds))
