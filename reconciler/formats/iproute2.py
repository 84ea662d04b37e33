"""The commands of iproute2, as an engineer would type them.

Names are quoted: those that are observed may be anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from reconciler.model.address import DEFAULT_IPV4, DEFAULT_IPV6
from reconciler.model.attribute import Attributes
from reconciler.model.attribute import words as attribute_words
from reconciler.model.interface import Address, Origin
from reconciler.model.made import Made, Value, unusual
from reconciler.model.made import words as option_words
from reconciler.model.mark import made_altname
from reconciler.model.metric import BY_FIELD
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import PROTOCOL_KERNEL, TABLE_LOCAL, TABLE_MAIN, NextHop, Route, identified
from reconciler.model.rule import NO_SUPPRESSION, Rule, range_text
from reconciler.values import replace
from reconciler.wording import quote

# The kinds of objects that are added, replaced and deleted as a whole.
Item = Rule | Neighbour
_TABLE_NAMES = {TABLE_LOCAL: "local", TABLE_MAIN: "main"}
# RTPROT_* of linux/rtnetlink.h that every iproute2 has by name.
_PROTOCOL_NAMES = {1: "redirect", PROTOCOL_KERNEL: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp"}


def attach_command(device: str, namespace: str, name: str, origin: Origin) -> str:
    """Return the command that moves a device of the host into a namespace under a name, and marks it."""
    moved = f"ip link set dev {quote(device)} netns {quote(namespace)} name {quote(name)}"
    return f"{moved} alias {quote(origin.to_alias())}"


def detach_command(name: str, origin: Origin) -> str:
    """Return the command that moves a NIC to the namespace of the shell, as it was there."""
    moved = f"ip link set dev {quote(name)} netns $$ name {quote(origin.device)}"
    words = [moved, *(["address", origin.hw_addr] if origin.hw_addr else [])]
    words += ["mtu", str(origin.mtu), "alias", quote(origin.alias)]
    return " ".join([*words, *attribute_words(origin.attributes), *["up"] * origin.up])


def rename_command(name: str, new_name: str) -> str:
    """Return the command that renames a NIC."""
    return f"ip link set dev {quote(name)} name {quote(new_name)}"


def altnames_command(verb: str, name: str, altnames: Iterable[str]) -> str:
    """Return the command that does `verb` (add, del) to alternative names of a NIC."""
    return " ".join([f"ip link property {verb} dev {quote(name)}", *(f"altname {quote(each)}" for each in altnames)])


def add_link_command(name: str, made: Made) -> str:
    """Return the commands that make a link in the sandbox and mark it as ours."""
    return f"ip link add {made_words(name, made)} && {mark_link_command(name)}"


def mark_link_command(name: str, *, marked: bool = True) -> str:
    """Return the command that marks a link that is made in the sandbox as ours, or takes the mark away."""
    return altnames_command("add" if marked else "del", name, (made_altname(name),))


def made_words(name: str, made: Made) -> str:
    """Return a link that is made in the sandbox as iproute2 writes it."""
    link = ["link", quote(made.link)] if made.link else []
    return " ".join([*link, "name", quote(name), "type", made.kind, *option_words(made.kind, unusual(made))])


def change_link_command(name: str, kind: str, changes: tuple[tuple[str, Value], ...]) -> str:
    """Return the command that changes options of a link that is made in the sandbox."""
    return " ".join(["ip link set dev", quote(name), "type", kind, *option_words(kind, changes)])


def delete_link_command(name: str) -> str:
    """Return the command that deletes a link."""
    return f"ip link del dev {quote(name)}"


def set_link_command(
    name: str,
    *,
    hw_addr: str | None,
    mtu: int | None,
    up: bool | None,
    master: str | None = None,
    attributes: Attributes = (),
) -> str:
    """Return the command that changes those settings of a NIC that are not None."""
    words = ["ip link set dev", quote(name)]
    words += ["address", hw_addr] if hw_addr is not None else []
    words += ["mtu", str(mtu)] if mtu is not None else []
    words += (["master", quote(master)] if master else ["nomaster"]) if master is not None else []
    words += attribute_words(attributes)
    words += ["up" if up else "down"] if up is not None else []
    return " ".join(words)


def address_command(verb: str, device: str, address: Address) -> str:
    """Return the command that does `verb` (add, replace, del) to an address of a NIC."""
    words = [f"ip address {verb}", address.key, "dev", quote(device)]
    if verb != "del":
        words += [*["nodad"] * (not address.dad), *replace(address, opaque=()).words]
    return " ".join(words)


def address_words(address: Address) -> str:
    """Return an address as iproute2 shows it, with what no manifest can express."""
    return " ".join([address.key, *["nodad"] * (not address.dad), *address.words])


def await_command(device: str, address: Address) -> str:
    """Return a shell loop that waits until an IPv6 address is no longer tentative."""
    listing = f"ip -6 address show dev {quote(device)} tentative"
    return f"while {listing} | grep -qF ' {address.key} '; do sleep 0.1; done"


def route_command(verb: str, route: Route) -> str:
    """Return the command that does `verb` (add, replace, del) to a route of ours, or to one that the kernel derives."""
    # `default via inet6` alone would be IPv6.
    mixed = any(hop.gateway and ":" in hop.gateway for hop in route.nexthops)
    ip = "ip -6" if route.is_ipv6 else "ip -4" if mixed else "ip"
    protocol = "kernel" if route.protocol == PROTOCOL_KERNEL else route.protocol
    bare = replace(route, opaque=()) if route.opaque else route
    first, separator, hops = route_words(bare).partition(" nexthop ")
    return f"{ip} route {verb} {first} proto {protocol}{separator}{hops}"


def delete_route_command(route: Route) -> str:
    """Return the command that deletes a route of ours."""
    return route_command("del", identified(route))


def route_words(route: Route) -> str:
    """Return a route as iproute2 writes it, without `ip route` and protocol."""
    words = [] if route.type == "unicast" else [route.type]
    words.append("default" if route.dest in (DEFAULT_IPV4, DEFAULT_IPV6) else route.dest)
    words += [f"from {route.from_}"] if route.from_ else []
    words += [f"tos {route.tos:#x}"] if route.tos else []
    if len(route.nexthops) == 1:
        words.append(_hop_words(route.nexthops[0], ipv6=route.is_ipv6))
    # The table of a local route would be `local`.
    if route.table != TABLE_MAIN or route.type == "local":
        words.append(f"table {_TABLE_NAMES.get(route.table, route.table)}")
    if route.metric:
        words.append(f"metric {route.metric}")
    if route.source:
        words.append(f"src {route.source}")
    words += [f"scope {route.scope}"] if route.scope else []
    words += [f"mtu {'lock ' * route.mtu_lock}{route.mtu}"] if route.mtu else []
    words += [BY_FIELD[field].words(value) for field, value in route.metrics]
    words += [f"pref {route.pref}"] if route.pref != "medium" else []
    if len(route.nexthops) == 1:
        words += ["onlink"] * route.nexthops[0].on_link
    else:
        for hop in route.nexthops:
            words.append(
                f"nexthop {_hop_words(hop, ipv6=route.is_ipv6)} weight {hop.weight}{' onlink' if hop.on_link else ''}"
            )
    return " ".join([*words, *route.opaque])


def _hop_words(hop: NextHop, *, ipv6: bool) -> str:
    family = "inet6 " if hop.gateway and ":" in hop.gateway and not ipv6 else ""
    via = f"via {family}{hop.gateway} " if hop.gateway else ""
    return f"{via}dev {quote(hop.device)}"


def item_command(verb: str, item: Item) -> str:
    """Return the command that does `verb` (add, replace, del) to a rule or a neighbour of ours.

    A neighbour that comes takes the place of one that the kernel has learned.
    """
    if isinstance(item, Neighbour):
        verb = "replace" if verb == "add" else verb
        return f"ip neigh {verb} {item_words(item)}" + ("" if verb == "del" else f" protocol {item.protocol}")
    ip = "ip -6" if item.family == "ipv6" else "ip"
    return f"{ip} rule {verb} {item_words(item)} {protocol_words(item.protocol)}"


def protocol_words(number: int) -> str:
    """Return who made a route, a rule or a neighbour, as iproute2 writes it."""
    return f"protocol {_PROTOCOL_NAMES.get(number, number)}"


def item_words(item: Item) -> str:
    """Return a rule or a neighbour as iproute2 writes it, without `ip rule` or `ip neigh`, and protocol."""
    match item:
        case Rule():
            return _rule_words(item)
        case Neighbour():
            return _neighbour_words(item)
        case _:
            assert_never(item)


def _neighbour_words(neighbour: Neighbour) -> str:
    words = ["proxy", neighbour.address] if neighbour.proxy else [neighbour.address]
    words += ["lladdr", neighbour.hw_addr] if neighbour.hw_addr else []
    words += ["dev", quote(neighbour.device)]
    words += ["nud", "permanent"] if neighbour.permanent and not neighbour.proxy else []
    return " ".join([*words, *["router"] * neighbour.router, *neighbour.opaque])


def _rule_words(rule: Rule) -> str:
    words = ["not"] * rule.invert + [f"priority {rule.priority}", f"from {rule.from_ or 'all'}"]
    optional = (
        ("to", rule.to),
        ("tos", f"{rule.tos:#x}" if rule.tos else None),
        ("fwmark", rule.mark),
        ("iif", rule.iif and quote(rule.iif)),
        ("oif", rule.oif and quote(rule.oif)),
        ("uidrange", rule.uidrange and f"{rule.uidrange[0]}-{rule.uidrange[1]}"),
        ("ipproto", rule.ipproto or None),
        ("sport", rule.sport and range_text(rule.sport)),
        ("dport", rule.dport and range_text(rule.dport)),
    )
    words += [f"{name} {value}" for name, value in optional if value is not None]
    if rule.l3mdev:
        words.append("l3mdev")
    elif rule.action == "table":
        words.append(f"lookup {rule.table}")
    else:
        words.append(f"goto {rule.goto}" if rule.action == "goto" else rule.action)
    if rule.suppress_prefixlength != NO_SUPPRESSION:
        words.append(f"suppress_prefixlength {rule.suppress_prefixlength}")
    return " ".join([*words, *rule.opaque])
