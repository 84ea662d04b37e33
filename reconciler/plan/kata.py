"""A plan for the command line of kata-runtime, which adds and deletes interfaces and routes but cannot change them.

First, routes are deleted that are in the way, or whose interface is removed. Then interfaces are removed and added,
routes are added, and the IPVS table changes. All other routes are deleted at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.diff import diff
from reconciler.errors import HostError
from reconciler.model.interface import Interface
from reconciler.model.route import Route
from reconciler.model.sandbox import KataAddress, Sandbox
from reconciler.operations.ipvs import (
    AddServer,
    AddService,
    DeleteConntrack,
    DeleteServer,
    DeleteService,
    IpvsOperation,
)
from reconciler.operations.runtime import (
    AddContainerRoute,
    DeleteContainerRoute,
    ImportedRule,
    ObjectCommand,
    PlugInterface,
    RuleCommand,
    RuleOperation,
    UnplugInterface,
)
from reconciler.operations.segment import Commands, Imports, RuleCommands, Segment, joined
from reconciler.plan.aftermath import with_names
from reconciler.values import NamedTuple

# From this many rules of new services on, one import adds them all.
BULK = 10


class KataPlan(NamedTuple):
    """The segments in order, the routes that there are in the end, and the interfaces that are removed for good."""

    segments: tuple[Segment, ...]
    routes: tuple[Route, ...]
    removed: list[Interface]


def plan_kata(desired: Sandbox, had: Sandbox, table: Sequence[IpvsOperation]) -> KataPlan:
    """Plan interfaces and routes around the changes of the table. HostError for an interface of an unknown device."""
    assert isinstance(desired.driver, KataAddress)
    container = desired.driver.id
    changes = diff(had.interfaces or () if desired.interfaces is None else desired.interfaces, had.interfaces or ())
    leaving = [change.before for change in changes if change.before]
    coming = [change.after for change in changes if change.after]
    _refuse_unknown(coming)
    removed = [change.before for change in changes if change.before and not change.after]
    lost = {interface.name for interface in leaving}
    gone = {interface.name for interface in removed} - {interface.name for interface in coming}
    names = {change.before.name: change.after.name for change in changes if change.before and change.after}
    present = had.routes or ()
    wishes = desired.routes
    if wishes is None:
        wishes = tuple(with_names(route, names) for route in present if not route.devices & gone)
    stay = {route for route in {*present} & {*wishes} if not route.devices & lost}
    added = [route for route in wishes if route not in stay]
    deleted = [route for route in present if route not in stay]
    keys = {route.key for route in added}
    early = [route for route in deleted if route.key in keys or route.devices & lost]
    coming_routes = sorted(added, key=lambda route: route.needs_gateway)
    changed: tuple[ObjectCommand, ...] = (
        *(DeleteContainerRoute(container=container, route=route) for route in early),
        *(UnplugInterface(container=container, name=interface.name) for interface in leaving),
        *(PlugInterface(container=container, interface=interface) for interface in coming),
        *(AddContainerRoute(container=container, route=route) for route in coming_routes),
    )
    late = tuple(DeleteContainerRoute(container=container, route=route) for route in deleted if route not in early)
    segments = joined((Commands(changed), *_rules(container, _possible(table)), Commands(late)))
    return KataPlan(segments, wishes, removed)


def _refuse_unknown(interfaces: Sequence[Interface]) -> None:
    for interface in interfaces:
        if interface.device.startswith("?"):
            raise HostError(
                f"kata-runtime does not report the host device of {interface.name}; add the interface to the manifest"
            )


def _possible(table: Sequence[IpvsOperation]) -> list[RuleOperation]:
    """Return the operations without settings, and with a cleanup of UDP connections.

    kata-runtime cannot change settings.
    """
    kept = [each for each in table if isinstance(each, RuleOperation) and not isinstance(each, DeleteConntrack)]
    keys = [
        each.service.key if isinstance(each, DeleteService) else each.service
        for each in kept
        if isinstance(each, DeleteService | DeleteServer)
    ]
    addresses = dict.fromkeys(address for protocol, address, _ in keys if protocol == "udp")
    return [*kept, *(DeleteConntrack(address=address, protocol="udp") for address in addresses)]


def _rules(container: str, table: Sequence[RuleOperation]) -> Iterator[Segment]:
    """Yield one command for each rule. If new services and servers are many, one import adds them."""
    new = {each.service.key for each in table if isinstance(each, AddService)}
    bulk = [
        each for each in table if isinstance(each, AddService) or (isinstance(each, AddServer) and each.service in new)
    ]
    if len(bulk) < BULK:
        yield RuleCommands(tuple(RuleCommand(container=container, operation=each) for each in table))
        return
    begin = table.index(bulk[0])
    imported = set(map(id, bulk))
    rest = [each for each in table[begin:] if id(each) not in imported]
    yield RuleCommands(tuple(RuleCommand(container=container, operation=each) for each in table[:begin]))
    yield Imports(tuple(ImportedRule(container=container, operation=each) for each in bulk))
    yield RuleCommands(tuple(RuleCommand(container=container, operation=each) for each in rest))
