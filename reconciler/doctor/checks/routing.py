"""Gateways, routes, rules and neighbours, in sandboxes and on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from reconciler.doctor.facts import HOST, Box, Neighbour, NeighbourState, Network
from reconciler.doctor.lookup import REJECTED, Lookup
from reconciler.doctor.registry import Check, Hit
from reconciler.doctor.scene import Scene, Way
from reconciler.doctor.words import apply, command, listed, set_sysctl, within
from reconciler.formats.iproute2 import item_words, route_words
from reconciler.model.address import contains, family_name, is_ipv6
from reconciler.model.derived import is_link_local
from reconciler.model.interface import LOOPBACK
from reconciler.model.route import PROTOCOL_KERNEL, OnLink, Route
from reconciler.model.rule import KERNEL_TABLES

_UNANSWERED = {NeighbourState.FAILED, NeighbourState.INCOMPLETE}
# rp_filter: an answer to the sender must leave through the link that its packet came in by.
_STRICT = 1


class Gateway(NamedTuple):
    """A next hop of a route in a sandbox: the address, and the NIC that leads there."""

    box: Box
    network: Network
    route: Route
    address: str
    device: str


def _gateways(scene: Scene) -> Iterator[Gateway]:
    """Yield each gateway of each sandbox once."""
    for box, network in scene.seen:
        said = set[tuple[str, str]]()
        for route in network.routes:
            for hop in route.nexthops:
                if hop.gateway and (hop.gateway, hop.device) not in said:
                    said.add((hop.gateway, hop.device))
                    yield Gateway(box, network, route, hop.gateway, hop.device)


def _neighbour(network: Network, address: str, device: str) -> Neighbour | None:
    found = (each for each in network.neighbours if each.address == address and each.link == device)
    return next(found, None)


def _unanswered(scene: Scene) -> Iterator[Hit]:
    for each in _gateways(scene):
        entry = _neighbour(each.network, each.address, each.device)
        if entry and entry.state in _UNANSWERED:
            words = f"the gateway {each.address} does not answer on {each.device} of {each.box.id} ({entry.state.name})"
            yield Hit(each.box.id, words, within(each.box, "ip", "neighbour", "show", "to", each.address))
    network = scene.host.network
    for entry in network.neighbours:
        if entry.state in _UNANSWERED and (owner := _owner(scene, entry.address)):
            words = f"{entry.address} of {owner.box.id} does not answer the host on {entry.link} ({entry.state.name})"
            yield Hit(owner.box.id, words, command("ip", "neighbour", "show", "to", entry.address))


def _owner(scene: Scene, address: str) -> Way | None:
    for way in scene.ways:
        wished = {each.host for each in way.wish.addresses} if way.wish else set[str]()
        there = {each.host for each in way.box.network.of(way.name)} if way.box.network else set[str]()
        if address in wished | there and not is_link_local(address):
            return way
    return None


def _silent_neighbours(scene: Scene) -> Iterator[Hit]:
    for box, network in scene.seen:
        gateways = {hop.gateway for route in network.routes for hop in route.nexthops}
        silent = [e.address for e in network.neighbours if e.state in _UNANSWERED and e.address not in gateways]
        if silent:
            words = f"{len(silent):,} neighbours do not answer in {box.id}: {listed(silent)}"
            yield Hit(box.id, words, within(box, "ip", "neighbour", "show", "nud", "failed"))


def _own_gateway(scene: Scene) -> Iterator[Hit]:
    for each in _gateways(scene):
        if each.address in each.network.hosts:
            words = f"the gateway {each.address} is an address of {each.box.id} itself: {route_words(each.route)}"
            yield Hit(each.box.id, words, within(each.box, "ip", "route", "get", each.address))


def _off_link(scene: Scene) -> Iterator[Hit]:
    """Yield gateways that no network of their NIC has: the kernel kept the route when the address went or changed."""
    for box, network in scene.seen:
        prefixes: dict[str, list[str]] = {}
        for address in network.addresses:
            prefixes.setdefault(address.link, []).append(address.address)
        reach = OnLink(prefixes, network.routes)
        for route in network.routes:
            for hop in route.nexthops:
                if hop.device in network.by_name and not reach.reaches(hop, route.table):
                    words = (
                        f"no network on {hop.device} of {box.id} has the gateway {hop.gateway}: {route_words(route)}"
                    )
                    yield Hit(box.id, words, within(box, "ip", "address", "show", "dev", hop.device))


def _nobody(scene: Scene) -> Iterator[Hit]:
    """Yield gateways that nobody on the link can have: the host is alone there, and does not have it."""
    host = scene.host.network
    for each in _gateways(scene):
        way = next((w for w in scene.ways_of(each.box) if w.inside and w.inside.name == each.device), None)
        link = way.outside if way else None
        if way is None or link is None or link.kind not in {"veth", "tun"} or each.address in host.hosts:
            continue
        proxy = "net.ipv6.conf.{}.proxy_ndp" if is_ipv6(each.address) else "net.ipv4.conf.{}.proxy_arp"
        answers = any(host.number(proxy.format(name)) for name in (link.name, way.bridge and way.bridge.name, "all"))
        if answers or not _is_known(scene, way, each.address):
            continue
        where = way.bridge.name if way.bridge else link.name
        length = next((a.length for a in each.network.of(each.device) if contains(a.address, each.address)), None)
        words = (
            f"nobody has the gateway {each.address} of {each.box.id}: neither {where} of the host nor who is connected"
        )
        prefix = each.address if length is None else f"{each.address}/{length}"
        yield Hit(each.box.id, words, command("ip", "address", "add", prefix, "dev", where))


def _is_known(scene: Scene, way: Way, address: str) -> bool:
    """Return whether all that is on the link of a way is known, and none of it has an address."""
    for other in way.others:
        behind = scene.behind.get(other.number)
        if behind is None or behind.box.network is None or address in behind.box.network.hosts:
            return False
    return True


def _no_default(scene: Scene) -> Iterator[Hit]:
    for box, network in scene.seen:
        for default in [each for each in box.sandbox.routes or () if each.is_default]:
            if not any(each.is_default and each.dest == default.dest for each in network.routes):
                words = f"{box.id} has no {family_name(default.dest)} default route, which {box.file} wants"
                yield Hit(box.id, words, apply(box))
                break


def _everywhere(scene: Scene) -> Iterator[tuple[str, Box | None, Network]]:
    yield HOST, None, scene.host.network
    yield from ((box.id, box, network) for box, network in scene.seen)


def _run(box: Box | None, *words: str) -> str:
    return within(box, *words) if box else command(*words)


def _six(family: str) -> tuple[str, ...]:
    return ("-6",) if family == "ipv6" else ()


def _unread(scene: Scene) -> Iterator[Hit]:
    """Yield tables with routes that no rule looks up."""
    for about, box, network in _everywhere(scene):
        if any(rule.l3mdev for rule in network.rules) or any(link.kind == "vrf" for link in network.links):
            continue
        read = {(rule.family, rule.table) for rule in network.rules}
        families = {rule.family for rule in network.rules}
        said = set[tuple[str, int]]()
        for route in network.routes:
            table = ("ipv6" if route.is_ipv6 else "ipv4", route.table)
            if table[0] in families and table not in read and table not in said and table[1] not in KERNEL_TABLES:
                said.add(table)
                words = (
                    f"no rule looks up table {route.table}, so no packet takes its routes, such as {route_words(route)}"
                )
                mend = _run(box, "ip", *_six(table[0]), "rule", "add", "from", "all", "lookup", str(route.table))
                yield Hit(about, words, f"{mend}    # or with the selector that was meant")


def _empty(scene: Scene) -> Iterator[Hit]:
    """Yield rules that look up a table without a route."""
    for about, box, network in _everywhere(scene):
        filled = {("ipv6" if route.is_ipv6 else "ipv4", route.table) for route in network.routes}
        for rule in network.rules:
            lookup = rule.action == "table" and rule.table and rule.table not in KERNEL_TABLES
            if lookup and (rule.family, rule.table) not in filled:
                words = f"the rule `{item_words(rule)}` looks up table {rule.table}, which has no route"
                yield Hit(about, words, _run(box, "ip", *_six(rule.family), "route", "show", "table", str(rule.table)))


def _rejecting(scene: Scene) -> Iterator[Hit]:
    """Yield routes and rules that reject packets, and that no manifest wants."""
    for box, network in scene.seen:
        wanted = {(each.dest, each.table) for each in box.sandbox.routes or () if each.type in REJECTED}
        for route in network.routes:
            by_kernel = route.protocol == PROTOCOL_KERNEL or (route.devices == {LOOPBACK} and route.metric == 2**32 - 1)
            if route.type in REJECTED and not by_kernel and (route.dest, route.table) not in wanted:
                words = (
                    f"{box.id} rejects packets to {route.dest}: {route_words(route)}, which its manifest does not have"
                )
                mend = within(box, "ip", *_six("ipv6" if route.is_ipv6 else ""), "route", "del", *_identity(route))
                yield Hit(box.id, words, mend)
        rules = set(box.sandbox.rules or ())
        for rule in network.rules:
            if rule.action in REJECTED and rule not in rules:
                words = f"{box.id} rejects packets by a rule, which its manifest does not have: {item_words(rule)}"
                yield Hit(
                    box.id, words, within(box, "ip", *_six(rule.family), "rule", "del", *item_words(rule).split())
                )


def _identity(route: Route) -> list[str]:
    words = [] if route.type == "unicast" else [route.type]
    words.append(route.dest)
    words += ["metric", str(route.metric)] if route.metric else []
    return [*words, "table", str(route.table)]


def _asymmetric(scene: Scene) -> Iterator[Hit]:
    """Yield links whose strict filter drops packets that come in there, as answers to them would leave elsewhere."""
    for about, box, network in _everywhere(scene):
        lookup = scene.lookup(network)
        everywhere = network.number("net.ipv4.conf.all.rp_filter") or 0
        for link in network.nics:
            own = network.number(f"net.ipv4.conf.{link.name}.rp_filter") or 0
            if max(everywhere, own) != _STRICT:
                continue
            for route in network.routes:
                if (found := _elsewhere(network, lookup, link.name, route)) is not None:
                    words = (
                        f"{link.name} drops packets from {route.dest} (rp_filter is strict): {route_words(route)} "
                        f"leads there, and answers leave by {found}"
                    )
                    name = f"net.ipv4.conf.{link.name}.rp_filter"
                    yield Hit(about, words, set_sysctl(box, name, 2))
                    break
    yield from _host_filters(scene)


def _elsewhere(network: Network, lookup: Lookup, link: str, route: Route) -> str | None:
    """Return the links by which answers to packets from a route's destination leave, if `link` is none of them."""
    if link not in route.devices or route.is_ipv6 or route.type != "unicast":
        return None
    # A host beyond the route, such as the second address of its destination.
    packed = int.from_bytes(bytes(map(int, route.dest.partition("/")[0].split("."))))
    length = int(route.dest.partition("/")[2])
    beyond = ".".join(map(str, (packed + (1 if length < 32 else 0)).to_bytes(4))) if length else "198.51.100.1"
    for address in network.of(link):
        if is_ipv6(address.address) or beyond in network.hosts:
            continue
        back = lookup.route(beyond, address.host)
        if back is not None and link not in back.devices:
            return ", ".join(sorted(back.devices)) or back.type
    return None


def _host_filters(scene: Scene) -> Iterator[Hit]:
    network = scene.host.network
    everywhere = network.number("net.ipv4.conf.all.rp_filter") or 0
    for way in scene.ways:
        entry = way.bridge or way.outside
        if entry is None or way.box.network is None:
            continue
        own = network.number(f"net.ipv4.conf.{entry.name}.rp_filter") or 0
        addresses = [each for each in way.box.network.of(way.name) if not is_ipv6(each.address)]
        if max(everywhere, own) != _STRICT or not any(True for _ in network.of(entry.name)):
            continue
        for address in addresses:
            back = scene.lookup(network).route(address.host)
            if back is not None and entry.name not in back.devices and back.type == "unicast":
                words = (
                    f"the host drops packets of {address.host} ({way.box.id}) on {entry.name}: rp_filter is strict "
                    f"there, and its way back is {route_words(back)}"
                )
                yield Hit(way.box.id, words, set_sysctl(None, f"net.ipv4.conf.{entry.name}.rp_filter", 2))


def _astray(scene: Scene) -> Iterator[Hit]:
    """Yield addresses of sandboxes to which the host has a link, and a route that leads elsewhere."""
    network = scene.host.network
    for way in scene.ways:
        entry = way.bridge or way.outside
        if entry is None or not entry.up or way.box.network is None:
            continue
        for address in way.box.network.of(way.name):
            covered = any(contains(each.address, address.host) for each in network.of(entry.name))
            if not covered or is_link_local(address.address) or address.host in network.hosts:
                continue
            route = scene.lookup(network).route(address.host)
            if route is None or (entry.name not in route.devices):
                way_there = f"takes {route_words(route)}" if route else "has no route there"
                words = f"{address.host} of {way.box.id} is on {entry.name} of the host, which {way_there}"
                yield Hit(way.box.id, words, _straighten(address.host, route))


def _straighten(address: str, route: Route | None) -> str:
    """Return the command that deletes a route to one host, or one that rejects; a larger one has other purposes."""
    six = _six("ipv6" if is_ipv6(address) else "")
    if route and (route.type in REJECTED or route.dest.partition("/")[0] == address):
        return command("ip", *six, "route", "del", *_identity(route))
    return command("ip", *six, "route", "get", address)


def _host_forwards(scene: Scene) -> Iterator[Hit]:
    """Yield sandboxes that send what is for others to the host, which does not forward it."""
    network = scene.host.network
    for each in _gateways(scene):
        address = network.hosts.get(each.address)
        if address is None or not _leads_far(each.route):
            continue
        name = "net.ipv6.conf.all.forwarding" if is_ipv6(each.address) else "net.ipv4.ip_forward"
        if network.number(name) == 0:
            words = (
                f"{each.box.id} sends packets to {each.route.dest} by the host ({each.address}), which forwards none"
            )
            yield Hit(each.box.id, words, set_sysctl(None, name, 1))


def _leads_far(route: Route) -> bool:
    return not is_link_local(route.dest)


def _sandbox_forwards(scene: Scene) -> Iterator[Hit]:
    """Yield sandboxes that are the gateway of others, and do not forward."""
    owners = {
        each.host: (box, network, each.link)
        for box, network in scene.seen
        for each in network.addresses
        if each.link != LOOPBACK and not is_link_local(each.address)
    }
    said = set[tuple[str, str]]()
    for each in _gateways(scene):
        found = owners.get(each.address)
        if found is None or found[0].id == each.box.id:
            continue
        box, network, link = found
        family = "ipv6" if is_ipv6(each.address) else "ipv4"
        own = network.number(f"net.{family}.conf.{link}.forwarding")
        if own == 0 and (box.id, family) not in said:
            said.add((box.id, family))
            name = "net.ipv6.conf.all.forwarding" if family == "ipv6" else "net.ipv4.ip_forward"
            words = f"{box.id} is the gateway of {each.box.id} ({each.address}), and forwards nothing"
            yield Hit(box.id, words, set_sysctl(box, name, 1))


def _wrong_neighbour(scene: Scene) -> Iterator[Hit]:
    """Yield entries with another MAC address than the one who has the address."""
    host = scene.host.network
    for way in scene.ways:
        if way.box.network is None or way.inside is None or way.outside is None:
            continue
        macs = _macs(scene, way)
        for entry in way.box.network.neighbours:
            known = macs.get(entry.address)
            if entry.link == way.inside.name and entry.hw_addr and known and entry.hw_addr not in known:
                words = f"{way.box.id} sends packets to {entry.address} to {entry.hw_addr}; its address is {known[0]}"
                yield Hit(
                    way.box.id, words, within(way.box, "ip", "neighbour", "del", entry.address, "dev", entry.link)
                )
        entry_link = (way.bridge or way.outside).name
        own = {each.host: way.inside.hw_addr for each in way.box.network.of(way.inside.name)}
        for entry in host.neighbours:
            mac = own.get(entry.address)
            if entry.link == entry_link and mac and entry.hw_addr and entry.hw_addr != mac:
                words = (
                    f"the host sends packets to {entry.address} of {way.box.id} to {entry.hw_addr}, and it has {mac}"
                )
                yield Hit(way.box.id, words, command("ip", "neighbour", "del", entry.address, "dev", entry.link))


def _macs(scene: Scene, way: Way) -> dict[str, list[str]]:
    """Return the MAC addresses of the host's own addresses on a link."""
    link = way.bridge or way.outside
    assert link
    return {each.host: [link.hw_addr] for each in scene.host.network.of(link.name)}


CHECKS = (
    Check(
        "gateway-silent",
        "Packets beyond the sandbox's own network are dropped.",
        "Find who should answer.",
        _unanswered,
    ),
    Check(
        "neighbour-silent",
        "Packets to these neighbours are dropped.",
        "Find who should answer.",
        _silent_neighbours,
        is_note=True,
    ),
    Check("gateway-own", "Packets that take the route go nowhere.", "Correct the gateway.", _own_gateway),
    Check("gateway-off-link", "The kernel cannot reach the gateway.", "Correct address or gateway.", _off_link),
    Check(
        "gateway-nobody",
        "Packets beyond the sandbox's own network are dropped.",
        "Give it to whom it belongs.",
        _nobody,
    ),
    Check("default-lacking", "The sandbox reaches its own networks only.", "Apply the manifest.", _no_default),
    Check("table-unread", "The routes of the table have no effect.", "Add the rule that looks it up.", _unread),
    Check("rule-empty", "The rule has no effect: the lookup goes on in the next table.", "Add the routes.", _empty),
    Check("rejected", "The kernel drops these packets or answers that nobody is there.", "Delete it.", _rejecting),
    Check(
        "rp-filter",
        "Packets that come in there are dropped without a trace.",
        "Set rp_filter to 2 (loose).",
        _asymmetric,
    ),
    Check(
        "host-route", "Answers of the host do not reach the sandbox.", "Delete the route that is in the way.", _astray
    ),
    Check(
        "host-forwarding",
        "Packets of the sandbox go no further than the host.",
        "Let the host forward.",
        _host_forwards,
    ),
    Check("forwarding-off", "Packets of other sandboxes end there.", "Let it forward.", _sandbox_forwards),
    Check(
        "neighbour-wrong",
        "Packets go to a wrong MAC address, and nobody takes them.",
        "Delete the entry.",
        _wrong_neighbour,
    ),
)
