"""The kernel's listing of its IPVS table, a file: all servers at once, where netlink takes a dump for each service.

Source: net/netfilter/ipvs/ip_vs_ctl.c (ip_vs_info_seq_show). It shows a server's address, forward and weight, and neither
its thresholds nor its tunnel; and of a firewall mark not the family. So it only tells where all is as desired.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from reconciler.model.address import is_ipv6
from reconciler.model.ipvs import FWMARK, Server, Service, ServiceKey

# Lines of headings.
_HEAD = 3
# Of a server: an arrow, its place, its forward, its weight, and two counts of connections.
_SERVER_PARTS = 6
# A tunnel has a kind and a port, which are not shown.
_FORWARDS = {"nat": "Masq", "dr": "Route"}


def order(listing: str) -> dict[str, int]:
    """Give the place of each service, as `words` names it, in the kernel's own table."""
    return {service: number for number, service in enumerate(_read(listing))}


def words(key: ServiceKey) -> str:
    """Say how a service is listed; all of one firewall mark alike."""
    protocol, address, port = key
    return f"FWM {port:08X}" if protocol == FWMARK else f"{protocol.upper()} {place(address, port)}"


def heading(listing: str) -> str:
    """Give the first line: the version of IPVS and the size of its table of connections."""
    return listing.partition("\n")[0]


def connections(listing: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Give the active and the other connections of each server: by its service, as `words` has it, and its `place`."""
    found = {}
    service = ""
    for line in listing.splitlines()[_HEAD:]:
        parts = line.split()
        if parts[:1] != ["->"]:
            service = " ".join(parts[:2])
        elif len(parts) >= _SERVER_PARTS and parts[4].isdecimal() and parts[5].isdecimal():
            found[service, parts[1]] = int(parts[4]), int(parts[5])
    return found


def agreeing(listing: str, services: Iterable[Service]) -> list[Service]:
    """Give the services whose servers are listed just as desired, and say nothing that a listing does not show."""
    listed = _read(listing)
    return [
        service
        for service in services
        if service.protocol != FWMARK
        and (found := listed.get(words(service.key))) is not None
        and len(found) == len(service.servers)
        and set(found) == set(map(_server_words, service.servers))
    ]


def _read(listing: str) -> dict[str, list[str]]:
    """Read the servers of each service: what a line says before its counts of connections."""
    found: dict[str, list[str]] = {}
    servers: list[str] = []
    for line in listing.splitlines()[_HEAD:]:
        words = line.split()
        if words[:1] == ["->"]:
            servers.append(" ".join(words[1:4]))
        else:
            servers = found.setdefault(" ".join(words[:2]), [])
    return found


def _server_words(server: Server) -> str:
    """Give the words of a server; none that are ever listed if it has what they do not show."""
    if server.forward not in _FORWARDS or server.upper_threshold or server.lower_threshold:
        return ""
    return f"{place(server.address, server.port)} {_FORWARDS[server.forward]} {server.weight}"


def place(address: str, port: int) -> str:
    """Say how an address and a port are listed."""
    if not is_ipv6(address):
        return f"{socket.inet_aton(address).hex().upper()}:{port:04X}"
    digits = socket.inet_pton(socket.AF_INET6, address).hex(":", 2)
    return f"[{digits}]:{port:04X}"
