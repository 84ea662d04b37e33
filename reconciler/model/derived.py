"""What the kernel derives from the addresses and the link of a NIC: connected routes, and entries of the table `local`.

It does so when an address or a link changes, and never again: what another program deletes stays away. A NIC that is
down has but the entries of its addresses, and packets still come to these on other NICs, and from the sandbox itself.
Source: net/ipv4/fib_frontend.c (fib_add_ifaddr), net/ipv6/addrconf.c (addrconf_prefix_route, addrconf_add_mroute).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from reconciler.model.address import contains, is_ipv6, last_address, network
from reconciler.model.interface import Address, Interface, LinkState
from reconciler.model.route import (
    IPV6_CONNECTED_METRIC,
    PROTOCOL_KERNEL,
    TABLE_LOCAL,
    TABLE_MAIN,
    NextHop,
    Route,
    connected_key,
)
from reconciler.values import replace

LINK_LOCAL = "fe80::/10"
_MULTICAST = "ff00::/8"


def connected_routes(name: str, addresses: Iterable[Address]) -> Iterator[Route]:
    """Yield the routes of the table `main` that the kernel adds for addresses of the NIC `name`, one for each network.

    For IPv4, its source is the first address of the network, which also decides about its metric and whether there is
    one; a host address has none. For IPv6, there is one for each metric, and one to each peer.
    """
    seen = set()
    for address in addresses:
        ipv6, connected = is_ipv6(address.address), address.connected
        for subnet in address.networks:
            table, dest, metric, _, _ = connected_key(subnet, address.metric)
            place = (dest, metric) if ipv6 else dest
            is_made = dest in connected and (ipv6 or dest != f"{address.host}/32") and not dest.startswith("0.")
            if is_made and place not in seen:
                yield _direct(name, dest, table=table, metric=metric, source=None if ipv6 else address.host)
            if is_made or not ipv6:
                seen.add(place)


def derived_routes(nic: Interface, state: LinkState, managed: Iterable[str]) -> Iterator[Route]:
    """Return all routes that the kernel adds for a NIC, except the local ones of IPv6: see `local_route`.

    `managed`: the addresses of the NIC that the kernel manages. The routes of a network that has such an address, for
    example from a router advertisement, may have its source or its lifetime: they are left out.
    """
    # The one to the peer of an IPv6 address comes after its duplicate address detection.
    settled = (
        replace(each, peer=None) if each.peer and each.address in state.unsettled else each for each in nic.addresses
    )
    found = _derived(nic.name, tuple(settled), tuple(managed), ipv6=state.ipv6)
    there = (each for each in found if nic.up or each.type == "local")
    return there if not state.table else (replace(each, table=state.table) for each in there)


# The plan, the verification and the warnings of one look each ask for them.
@lru_cache(maxsize=256)
def _derived(name: str, addresses: Sequence[Address], managed: Sequence[str], *, ipv6: bool) -> tuple[Route, ...]:
    shared = {network(each) for each in managed}
    alone = [each for each in addresses if each.subnet not in shared]
    found = [*_ipv4_entries(name, alone), *connected_routes(name, alone)]
    if ipv6:
        found.append(_direct(name, _MULTICAST, kind="multicast", table=TABLE_LOCAL, metric=IPV6_CONNECTED_METRIC))
        local = filter(is_link_local, managed)
        found += (_direct(name, network(each), metric=IPV6_CONNECTED_METRIC) for each in local)
    # An address that has several peers has one entry of the table `local`.
    return tuple(dict.fromkeys(found))


def _ipv4_entries(name: str, addresses: Iterable[Address]) -> Iterator[Route]:
    primaries: dict[str, str] = {}
    for address in addresses:
        if is_ipv6(address.address):
            continue
        subnet = address.subnet
        is_first = subnet not in primaries
        primary = primaries.setdefault(subnet, address.host)
        yield _direct(name, f"{address.host}/32", kind="local", table=TABLE_LOCAL, source=primary)
        if is_first and int(subnet.partition("/")[2]) < 31:
            last = f"{last_address(subnet)}/32"
            yield _direct(name, last, kind="broadcast", table=TABLE_LOCAL, source=primary)


def local_route(name: str, host: str, table: int = 0) -> Route:
    """Return the entry of the table `local` without which an IPv6 address of a NIC is no address of the sandbox.

    `table`: that of the VRF that the NIC belongs to, or 0.
    """
    return _direct(name, f"{host}/128", kind="local", table=table or TABLE_LOCAL)


def is_link_local(address: str) -> bool:
    """Return whether an address, with or without its length, is link-local."""
    return contains(LINK_LOCAL, address.partition("/")[0])


def _direct(
    name: str, dest: str, *, kind: str = "unicast", table: int = TABLE_MAIN, metric: int = 0, source: str | None = None
) -> Route:
    hops = (NextHop(device=name),)
    return Route(
        dest=dest, type=kind, nexthops=hops, table=table, metric=metric, source=source, protocol=PROTOCOL_KERNEL
    )
