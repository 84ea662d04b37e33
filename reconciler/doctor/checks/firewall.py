"""Rules of nftables and of iptables-nft that drop packets. Those of iptables-legacy cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.doctor.facts import HOST, Box, Drop, Network
from reconciler.doctor.registry import Check, Hit
from reconciler.doctor.scene import Scene
from reconciler.doctor.words import run
from reconciler.model.address import pack
from reconciler.model.ipvs import FWMARK

# Where a packet that a bridge passes meets rules of IP, if br_netfilter is on.
_FORWARD = "forward"


def _where(about: str, each: Drop) -> str:
    what = f"the policy of chain {each.chain}" if each.is_policy else f"a rule of chain {each.chain}"
    place = "on the host" if about == HOST else f"in {about}"
    return f"{what} (table {each.family} {each.table}, hook {each.hook}) {place}"


def _mend(box: Box | None, each: Drop) -> str:
    words = ["nft", "delete", "rule", each.family, each.table, each.chain, "handle", str(each.handle)]
    if each.is_policy:
        words = ["nft", "chain", each.family, each.table, each.chain, "{ policy accept; }"]
    if each.family in {"ip", "ip6"} and each.table in {"filter", "raw", "mangle", "nat", "security"}:
        program = "iptables" if each.family == "ip" else "ip6tables"
        words = [program, "-t", each.table, "-D", each.chain, str(each.number)]
        if each.is_policy:
            words = [program, "-t", each.table, "-P", each.chain, "ACCEPT"]
    return run(box, *words)


def _all(scene: Scene) -> Iterator[Hit]:
    for about, box, network in scene.everywhere:
        for each in network.firewall or ():
            if each.always and _matters(scene, about, network, each):
                yield Hit(about, f"{_where(about, each)} drops every packet", _mend(box, each))


def _matters(scene: Scene, about: str, network: Network, each: Drop) -> bool:
    """Return whether packets pass a hook at all: those that are forwarded do only if there are any."""
    if each.hook != _FORWARD or each.family == "bridge":
        return True
    filtered = network.number("net.bridge.bridge-nf-call-iptables") == 1 and any(w.bridge for w in scene.ways)
    forwards = any(network.number(name) for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"))
    return forwards or (about == HOST and filtered)


def _named(scene: Scene) -> Iterator[Hit]:
    """Yield rules whose conditions name addresses or devices of a sandbox."""
    known = {box.id: list(_traits(scene, box)) for box in scene.boxes}
    for about, box, network in scene.everywhere:
        for each in network.firewall or ():
            if each.always:
                continue
            if box and each.packets:
                words = f"{_where(about, each)} has dropped {each.packets:,} packets"
                yield Hit(box.id, words, _mend(box, each))
                continue
            ids = known if box is None else {box.id: known[box.id]}
            for id_, traits in ids.items():
                hit = next((words for words, data in traits if any(_mentions(m, data) for m in each.mentions)), None)
                if hit:
                    yield Hit(id_, f"{_where(about, each)} drops packets of {hit}", _mend(box, each))


def _mentions(found: bytes, data: bytes) -> bool:
    """Return whether a condition compares with a value: an address, or a name that is filled up with zeros."""
    return found == data or found.rstrip(b"\0") == data


def _traits(scene: Scene, box: Box) -> Iterator[tuple[str, bytes]]:
    for way in scene.ways_of(box):
        for link in (way.outside, way.bridge):
            if link:
                yield link.name, link.name.encode(errors="surrogateescape")
        yield way.name, way.name.encode(errors="surrogateescape")
    for each in box.network.addresses if box.network else ():
        if each.link != "lo":
            yield each.host, pack(each.host)
    for route in box.network.routes if box.network else ():
        for hop in route.nexthops:
            if hop.gateway:
                yield hop.gateway, pack(hop.gateway)
    services = box.sandbox.ipvs.services or () if box.sandbox.ipvs else ()
    for service in services[:100]:
        if service.protocol != FWMARK:
            yield f"port {service.port}", service.port.to_bytes(2)
        for server in service.servers[:100]:
            yield server.address, pack(server.address)


def _some(scene: Scene) -> Iterator[Hit]:
    for about, box, network in scene.everywhere:
        left = [each for each in network.firewall or () if not each.always]
        if left:
            words = f"{len(left):,} rules or policies of the firewall drop packets, such as {_where(about, left[0])}"
            yield Hit(about, words, run(box, "nft", "list", "ruleset"))


CHECKS = (
    Check("firewall-closed", "Nothing passes there.", "Change the policy, or delete the rule.", _all),
    Check(
        "firewall-drops", "Packets that the rule selects are dropped.", "Delete the rule, if nobody wants it.", _named
    ),
    Check("firewall", "Some packets are dropped.", "List the rules.", _some, is_note=True),
)
