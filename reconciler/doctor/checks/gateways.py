"""Gateways and neighbours: who should answer, who does not, and who does not forward."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.doctor.facts import UNANSWERED, Box, Network
from reconciler.doctor.registry import Check, Hit
from reconciler.doctor.scene import Scene, Way
from reconciler.doctor.words import apply, command, listed, set_sysctl, within
from reconciler.formats.iproute2 import route_words
from reconciler.model.address import family_name, is_ipv6
from reconciler.model.derived import is_link_local
from reconciler.model.interface import LOOPBACK
from reconciler.model.route import OnLink, Route
from reconciler.values import NamedTuple


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


def _unanswered(scene: Scene) -> Iterator[Hit]:
    for each in _gateways(scene):
        entry = each.network.neighbour(each.device, each.address)
        if entry and entry.state in UNANSWERED:
            words = f"the gateway {each.address} does not answer on {each.device} of {each.box.id} ({entry.state.name})"
            yield Hit(each.box.id, words, within(each.box, "ip", "neighbour", "show", "to", each.address))
    network = scene.host.network
    for entry in network.neighbours:
        if entry.state in UNANSWERED and (owner := _owner(scene, entry.address)):
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
        silent = [e.address for e in network.neighbours if e.state in UNANSWERED and e.address not in gateways]
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
        # The connected routes of the addresses are among them: an address may have none.
        reach = OnLink({}, network.routes)
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
        words = (
            f"nobody has the gateway {each.address} of {each.box.id}: neither {where} of the host nor who is connected"
        )
        own = each.network.facing(each.device, each.address).split()
        yield Hit(each.box.id, words, command("ip", "address", "add", *own, "dev", where))


def _wrong_link(scene: Scene) -> Iterator[Hit]:
    """Yield gateways that the host has on another link than the one that the NIC leads to, with no way back there."""
    host = scene.host.network
    for each in _gateways(scene):
        way = next((w for w in scene.ways_of(each.box) if w.inside and w.inside.name == each.device), None)
        entry = (way.bridge or way.outside) if way else None
        own = host.hosts.get(each.address)
        if entry is None or own is None or own.link in {entry.name, LOOPBACK} or is_link_local(each.address):
            continue
        for address in each.network.of(each.device):
            same = is_ipv6(address.host) == is_ipv6(each.address) and not is_link_local(address.address)
            back = scene.lookup(host).route(address.host) if same else None
            if back and own.link in back.devices:
                words = f"the gateway {each.address} of {each.box.id} is on {own.link} of the host, not on {entry.name}"
                outside = way.outside.name if way and way.outside else entry.name
                mend = command("ip", "link", "set", "dev", outside, "master", own.link)
                yield Hit(each.box.id, f"{words}, which {each.device} leads to", mend)
                break


def _is_known(scene: Scene, way: Way, address: str) -> bool:
    """Return whether all that is on the link of a way is known, and none of it has an address."""
    for other in way.others:
        if not (other.up and other.carrier):
            continue
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


def _host_forwards(scene: Scene) -> Iterator[Hit]:
    """Yield sandboxes that send what is for others to the host, which does not forward it."""
    network = scene.host.network
    for each in _gateways(scene):
        address = network.hosts.get(each.address)
        if address is None or not _leads_far(each.route):
            continue
        family = "ipv6" if is_ipv6(each.address) else "ipv4"
        way = next((w for w in scene.ways_of(each.box) if w.inside and w.inside.name == each.device), None)
        entry = (way.bridge or way.outside) if way else None
        everywhere = "net.ipv6.conf.all.forwarding" if family == "ipv6" else "net.ipv4.ip_forward"
        # The link that a packet comes in by decides.
        own = f"net.{family}.conf.{entry.name}.forwarding" if entry else everywhere
        name = everywhere if network.number(everywhere) == 0 else own
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
    host, known = scene.host.network, _macs(scene)
    for way in scene.ways:
        if way.box.network is None or way.inside is None or way.outside is None:
            continue
        for found in way.box.network.neighbours:
            has = known[way.segment].get(found.address)
            if found.link == way.inside.name and found.hw_addr and has and found.hw_addr not in has:
                words = f"{way.box.id} sends packets to {found.address} to {found.hw_addr}, and it has {min(has)}"
                mend = within(way.box, "ip", "neighbour", "del", found.address, "dev", found.link)
                yield Hit(way.box.id, words, mend)
        entry_link = (way.bridge or way.outside).name
        for address in way.box.network.of(way.inside.name):
            entry = host.neighbour(entry_link, address.host)
            if entry and entry.hw_addr and entry.hw_addr not in known[way.segment].get(address.host, ()):
                words = f"the host sends packets to {address.host} of {way.box.id} to {entry.hw_addr}"
                mend = command("ip", "neighbour", "del", address.host, "dev", entry_link)
                yield Hit(way.box.id, f"{words}, and it has {way.inside.hw_addr}", mend)


def _macs(scene: Scene) -> dict[tuple[str, int], dict[str, set[str]]]:
    """Return by link layer which MAC addresses each address has there, of the host and of the sandboxes."""
    known: dict[tuple[str, int], dict[str, set[str]]] = {}
    for way in scene.ways:
        entry = way.bridge or way.outside
        if entry is None or way.inside is None or way.box.network is None:
            continue
        addresses = known.setdefault(way.segment, {})
        ends = [(entry, scene.host.network.of(entry.name)), (way.inside, way.box.network.of(way.inside.name))]
        for link, those in ends:
            for each in those:
                addresses.setdefault(each.host, set()).add(link.hw_addr)
    return known


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
    Check("gateway-elsewhere", "The NIC is in the wrong bridge, or the address is.", "Move one of them.", _wrong_link),
    Check("default-lacking", "The sandbox reaches its own networks only.", "Apply the manifest.", _no_default),
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
