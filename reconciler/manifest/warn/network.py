"""Warnings about links, about routes that no packet can take, and about sysctls without an effect."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.manifest.finding import Finding, Path
from reconciler.model.address import family_name
from reconciler.model.interface import LOOPBACK
from reconciler.model.rule import KERNEL_TABLES
from reconciler.model.sandbox import NetnsAddress, Sandbox, Surroundings
from reconciler.model.sysctl import IP_FORWARD6

_NO_CARRIER = {"veth": "its peer is down", "tun": "no process uses it"}


def warnings(sandbox: Sandbox, around: Surroundings) -> Iterator[Finding]:
    """Yield the warnings about the network of a sandbox."""
    if not around.loopback:
        yield _loopback(sandbox)
    yield from _links(sandbox, around)
    yield from _gateways(sandbox, around)
    yield from _tables(sandbox, around)
    yield from _advertisements(sandbox)


def _loopback(sandbox: Sandbox) -> Finding:
    """Return the warning at the first route that needs `lo`; what a sandbox sends to itself always does."""
    routes = enumerate(sandbox.routes or ())
    paths: Iterator[Path] = (("routes", index, "device") for index, route in routes if LOOPBACK in route.devices)
    name = sandbox.driver.shell_word if isinstance(sandbox.driver, NetnsAddress) else None
    how = f"ip -n {name} link set lo up" if name and "/" not in name else "set it up"
    message = f"lo is down in the sandbox, so nothing there reaches its own addresses, such as 127.0.0.1; {how}"
    return Finding(next(paths, ("driver",)), message)


def _links(sandbox: Sandbox, around: Surroundings) -> Iterator[Finding]:
    taps = around.machine.taps if around.machine else {}
    for index, interface in enumerate(sandbox.interfaces or ()):
        device, path = interface.device, ("interfaces", index, interface.made.kind if interface.made else "device")
        tap = taps.get(device)
        if tap and not tap.up and interface.vhost_user_socket is None:
            yield Finding(path, f"{device} is down on the host, so no packet passes; ip link set {device} up")
        elif device in around.no_carrier:
            reason = _NO_CARRIER.get(around.kinds.get(device, ""), "its other end is down or missing")
            yield Finding(path, f"{interface.name} has no carrier (NO-CARRIER), so no packet passes: {reason}")


def _gateways(sandbox: Sandbox, around: Surroundings) -> Iterator[Finding]:
    """Yield a warning for each gateway that is an address of the sandbox, at the first route with it."""
    described = {address.host for interface in sandbox.interfaces or () for address in interface.addresses}
    own = described | (around.local or frozenset())
    first: dict[str, Path] = {}
    for index, route in enumerate(sandbox.routes or ()):
        for gateway in (hop.gateway for hop in route.nexthops if hop.gateway in own):
            first.setdefault(gateway, ("routes", index, "gateway" if len(route.nexthops) == 1 else "nexthops"))
    for gateway, path in first.items():
        message = f"{gateway} is an address of the sandbox itself, so packets that take this route go nowhere"
        yield Finding(path, message)


def _advertisements(sandbox: Sandbox) -> Iterator[Finding]:
    """Yield warnings about router advertisements that the kernel ignores because packets are forwarded."""
    everywhere = dict(sandbox.sysctls or ()).get(IP_FORWARD6)
    for index, interface in enumerate(sandbox.interfaces or ()):
        own = dict(interface.sysctls)
        if own.get("accept_ra") == 1 and own.get("ipv6.forwarding", everywhere) == 1:
            message = "1 has no effect on an interface that forwards IPv6; 2 accepts router advertisements there"
            yield Finding(("interfaces", index, "sysctls", "accept_ra"), message)


def _tables(sandbox: Sandbox, around: Surroundings) -> Iterator[Finding]:
    """Yield warnings about routes in a table that no rule looks at.

    Rules of others are only known where they were observed; then there are always some.
    """
    rules = (*(sandbox.rules or ()), *around.rules)
    if (sandbox.rules is None and not around.rules) or any(rule.l3mdev for rule in rules):
        return
    tables = {(rule.family == "ipv6", rule.table) for rule in rules}
    # With the first VRF, the kernel adds a rule that looks up the tables of all.
    routed = [
        dict(each.made.options)["table"] for each in sandbox.interfaces or () if each.made and each.made.is_routed
    ]
    tables |= {(family, int(table)) for table in routed for family in (False, True)}
    said = set()
    for index, route in enumerate(sandbox.routes or ()):
        table = (route.is_ipv6, route.table)
        if route.table not in KERNEL_TABLES and table not in tables and table not in said:
            said.add(table)
            whose = "rule" if around.rules else "rule of this manifest"
            message = (
                f"no {family_name(route.dest)} {whose} looks up table {route.table}, so no packet takes this route"
            )
            yield Finding(("routes", index, "table"), message)
