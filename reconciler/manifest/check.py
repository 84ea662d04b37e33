"""What one object cannot know: duplicates, unknown devices, gateways out of reach; within a manifest and across all."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from reconciler.manifest.compose import Path
from reconciler.manifest.sandbox import Draft
from reconciler.manifest.schema import Finding
from reconciler.model.address import is_ipv6
from reconciler.model.interface import Interface
from reconciler.model.route import DirectNetworks, NextHop, Route, is_reached
from reconciler.model.sandbox import KataAddress, Sandbox, VmAddress
from reconciler.wording import suggest

LOOPBACK = "lo"


def check_sections(draft: Draft) -> list[Finding]:
    """Check a manifest by itself, as far as it could be read."""
    interfaces, routes = draft.interfaces or [], draft.routes or []
    findings = [
        *_unsupported(interfaces, vm=draft.vm or draft.kata),
        *_duplicates(interfaces),
        *_duplicate_routes(routes),
    ]
    if draft.interfaces is not None:
        findings += _route_devices(interfaces, routes, draft.unsure)
    if draft.ipvs:
        from reconciler.manifest import check_ipvs

        findings += check_ipvs.check(draft.ipvs)
    if draft.kata:
        from reconciler.manifest import check_kata

        findings += check_kata.check(draft)
    return findings


def _unsupported(interfaces: Sequence[Interface | None], *, vm: bool) -> Iterator[Finding]:
    for index, interface in enumerate(interfaces):
        if interface and interface.vhost_user_socket is not None and not vm:
            path = ("interfaces", index, "vhostUserSocket")
            yield Finding(path, "a network namespace has no vhost-user NICs; those are for virtual machines")


def _duplicates(interfaces: Sequence[Interface | None]) -> Iterator[Finding]:
    for field, attribute in (("name", "name"), ("device", "device"), ("hwAddr", "hw_addr")):
        first: dict[str, int] = {}
        for index, interface in enumerate(interfaces):
            value = getattr(interface, attribute, None)
            if value is not None and first.setdefault(value, index) != index:
                yield Finding(
                    ("interfaces", index, field), f"{value} is the {field} of interfaces[{first[value]}] already"
                )


def _duplicate_routes(routes: Sequence[Route | None]) -> Iterator[Finding]:
    first: dict[Hashable, int] = {}
    for index, route in enumerate(routes):
        if route and first.setdefault(route.key, index) != index:
            message = f"routes[{first[route.key]}] has this destination, table and metric already"
            yield Finding(("routes", index, "dest"), f"{message}; give another metric, or nexthops")


def _route_devices(
    interfaces: Sequence[Interface | None], routes: Sequence[Route | None], unsure: set[str]
) -> Iterator[Finding]:
    """Check that each route's device is there and its gateway within reach.

    Most routes of a long list share a few next hops, so each of those is looked at once.
    """
    names = {interface.name: interface for interface in interfaces if interface}
    direct = DirectNetworks(route for route in routes if route)
    verdicts: dict[tuple[NextHop, int], tuple[str, str] | None] = {}
    for index, route in enumerate(routes):
        if route is None:
            continue
        for hop in route.nexthops:
            case = (hop, route.table)
            if case not in verdicts:
                verdicts[case] = _hop_problem(hop, names, unsure, direct.of(hop.device, route.table))
            verdict = verdicts[case]
            if verdict is not None:
                field, message = verdict
                yield Finding(("routes", index, "nexthops" if len(route.nexthops) > 1 else field), message)
        if route.mtu:
            yield from _route_mtu(route, index, names)


def _hop_problem(
    hop: NextHop, names: dict[str, Interface], unsure: set[str], direct: list[str]
) -> tuple[str, str] | None:
    device = hop.device
    # Of an interface that could not be read nothing is known but its name.
    if device in unsure:
        return None
    interface = names.get(device)
    if interface is None and device != LOOPBACK:
        known = {*names, *unsure}
        return "device", f'no interface is named "{device}"; {suggest(device, known) if known else "none is declared"}'
    prefixes = [address.address for address in interface.addresses] if interface else []
    if hop.gateway and is_ipv6(hop.gateway) and any(prefix.startswith(f"{hop.gateway}/") for prefix in prefixes):
        return "gateway", f"{hop.gateway} is an address of {device} itself"
    if is_reached(hop, [*prefixes, *direct]):
        return None
    return "gateway", (
        f"no address or route of {device} reaches {hop.gateway}; if it is on that link nevertheless: onLink: true"
    )


def _route_mtu(route: Route, index: int, names: dict[str, Interface]) -> Iterator[Finding]:
    for device in sorted(route.devices & names.keys()):
        if route.mtu > names[device].mtu:
            message = f"{route.mtu} is above the MTU of {device}, {names[device].mtu}"
            yield Finding(("routes", index, "mtu"), message)


def check_together(sandboxes: Sequence[tuple[str, Sandbox]]) -> Iterator[tuple[int, Finding]]:
    """Check manifests against each other; each comes with its file's name. Give the index of the one to mend, and why.

    A sandbox, its namespace or agent, and each device and MAC address are in one manifest only.
    """
    first: dict[tuple[str, str], int] = {}
    for index, (_, sandbox) in enumerate(sandboxes):
        for what, value, path in _claims(sandbox):
            owner = first.setdefault((what, value), index)
            if owner != index:
                file, other = sandboxes[owner]
                yield index, Finding(path, f"{value} is the {what} of sandbox {other.id} already, in {file}")


def _claims(sandbox: Sandbox) -> Iterator[tuple[str, str, Path]]:
    yield "ID", sandbox.id, ("sandbox",)
    # Named by its file, a namespace or a machine is the same however a manifest names it.
    if isinstance(sandbox.driver, KataAddress):
        yield "container", sandbox.driver.id, ("driver", "kata", "id")
    elif isinstance(sandbox.driver, VmAddress):
        yield "agent socket", sandbox.driver.file, ("driver",)
        if sandbox.driver.qmp:
            yield "QMP socket", sandbox.driver.qmp, ("driver", "vm", "qmp")
    else:
        yield "namespace", sandbox.driver.file, ("driver",)
    for index, interface in enumerate(sandbox.interfaces or ()):
        yield "device", interface.device, ("interfaces", index, "device")
        yield "hwAddr", interface.hw_addr, ("interfaces", index, "hwAddr")
