"""Checks for what kata-runtime cannot set or report. The manifest is refused, with the reason."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.manifest.route import attributes
from reconciler.manifest.sandbox import Draft
from reconciler.manifest.schema import Finding
from reconciler.model.interface import Interface
from reconciler.model.ipvs import LEAVE_TIMEOUTS, Ipvs, Server, Service
from reconciler.model.route import Route, connected_key

# The schedulers that the documentation of kata-runtime names.
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq")


def check(draft: Draft) -> Iterator[Finding]:
    """Check those parts of a manifest that could be read."""
    for index, interface in enumerate(draft.interfaces or ()):
        for field, message in _of_interface(interface) if interface else ():
            yield Finding(("interfaces", index, field), message)
    addresses = [address for each in draft.interfaces or () if each for address in each.addresses]
    connected = {connected_key(each.address) for each in addresses if not each.address.endswith("/32")}
    for index, route in enumerate(draft.routes or ()):
        if route and route.key in connected:
            message = (
                "the kernel adds this route by itself for the interface's address, and kata-runtime does not list it"
            )
            yield Finding(("routes", index, "dest"), f"{message}; remove it from the manifest")
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
        yield "addresses", "kata-runtime supports only one address per interface"
    if not all(address.dad for address in interface.addresses):
        yield "addresses", "kata-runtime cannot skip duplicate address detection"


def _of_route(route: Route) -> Iterator[tuple[str, str]]:
    if route.type != "unicast":
        yield "type", f"kata-runtime does not support {route.type} routes"
    if len(route.nexthops) > 1:
        yield "nexthops", "kata-runtime supports only one next hop per route"
    if any(hop.on_link for hop in route.nexthops):
        yield "onLink", "kata-runtime cannot set onLink"
    for field in attributes(route):
        yield field, f"kata-runtime cannot set {field}"


def _of_table(ipvs: Ipvs) -> Iterator[tuple[str, str]]:
    if ipvs.timeouts != LEAVE_TIMEOUTS:
        reason = "kata-runtime cannot report timeouts, so they could not be verified"
        yield "timeouts", f"{reason}; set them by hand: kata-ipvs ipvsadm --set"
    if ipvs.sysctls:
        yield "sysctls", "kata-runtime cannot set sysctls"
    if ipvs.drain:
        yield "drain", "kata-runtime cannot report how many connections a server still has"


def _of_service(service: Service) -> Iterator[tuple[str, str]]:
    if service.protocol not in {"tcp", "udp"}:
        yield service.protocol, "kata-runtime supports only TCP and UDP services"
    if service.scheduler not in SCHEDULERS:
        yield (
            "scheduler",
            f"kata-runtime does not support {service.scheduler}; expected one of: {', '.join(SCHEDULERS)}",
        )
    for field, value in (
        ("schedulerFlags", service.scheduler_flags),
        ("netmask", service.netmask),
        ("persistenceEngine", service.persistence_engine),
        ("onePacket", service.one_packet),
    ):
        if value:
            yield field, f"kata-runtime cannot set {field}"


def _of_server(server: Server) -> Iterator[tuple[str, str]]:
    if server.forward == "tunnel":
        yield "forward", "kata-runtime cannot report the type of a tunnel"
    for field, value in (("upperThreshold", server.upper_threshold), ("lowerThreshold", server.lower_threshold)):
        if value:
            yield field, f"kata-runtime cannot report {field}"
