"""Services of IPVS, and whether their servers can be reached."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.doctor.facts import UNANSWERED, Box, Network
from reconciler.doctor.registry import Check, Hit
from reconciler.doctor.scene import Scene
from reconciler.doctor.words import apply, diff, listed, set_sysctl, within
from reconciler.manifest.service import name
from reconciler.manifest.warn import ipvs as warn
from reconciler.model.address import contains, is_ipv6
from reconciler.model.ipvs import FWMARK, Ipvs, Service
from reconciler.model.lookup import REJECTED

_PREFIX = "net.ipv4.vs."


def _observed(scene: Scene) -> Iterator[tuple[Box, Network, list[Service]]]:
    """Yield the sandboxes with services, whoever made them."""
    for box, network in scene.seen:
        if box.observed and box.observed.sandbox.ipvs:
            services = [*(box.observed.sandbox.ipvs.services or ()), *box.observed.around.services]
            if services:
                yield box, network, services


def _unloaded(scene: Scene) -> Iterator[Hit]:
    for box in scene.boxes:
        wanted = box.sandbox.ipvs
        if box.ipvs is False and wanted not in (None, Ipvs()):
            count = len(wanted.services or ()) if wanted else 0
            words = f"IPVS is not loaded in {box.id}, so none of the {count:,} services of {box.file} is there"
            yield Hit(box.id, words, apply(box))


def _scheduler(scene: Scene) -> Iterator[Hit]:
    for box in scene.boxes:
        if box.modules is None or box.sandbox.ipvs is None:
            continue
        services = box.sandbox.ipvs.services or ()
        for scheduler, module in sorted({(each.scheduler, each.scheduler_module) for each in services}):
            if module and module not in box.modules:
                words = f"the kernel of {box.id} has no scheduler {scheduler}: its module {module} is missing"
                yield Hit(box.id, words, within(box, "modprobe", module))


def _not_local(scene: Scene) -> Iterator[Hit]:
    for box, network, services in _observed(scene):
        local = {address.host for address in network.addresses}
        local |= {route.dest.partition("/")[0] for route in network.routes if route.type == "local"}
        networks = [route.dest for route in network.routes if route.type == "local"]
        for each in services:
            if each.protocol == FWMARK or each.address in local or any(contains(n, each.address) for n in networks):
                continue
            length = 128 if is_ipv6(each.address) else 32
            words = f"{each.address}, the address of {name(each)}, is not local in {box.id}"
            yield Hit(box.id, words, within(box, "ip", "address", "add", f"{each.address}/{length}", "dev", "lo"))


def _unrouted(scene: Scene) -> Iterator[Hit]:
    for box, network, services in _observed(scene):
        lookup, local = scene.lookup(network), network.hosts
        lacking: dict[str, str] = {}
        for each in services:
            for server in each.servers:
                if server.address in lacking or server.address in local:
                    continue
                route = lookup.route(server.address)
                if route is None or route.type in REJECTED:
                    lacking[server.address] = name(each)
        if lacking:
            first, service = next(iter(lacking.items()))
            more = f" (and to {len(lacking) - 1:,} more servers)" if len(lacking) > 1 else ""
            words = f"{box.id} has no route to {first}, a server of {service}{more}"
            yield Hit(box.id, words, within(box, "ip", "route", "get", first))


def _unanswered(scene: Scene) -> Iterator[Hit]:
    for box, network, services in _observed(scene):
        servers = {server.address for each in services for server in each.servers}
        silent = sorted(e.address for e in network.neighbours if e.state in UNANSWERED and e.address in servers)
        if silent:
            words = f"servers do not answer on the link of {box.id}: {listed(silent)}"
            yield Hit(box.id, words, within(box, "ip", "neighbour", "show", "to", silent[0]))


def _no_servers(scene: Scene) -> Iterator[Hit]:
    for box, _, services in _observed(scene):
        empty = [name(each) for each in services if not each.servers]
        if empty:
            yield Hit(box.id, f"services of {box.id} have no servers: {listed(empty)}", diff(box))


def _no_weight(scene: Scene) -> Iterator[Hit]:
    for box, _, services in _observed(scene):
        idle = [name(each) for each in services if each.servers and not any(s.weight for s in each.servers)]
        if idle:
            yield Hit(box.id, f"all servers have weight 0 in {box.id}: {listed(idle)}", diff(box))


def _forwarding(scene: Scene) -> Iterator[Hit]:
    for box, network, services in _observed(scene):
        for family, sysctl in (("ipv4", "net.ipv4.ip_forward"), ("ipv6", "net.ipv6.conf.all.forwarding")):
            nat = [
                s for s in services if s.is_ipv6 == (family == "ipv6") and any(x.forward == "nat" for x in s.servers)
            ]
            remote = [s for s in nat if any(x.address not in network.hosts for x in s.servers)]
            if remote and network.number(sysctl) == 0:
                words = f"{box.id} forwards nothing ({sysctl} is 0), and {name(remote[0])} forwards by nat"
                yield Hit(box.id, words, set_sysctl(box, sysctl, 1))


def _drops(scene: Scene) -> Iterator[Hit]:
    for box, _ in scene.seen:
        ipvs = box.observed.sandbox.ipvs if box.observed else None
        wanted = dict(box.sandbox.ipvs.sysctls) if box.sandbox.ipvs else {}
        for setting, value in ipvs.sysctls if ipvs else ():
            if setting in {"drop_entry", "drop_packet", "secure_tcp"} and value and setting not in wanted:
                words = f"IPVS of {box.id} drops on purpose: {setting} is {value}"
                yield Hit(box.id, words, set_sysctl(box, f"{_PREFIX}{setting}", 0))


def _warnings(scene: Scene) -> Iterator[Hit]:
    # Those of the network itself have checks of their own, whoever made the services.
    own = ("no servers", "all weights of", "is not an address", "ip_forward", "forwarding")
    for box in scene.boxes:
        if box.manifest and box.observed and box.ipvs:
            for each in warn.warnings(box.sandbox, box.observed.around):
                if not any(words in each.message for words in own):
                    yield Hit(box.id, each.message, diff(box))


CHECKS = (
    Check("ipvs-unloaded", "Clients of all services are refused.", "Apply the manifest, which loads it.", _unloaded),
    Check("scheduler-missing", "The services that need it cannot be added.", "Install the module.", _scheduler),
    Check("vip-not-local", "The kernel gives no packet to the service.", "Add the address.", _not_local),
    Check("server-unrouted", "Connections that get this server fail.", "Add a route.", _unrouted),
    Check("server-silent", "Connections that get these servers hang.", "Find out why they do not answer.", _unanswered),
    Check("service-empty", "Clients are refused.", "Add servers.", _no_servers),
    Check("service-idle", "New connections get no server.", "Set a weight.", _no_weight),
    Check(
        "ipvs-forwarding", "Packets to servers and their answers are dropped.", "Let the sandbox forward.", _forwarding
    ),
    Check("ipvs-drops", "Some packets or connections are dropped at random.", "Set it to 0.", _drops),
    Check("ipvs-doubtful", "The service can hardly work as it is.", "See the text.", _warnings),
)
