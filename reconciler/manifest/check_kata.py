"""What a manifest says and the command line of kata-runtime cannot: it is refused, with the reason."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.manifest.route import attributes
from reconciler.manifest.sandbox import Draft
from reconciler.manifest.schema import Finding
from reconciler.model.interface import Interface
from reconciler.model.ipvs import LEAVE_TIMEOUTS, Ipvs, Server, Service
from reconciler.model.route import Route, connected_key

# The schedulers that its documentation names.
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq")


def check(draft: Draft) -> Iterator[Finding]:
    """Check a manifest as far as it could be read."""
    for index, interface in enumerate(draft.interfaces or ()):
        for field, message in _of_interface(interface) if interface else ():
            yield Finding(("interfaces", index, field), message)
    addresses = [address for each in draft.interfaces or () if each for address in each.addresses]
    connected = {connected_key(each.address) for each in addresses if not each.address.endswith("/32")}
    for index, route in enumerate(draft.routes or ()):
        if route and route.key in connected:
            message = "the kernel gives this route with the interface's address, and kata-runtime does not tell it; leave it out"
            yield Finding(("routes", index, "dest"), message)
        for field, message in _of_route(route) if route else ():
            yield Finding(("routes", index, field), message)
    if draft.ipvs is None:
        return
    for field, message in _of_table(draft.ipvs.ipvs):
        yield Finding(("ipvs", field), message)
    for index, service in enumerate(draft.ipvs.services):
        for field, message in _of_service(service) if service else ():
            yield Finding(("ipvs", "services", index, field), message)
        for number, server in enumerate(service.servers if service else ()):
            for field, message in _of_server(server):
                yield Finding(("ipvs", "services", index, "servers", number, field), message)


def _of_interface(interface: Interface) -> Iterator[tuple[str, str]]:
    if len(interface.addresses) > 1:
        yield "addresses", "kata-runtime gives an interface one address"
    if not all(address.dad for address in interface.addresses):
        yield "addresses", "kata-runtime cannot leave out duplicate address detection"


def _of_route(route: Route) -> Iterator[tuple[str, str]]:
    if route.type != "unicast":
        yield "type", f"kata-runtime has no {route.type} routes"
    if len(route.nexthops) > 1:
        yield "nexthops", "kata-runtime gives a route one next hop"
    if any(hop.on_link for hop in route.nexthops):
        yield "onLink", "kata-runtime cannot set it"
    for field in attributes(route):
        yield field, "kata-runtime cannot set it"


def _of_table(ipvs: Ipvs) -> Iterator[tuple[str, str]]:
    if ipvs.timeouts != LEAVE_TIMEOUTS:
        yield "timeouts", "kata-runtime can set them and not tell them; set them by hand: kata-ipvs ipvsadm --set"
    if ipvs.sysctls:
        yield "sysctls", "kata-runtime cannot set them"
    if ipvs.drain:
        yield "drain", "kata-runtime cannot tell how many connections a server has left"


def _of_service(service: Service) -> Iterator[tuple[str, str]]:
    if service.protocol not in {"tcp", "udp"}:
        yield service.protocol, "kata-runtime has services of TCP and UDP only"
    if service.scheduler not in SCHEDULERS:
        yield "scheduler", f"kata-runtime has no {service.scheduler}; expected one of: {', '.join(SCHEDULERS)}"
    for field, value in (
        ("schedulerFlags", service.scheduler_flags),
        ("netmask", service.netmask),
        ("persistenceEngine", service.persistence_engine),
        ("onePacket", service.one_packet),
    ):
        if value:
            yield field, "kata-runtime cannot set it"


def _of_server(server: Server) -> Iterator[tuple[str, str]]:
    if server.forward == "tunnel":
        yield "forward", "kata-runtime does not tell the type of a tunnel"
    for field, value in (("upperThreshold", server.upper_threshold), ("lowerThreshold", server.lower_threshold)):
        if value:
            yield field, "kata-runtime does not tell it"
