"""Routes and rules, in sandboxes and on the host, and the filter of senders that depends on them."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.doctor.facts import Network
from reconciler.doctor.registry import Check, Hit
from reconciler.doctor.scene import Scene
from reconciler.doctor.words import command, run, set_sysctl, six, within
from reconciler.formats.iproute2 import item_words, route_words
from reconciler.model.address import contains, is_ipv6
from reconciler.model.derived import is_link_local
from reconciler.model.interface import LOOPBACK
from reconciler.model.lookup import REJECTED, Lookup
from reconciler.model.route import PROTOCOL_KERNEL, TABLE_MAIN, Route
from reconciler.model.rule import KERNEL_TABLES

# rp_filter: an answer to the sender must leave through the link that its packet came in by.
_STRICT = 1
# Routes of a manifest that are looked up.
_MOST = 500


def _unread(scene: Scene) -> Iterator[Hit]:
    """Yield tables with routes that no rule looks up."""
    for about, box, network in scene.everywhere:
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
                mend = run(box, "ip", *six(table[0]), "rule", "add", "from", "all", "lookup", str(route.table))
                yield Hit(about, words, f"{mend}    # or with the selector that was meant")


def _empty(scene: Scene) -> Iterator[Hit]:
    """Yield rules that look up a table without a route."""
    for about, box, network in scene.everywhere:
        filled = {("ipv6" if route.is_ipv6 else "ipv4", route.table) for route in network.routes}
        for rule in network.rules:
            lookup = rule.action == "table" and rule.table and rule.table not in KERNEL_TABLES
            if lookup and (rule.family, rule.table) not in filled:
                words = f"the rule `{item_words(rule)}` looks up table {rule.table}, which has no route"
                yield Hit(about, words, run(box, "ip", *six(rule.family), "route", "show", "table", str(rule.table)))


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
                mend = within(box, "ip", *six("ipv6" if route.is_ipv6 else ""), "route", "del", *_identity(route))
                yield Hit(box.id, words, mend)
        rules = set(box.sandbox.rules or ())
        for rule in network.rules:
            if rule.action in REJECTED and rule not in rules:
                words = f"{box.id} rejects packets by a rule, which its manifest does not have: {item_words(rule)}"
                yield Hit(box.id, words, within(box, "ip", *six(rule.family), "rule", "del", *item_words(rule).split()))


def _identity(route: Route) -> list[str]:
    words = [] if route.type == "unicast" else [route.type]
    words.append(route.dest)
    words += ["tos", f"{route.tos:#x}"] if route.tos else []
    words += ["metric", str(route.metric)] if route.metric else []
    return [*words, "table", str(route.table)]


def _asymmetric(scene: Scene) -> Iterator[Hit]:
    """Yield links whose strict filter drops packets that come in there, as answers to them would leave elsewhere."""
    for about, box, network in scene.everywhere:
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
    beyond = lookup.sample(route.dest)
    for address in network.of(link):
        if is_ipv6(address.address) or beyond is None or beyond in network.hosts:
            continue
        back = lookup.route(beyond, address.host)
        if back is not None and link not in back.devices:
            return ", ".join(sorted(back.devices)) or back.type
    return None


def _shadowed(scene: Scene) -> Iterator[Hit]:
    """Yield routes of manifests that are there, while their packets take other ones, or none."""
    for box, network in scene.seen:
        wanted = [each for each in box.sandbox.routes or () if each.type == "unicast" and each.table == TABLE_MAIN]
        there = {(each.dest, each.table, each.nexthops) for each in network.routes}
        mine = {(each.dest, each.table, each.nexthops) for each in box.sandbox.routes or ()}
        lookup = scene.lookup(network)
        for route in wanted[:_MOST]:
            to = lookup.sample(route.dest)
            if to is None or to in network.hosts or (route.dest, route.table, route.nexthops) not in there:
                continue
            own = (a.host for d in sorted(route.devices) for a in network.of(d) if is_ipv6(a.host) == route.is_ipv6)
            found = lookup.route(to, next((each for each in own if not is_link_local(each)), None))
            if found is None or (found.dest, found.table, found.nexthops) not in mine:
                takes = f"take {route_words(found)}" if found else "find no route, as no rule looks up table main"
                words = f"packets to {route.dest} in {box.id} {takes}, not {route_words(route)}"
                yield Hit(box.id, words, within(box, "ip", *six("ipv6" if route.is_ipv6 else ""), "rule", "show"))
                break


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
            if is_link_local(address.address) or address.host in network.hosts:
                continue
            route = scene.lookup(network).route(address.host)
            if not covered and (route is None or route.type not in REJECTED):
                continue
            if route is None or (entry.name not in route.devices):
                way_there = f"takes {route_words(route)}" if route else "has no route there"
                words = f"{address.host} of {way.box.id} is on {entry.name} of the host, which {way_there}"
                yield Hit(way.box.id, words, _straighten(address.host, route))


def _straighten(address: str, route: Route | None) -> str:
    """Return the command that deletes a route to one host, or one that rejects; a larger one has other purposes."""
    option = six("ipv6" if is_ipv6(address) else "")
    if route and (route.type in REJECTED or route.dest.partition("/")[0] == address):
        return command("ip", *option, "route", "del", *_identity(route))
    return command("ip", *option, "route", "get", address)


CHECKS = (
    Check(
        "route-shadowed", "Packets leave by another way, or not at all.", "Delete what is in front of it.", _shadowed
    ),
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
)
