"""The kernel's listing of its IPVS table: a file with all servers, whereas netlink needs a dump for each service.

Source: net/netfilter/ipvs/ip_vs_ctl.c (ip_vs_info_seq_show). The listing has the address, forward and weight of a
server, but not its thresholds or its tunnel, and not the family of a firewall mark. It lists every forward without a
word of its own as Masq. So it can only confirm what is as desired, and not that nobody has set such a forward.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from reconciler.model.address import is_ipv6
from reconciler.model.ipvs import FWMARK, PROTOCOLS, Server, Service, ServiceKey

# The number of lines of headings.
_HEAD = 3
# The words of a server: an arrow, its place, its forward, its weight, and two counts of connections.
_SERVER_PARTS = 6
_DIGITS = 10
# A tunnel has a kind and a port, which the listing lacks.
_FORWARDS = {"nat": "Masq", "dr": "Route"}
# ip_vs_proto_name: the protocols without a name in the model that the kernel lists by a name.
_PROTOCOLS = {"0": "IP", "1": "ICMP", "58": "ICMPv6"}


def order(listing: str) -> dict[str, int]:
    """Return the position of each service, by its `words`, in the kernel's own table."""
    return {service: number for number, service in enumerate(_read(listing))}


def words(key: ServiceKey) -> str:
    """Return how a service is listed. Both families of a firewall mark are listed alike."""
    protocol, address, port = key
    if protocol == FWMARK:
        return f"FWM {port:08X}"
    name = protocol.upper() if protocol in PROTOCOLS else _PROTOCOLS.get(protocol, f"IP_{protocol}")
    return f"{name} {place(address, port)}"


def heading(listing: str) -> str:
    """Return the first line: the version of IPVS and the size of its table of connections."""
    return listing.partition("\n")[0]


def connections(listing: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the active and the inactive connections of each server, by the `words` of its service and its `place`."""
    found = {}
    service = ""
    for line in listing.splitlines()[_HEAD:]:
        parts = line.split()
        if parts[:1] != ["->"]:
            service = " ".join(parts[:2])
        elif len(parts) >= _SERVER_PARTS and _is_count(parts[4]) and _is_count(parts[5]):
            found[service, parts[1]] = int(parts[4]), int(parts[5])
    return found


def _is_count(word: str) -> bool:
    """Return whether a word is a number of 32 bits: a hostile guest may list others."""
    return word.isdecimal() and len(word) <= _DIGITS


def agreeing(listing: str, services: Iterable[Service]) -> list[Service]:
    """Return the services whose servers are listed just as desired and have no field that the listing lacks."""
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
    """Read the servers of each service: their lines without the counts of connections."""
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
    """Return how a server is listed; a text that no listing has if the server has fields that the listing lacks."""
    if server.forward not in _FORWARDS or server.upper_threshold or server.lower_threshold:
        return ""
    return f"{place(server.address, server.port)} {_FORWARDS[server.forward]} {server.weight}"


def place(address: str, port: int) -> str:
    """Return how an address and a port are listed."""
    if not is_ipv6(address):
        return f"{socket.inet_aton(address).hex().upper()}:{port:04X}"
    digits = socket.inet_pton(socket.AF_INET6, address).hex(":", 2)
    return f"[{digits}]:{port:04X}"
