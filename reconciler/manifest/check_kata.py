"""Checks for what kata-runtime cannot set or report. The manifest is refused, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.manifest.finding import Finding
from reconciler.model.interface import Interface
from reconciler.model.route import Route, connected_key

# The fields of a route that the JSON of kata-network has, and why some of the others are refused.
_ROUTE_FIELDS = ("dest", "gateway", "device")
_ROUTE_REASONS = {
    "type": "kata-runtime does not support {type} routes",
    "nexthops": "kata-runtime supports only one next hop per route",
}


def interfaces(items: Sequence[Interface | None]) -> Iterator[Finding]:
    """Check those interfaces that could be read."""
    for index, interface in enumerate(items):
        for field, message in _of_interface(interface) if interface else ():
            yield Finding(("interfaces", index, field), message)


def routes(
    items: Sequence[Route | None], written: Sequence[Mapping[str, Any]], nics: Sequence[Interface | None]
) -> Iterator[Finding]:
    """Check routes as far as they could be read; `written` is how a manifest says each of them, defaults left out."""
    addresses = [address for each in nics if each for address in each.addresses]
    connected = {connected_key(each.address) for each in addresses if not each.address.endswith("/32")}
    for index, route in enumerate(items):
        if route and route.key in connected:
            message = (
                "the kernel adds this route by itself for the interface's address, and kata-runtime does not list it"
            )
            yield Finding(("routes", index, "dest"), f"{message}; remove it from the manifest")
        for field in written[index]:
            if field not in _ROUTE_FIELDS:
                reason = _ROUTE_REASONS.get(field, f"kata-runtime cannot set {field}")
                yield Finding(("routes", index, field), reason.format(**written[index]))


def _of_interface(interface: Interface) -> Iterator[tuple[str, str]]:
    if interface.made:
        yield interface.made.kind, "kata-runtime cannot make interfaces in the sandbox; give it a device of the host"
    if interface.master:
        yield "master", "kata-runtime cannot make an interface a port of another one"
    if len(interface.addresses) > 1:
        yield "addresses", "kata-runtime supports only one address per interface"
    if not all(address.dad for address in interface.addresses):
        yield "addresses", "kata-runtime cannot skip duplicate address detection"
    if any(address.words or address.peer for address in interface.addresses):
        yield "addresses", "kata-runtime cannot set anything of an address but the address itself"
    if not interface.up:
        yield "state", "kata-runtime cannot set an interface down"
    if interface.sysctls:
        yield "sysctls", "kata-runtime cannot set sysctls"
    if interface.altnames is not None:
        yield "altnames", "kata-runtime cannot set altnames"
    for field, _ in interface.attributes:
        yield field, f"kata-runtime cannot set {field}"
