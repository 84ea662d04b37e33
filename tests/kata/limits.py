"""What the command line of kata-runtime cannot say or tell, as docs/kata.md has it: where the shared tests differ.

A manifest with such a thing is refused by `validate`; each test that is about one sees to that instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reconciler.model.address import network

Data = dict[str, Any]

ROUTE = (
    *("table", "metric", "source", "mtu", "onLink", "nexthops", "type", "scope", "pref", "tos", "mtuLock", "advmss"),
    *("window", "hoplimit", "initcwnd", "initrwnd", "rtoMin", "quickack", "congctl", "features"),
)
# There are no commands for these at all.
SECTIONS = ("neighbours", "rules")
SCHEDULERS = ("mh", "fo", "ovf", "twos")
SERVICE = ("sctp", "fwmark", "schedulerFlags", "netmask", "persistenceEngine", "onePacket")
SERVER = ("upperThreshold", "lowerThreshold")
# The same in rules of ipvsadm: options, and the names of schedulers.
OPTIONS = ("--sctp-service", "-f", "-b", "-M", "--pe", "-o", "-i", "-x", "-y", *SCHEDULERS)


def addresses(listed: Sequence[Any]) -> list[str]:
    """Give what an interface can have of addresses: the first, with duplicate address detection."""
    return [each["address"] if isinstance(each, dict) else each for each in listed[:1]]


def refusals(sections: Data) -> list[str]:
    """Return the fields of interfaces and routes that are refused, and the other sections."""
    interfaces, routes = sections.get("interfaces", ()), sections.get("routes", ())
    given = [address for each in interfaces for address in addresses(each["addresses"])]
    connected = {network(address) for address in given if not address.endswith("/32")}
    whole = [section for section in SECTIONS if sections.get(section)]
    return [*_of_interfaces(interfaces), *_of_routes(routes, connected), *whole]


def _of_interfaces(interfaces: Sequence[Data]) -> Iterator[str]:
    for index, each in enumerate(interfaces):
        if each["addresses"] != addresses(each["addresses"]):
            yield f"interfaces[{index}].addresses"


def _of_routes(routes: Sequence[Data], connected: set[str]) -> Iterator[str]:
    for index, each in enumerate(routes):
        if each["dest"] in connected:
            yield f"routes[{index}].dest"
        yield from (f"routes[{index}].{field}" for field in ROUTE if field in each)


def services(table: Sequence[Data]) -> list[Data]:
    """Leave out services and servers that cannot be said."""
    return [
        each | {"servers": [server for server in each.get("servers", ()) if is_server(server)]}
        for each in table
        if is_service(each)
    ]


def is_service(data: Data) -> bool:
    """Tell whether a service can be said, but for its servers."""
    return not data.keys() & {*SERVICE} and data.get("scheduler") not in SCHEDULERS


def is_server(data: Data) -> bool:
    """Tell whether a server can be said."""
    return not data.keys() & {*SERVER} and data.get("forward") != "tunnel"


def lines(rules: Sequence[str]) -> list[str]:
    """Leave out rules that cannot be said, and the servers of such services."""
    kept: list[str] = []
    gone: set[str] = set()
    for line in rules:
        verb, kind, place, *_ = line.split()
        if verb == "-A" and {*line.split()} & {*OPTIONS}:
            gone.add(f"{kind} {place}")
        elif f"{kind} {place}" not in gone and not {*line.split()} & {*OPTIONS}:
            kept.append(line)
    return kept
