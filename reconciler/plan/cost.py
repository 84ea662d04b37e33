"""What a plan costs: which connections each of its operations cuts, by the connections that the kernel lists.

A connection is cut if its address leaves the sandbox, if no route carries its packets any more, or if its IPVS server
goes. It may be cut if its packets take another way: whether others answer there, no kernel knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler.model.address import contains, is_ipv6, split_prefix
from reconciler.model.cost import Cut, End, Flow, Traffic, together
from reconciler.model.interface import Address
from reconciler.model.lookup import REJECTED, Lookup
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import PROTOCOL_KERNEL, TABLE_LOCAL, TABLE_MAIN, Route, RouteKey, canonical_hops
from reconciler.model.rule import Rule
from reconciler.model.sysctl import ALL_DISABLE_IPV6, IP_FORWARD
from reconciler.operations import Operation
from reconciler.operations.address import AddAddress, DeleteAddress, ReplaceAddress
from reconciler.operations.interface import DetachInterface, RenameInterface, SetLink
from reconciler.operations.item import AddItem, DeleteItem, ReplaceItem
from reconciler.operations.made import AddLink, ChangeLink, DeleteLink
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute
from reconciler.operations.sysctl import SetNetworkSysctl
from reconciler.plan import Plan, path
from reconciler.plan.path import MAYBE, NOT, SURELY
from reconciler.values import NamedTuple, replace

if TYPE_CHECKING:
    from reconciler.model.ipvs import ServerKey, ServiceKey
    from reconciler.model.sandbox import Observed

_Affects = Callable[[Flow], "bool | None"]
_SAVED = "a saved state has no connections"
_RUNTIME = "kata-runtime lists no connections"
# Comparisons of an operation with a connection: some 2 s.
_WORK = 1_000_000
_TOO_MANY = "too many operations and connections to compare them all"
_DRAINED = "those that are left when the drain ends"
# Operations by the names of their kinds: those of IPVS, machines and runtimes are imported only if a plan has any.
_IPVS = {"DeleteService", "DeleteServer", "DrainServer"}
_RUNTIME_ONLY = {"UnplugInterface", "DeleteContainerRoute"}
_PLUGS, _UNPLUGS = {"AddDevice", "AttachNic"}, {"DeleteDevice", "DetachNic"}


class Cost(NamedTuple):
    """What each operation of a plan cuts, and all together. An operation that can cut nothing is not in `cuts`."""

    cuts: Mapping[Operation, Cut]
    total: Cut


def cutting(plan: Plan, observed: Observed) -> list[Operation]:
    """Return the operations that can cut a connection."""
    if not plan.segments:
        return []
    could = _Could(observed, _left_down(plan))
    return [each for each in plan.operations if could.cut(each)]


def needs_traffic(operations: Iterable[Operation]) -> bool:
    """Return whether the connections have to be read: IPVS counts those of a server in its own table."""
    return any(each.kind not in _IPVS | _RUNTIME_ONLY for each in operations)


def cost(plan: Plan, observed: Observed, operations: Sequence[Operation], traffic: Traffic) -> Cost:
    """Return what the operations of a plan that can cut something really do, by the connections that there are."""
    judge = _Judge(plan, observed, traffic)
    cuts: dict[Operation, Cut] = {}
    sure: set[object] = set()
    maybe: set[object] = set()
    counted = []
    gone: set[tuple[ServiceKey, ServerKey]] = set()
    for each in operations:
        if each.kind in _IPVS:
            cuts[each] = _of_ipvs(each, observed, gone)
            counted.append(cuts[each])
        elif each.kind in _RUNTIME_ONLY:
            cuts[each] = Cut(most=None, unknown=(_RUNTIME,))
            counted.append(cuts[each])
        else:
            surely, perhaps = judge.flows(each)
            most = None if judge.unknown else len(surely) + len(perhaps)
            cuts[each] = Cut(len(surely), most, unknown=judge.unknown)
            sure |= surely
            maybe |= perhaps
    counted.append(_union(sure, maybe, gone, traffic, judge.unknown if needs_traffic(operations) else ()))
    return Cost(cuts, together(counted))


def saved_cost(operations: Iterable[Operation]) -> Cost:
    """Return what is known of the cost if there is no sandbox to look at."""
    unknown = Cut(most=None, unknown=(_SAVED,))
    cuts = dict.fromkeys(operations, unknown)
    return Cost(cuts, together(cuts.values()))


def _union(
    sure: set[object],
    maybe: set[object],
    gone: set[tuple[ServiceKey, ServerKey]],
    traffic: Traffic,
    unknown: tuple[str, ...],
) -> Cut:
    """Return what is cut by the network. Connections of IPVS servers that go are counted there."""
    if gone:
        counted = {flow.key for flow in traffic.flows if flow.ipvs and (flow.ipvs[:3], flow.ipvs[3:]) in gone}
        sure, maybe = sure - counted, maybe - counted
    return Cut(len(sure), None if unknown else len(sure | maybe), unknown=unknown)


def _of_ipvs(each: Operation, observed: Observed, gone: set[tuple[ServiceKey, ServerKey]]) -> Cut:
    from reconciler.operations.ipvs import DeleteServer, DeleteService, DrainServer
    from reconciler.operations.runtime import ImportedRule, RuleCommand

    if isinstance(each, RuleCommand | ImportedRule):
        return Cut(most=None, unknown=(_RUNTIME,))
    match each:
        case DeleteService(service=service):
            places = [(service.key, server.key) for server in service.servers]
        case DeleteServer(service=key, server=server):
            places = [(key, server.key)]
        case DrainServer(service=key, server=server):
            counted = _load(observed, (key, server.key))
            return Cut(0, counted.most, unknown=(_DRAINED,) if counted.most else counted.unknown)
        case _:
            raise TypeError(f"{each.kind} cuts no connection of IPVS")
    gone.update(places)
    return together(_load(observed, each) for each in places)


def _load(observed: Observed, place: tuple[ServiceKey, ServerKey]) -> Cut:
    load = observed.around.connections.get(place)
    if load is None:
        return Cut(most=None, unknown=("the kernel's count of the connections was not read",))
    protocol = place[0][0]
    if protocol == "udp":
        return Cut(load.total, load.total, persistent=load.persistent)
    if protocol in {"tcp", "sctp"}:
        return Cut(load.active, load.active, closing=load.inactive, persistent=load.persistent)
    # A firewall mark has flows of any protocol.
    return Cut(load.active, load.total, persistent=load.persistent)


def _left_down(plan: Plan) -> set[str]:
    """Return the names of the links that a plan sets down for good."""
    states = {each.name: each.up for each in plan.operations if isinstance(each, SetLink) and each.up is not None}
    return {name for name, up in states.items() if not up}


class _Could:
    """Whether an operation can cut anything at all: nothing is read before one can."""

    def __init__(self, observed: Observed, left_down: set[str]) -> None:
        self._left_down = left_down
        had, around = observed.sandbox, observed.around
        self._known = had.routes is not None
        self._networks: dict[tuple[bool, int], set[int]] = {}
        for route in (*(had.routes or ()), *around.routes):
            number, length, bits = _number(route.dest)
            self._networks.setdefault((bits == 128, length), set()).add(number >> (bits - length))

    def cut(self, each: Operation) -> bool:
        match each:
            case DetachInterface() | DeleteLink() | DeleteAddress() | DeleteRoute():
                return True
            case SetLink(name=name, master=master):
                return master is not None or name in self._left_down
            case ChangeLink():
                return True
            case ReplaceRoute(route=route, before=before):
                return (route.type, route.nexthops) != (before.type, before.nexthops)
            case AddRoute(route=route):
                # The kernel's own routes are restored where they were.
                return route.protocol != PROTOCOL_KERNEL and self._is_covered(route.dest)
            case AddAddress(address=address):
                return any(map(self._is_covered, address.networks))
            case AddItem(item=item) | ReplaceItem(item=item) | DeleteItem(item=item):
                return isinstance(item, Rule) or self._is_covered(f"{item.address}/{128 if item.is_ipv6 else 32}")
            case SetNetworkSysctl(value=value):
                return _turns_off_ipv6(each) or (_is_forwarding(each.name) and not value)
            case _:
                # tests/plan/test_cost.py has all kinds, also those that cut nothing.
                return each.kind in _IPVS | _RUNTIME_ONLY | _UNPLUGS

    def _is_covered(self, dest: str) -> bool:
        """Return whether packets to a destination have a route already."""
        if not self._known:
            return True
        number, length, bits = _number(dest)
        return any(
            number >> (bits - each) in found
            for (ipv6, each), found in self._networks.items()
            if ipv6 == (bits == 128) and each <= length
        )


class _Judge:
    """Decides about each connection. `plan`: what else happens to the sandbox. `unknown`: why there may be others."""

    def __init__(self, plan: Plan, observed: Observed, traffic: Traffic) -> None:
        self.unknown = traffic.unknown
        self._flows, self._work = traffic.flows, _WORK
        self._by_route: dict[RouteKey, list[Flow]] = {}
        for flow in traffic.flows:
            for end in flow.ends:
                if end.route:
                    self._by_route.setdefault(end.route.key, []).append(flow)
        had, around = observed.sandbox, observed.around
        self._old = _old_names(plan.operations)
        operations = [self._as_before(each) for each in plan.operations]
        self._nics = {each.device: each for each in had.interfaces or ()}
        self._coming = {each.address.host for each in operations if isinstance(each, AddAddress | ReplaceAddress)}
        self._plugged = {each.device for each in operations if each.kind in _PLUGS}  # type: ignore[union-attr]
        self._leaving = {each.name for each in operations if isinstance(each, DetachInterface | DeleteLink)}
        self._made = {each.name for each in operations if isinstance(each, AddLink)}
        self._left_down = _left_down(plan)
        going = {(each.device, each.address.key) for each in operations if isinstance(each, DeleteAddress)}
        self._kept = {
            (nic.name, dest)
            for nic in self._nics.values()
            for each in nic.addresses
            if (nic.name, each.key) not in going
            for dest in each.networks
        }
        self._hosts = {
            each.host
            for nic in self._nics.values()
            for each in nic.addresses
            if nic.name not in self._leaving and (nic.name, each.key) not in going
        }
        self._managed = around.addresses
        self._routes = Lookup(
            _routes_after(operations, (*(had.routes or ()), *around.routes), self._leaving | self._left_down)
        )
        services = (*((had.ipvs.services if had.ipvs else None) or ()), *around.services)
        self._translated = {
            (server.address, server.port) for each in services for server in each.servers if server.forward == "nat"
        }

    def flows(self, operation: Operation) -> tuple[set[object], set[object]]:
        """Return the keys of the connections that an operation cuts, and of those that it may cut.

        Many operations and many connections are too much to compare: then `unknown` gets a reason.
        """
        operation = self._as_before(operation)
        affects, flows = self._rule_of(operation), self._flows
        if isinstance(operation, DeleteRoute | ReplaceRoute):
            flows = tuple(self._by_route.get(operation.route.key, ()))
        self._work -= len(flows)
        if self._work < 0:
            self.unknown = tuple(dict.fromkeys((*self.unknown, _TOO_MANY)))
            return set(), set()
        sure: set[object] = set()
        maybe: set[object] = set()
        for flow in flows:
            found = affects(flow)
            if found is not NOT:
                (sure if found else maybe).add(flow.key)
        return sure, maybe

    def _rule_of(self, each: Operation) -> _Affects:
        match each:
            case DeleteAddress(device=device, address=address):
                return self._by_address(device, address)
            case AddAddress(device=device, address=address):
                return lambda flow: self._worst(flow, lambda end: path.draws(address, device, end))
            case DetachInterface(name=name):
                return self._by_nic(name, comes_back=False)
            case DeleteLink(name=name):
                return self._by_nic(name, comes_back=name in self._made)
            case SetLink(name=name) | ChangeLink(name=name):
                return self._by_nic(name, comes_back=name not in self._left_down)
            case DeleteRoute(route=route):
                return lambda flow: self._worst(flow, lambda end: self._without(route, end))
            case ReplaceRoute(route=route):
                return lambda flow: self._worst(flow, lambda end: path.replaced(route, end))
            case AddRoute(route=route):
                return lambda flow: self._worst(flow, lambda end: path.taken_by(route, end))
            case AddItem(item=item) | ReplaceItem(item=item) | DeleteItem(item=item):
                return self._by_item(item)
            case SetNetworkSysctl():
                return self._by_sysctl(each)
            case _:
                device = each.device  # type: ignore[union-attr]
                nic = self._nics.get(device)
                return self._by_nic(nic.name if nic else "", comes_back=device in self._plugged)

    def _as_before(self, each: Operation) -> Operation:
        """Return an operation with the names that NICs have now, before the plan renames them."""
        if not self._old:
            return each
        match each:
            case AddAddress(device=device) | DeleteAddress(device=device) | ReplaceAddress(device=device):
                return replace(each, device=self._old.get(device, device))
            case AddRoute(route=route) | DeleteRoute(route=route) | ReplaceRoute(route=route):
                hops = (replace(hop, device=self._old.get(hop.device, hop.device)) for hop in route.nexthops)
                return replace(each, route=replace(route, nexthops=canonical_hops(hops)))
            case _:
                return each

    def _ends(self, flow: Flow) -> tuple[End, ...]:
        """Return where packets of a connection really go: an IPVS server without NAT answers its client by itself."""
        return flow.ends[1:] if flow.ipvs and flow.ipvs[3:] not in self._translated else flow.ends

    def _worst(self, flow: Flow, judge: Callable[[End], bool | None]) -> bool | None:
        found = {judge(end) for end in self._ends(flow) if end.route and end.route.table != TABLE_LOCAL}
        return SURELY if SURELY in found else MAYBE if MAYBE in found else NOT

    def _by_address(self, device: str, address: Address) -> _Affects:
        host = address.host
        comes_back = host in self._coming or host in self._hosts
        lost = {dest for dest in address.networks if (device, dest) not in self._kept}

        def loses(end: End) -> bool | None:
            route = end.route
            derived = route is not None and route.protocol == PROTOCOL_KERNEL and route.dest in lost
            return MAYBE if derived and device in route.devices else NOT  # type: ignore[union-attr]

        def affects(flow: Flow) -> bool | None:
            if not comes_back and (flow.near == host or any(end.address == host for end in flow.ends)):
                return SURELY
            return self._worst(flow, loses)

        return affects

    def _by_nic(self, name: str, *, comes_back: bool) -> _Affects:
        own = {each.host for nic in self._nics.values() if nic.name == name for each in nic.addresses}
        own |= {address.partition("/")[0] for nic, address in self._managed if nic == name}
        # A link that is down keeps its addresses.
        own = set() if name in self._left_down else own - self._coming

        def loses(end: End) -> bool | None:
            if end.route is None or name not in end.route.devices:
                return NOT
            return MAYBE if len(end.route.devices) > 1 else self._elsewhere(end.route, end.address)

        def affects(flow: Flow) -> bool | None:
            bound = flow.near in own or any(end.address in own for end in flow.ends)
            found = SURELY if bound else self._worst(flow, loses)
            return MAYBE if found and comes_back else found

        return affects

    def _without(self, route: Route, end: End) -> bool | None:
        return self._elsewhere(route, end.address) if end.route and end.route.key == route.key else NOT

    def _elsewhere(self, route: Route, address: str) -> bool | None:
        """Return whether packets to an address are lost once they cannot take a route any more."""
        for table in dict.fromkeys((route.table, TABLE_MAIN)):
            found = next(self._routes.in_table(table, address), None)
            if found and found.type in REJECTED:
                return SURELY
            if found and found.type == "unicast":
                return NOT if found.nexthops == route.nexthops else MAYBE
        return SURELY

    def _by_item(self, item: Rule | Neighbour) -> _Affects:
        if isinstance(item, Neighbour):
            return lambda flow: self._worst(flow, lambda end: path.next_to(item, end))
        family = item.family == "ipv6"

        def selects(flow: Flow) -> bool | None:
            if item.from_ and not contains(item.from_, flow.near):
                return NOT
            return self._worst(
                flow,
                lambda end: (
                    MAYBE if is_ipv6(end.address) == family and (not item.to or contains(item.to, end.address)) else NOT
                ),
            )

        return selects

    def _by_sysctl(self, operation: SetNetworkSysctl) -> _Affects:
        if not _turns_off_ipv6(operation):
            family = operation.name != IP_FORWARD and ".ipv6." in operation.name
            return lambda flow: MAYBE if flow.ipvs and is_ipv6(flow.near) == family else NOT
        if operation.nic is None:
            return lambda flow: is_ipv6(flow.near)
        by_nic = self._by_nic(operation.nic, comes_back=False)
        return lambda flow: by_nic(flow) if is_ipv6(flow.near) else NOT


def _old_names(operations: Iterable[Operation]) -> dict[str, str]:
    """Return the name that each NIC had before its renames, by its last one."""
    old: dict[str, str] = {}
    for each in operations:
        if isinstance(each, RenameInterface):
            old[each.new_name] = old.pop(each.name, each.name)
    return old


def _routes_after(operations: Iterable[Operation], routes: Iterable[Route], leaving: set[str]) -> Iterator[Route]:
    """Yield the routes that there are after a plan."""
    found = {(each.key, each.protocol): each for each in routes if not each.devices or each.devices - leaving}
    for each in operations:
        match each:
            case DeleteRoute(route=route):
                found.pop((route.key, route.protocol), None)
            case AddRoute(route=route) | ReplaceRoute(route=route):
                found = found if (route.key, route.protocol) in found else dict(found)
                found[route.key, route.protocol] = route
            case _:
                pass
    return iter(found.values())


def _turns_off_ipv6(operation: SetNetworkSysctl) -> bool:
    return operation.value == 1 and (operation.name == ALL_DISABLE_IPV6 or operation.name.endswith("disable_ipv6"))


def _is_forwarding(name: str) -> bool:
    return name == IP_FORWARD or name.replace("/", ".").endswith(".forwarding")


def _number(prefix: str) -> tuple[int, int, int]:
    packed, length = split_prefix(prefix)
    return int.from_bytes(packed), length, len(packed) * 8
