"""What the kernel has derived from our addresses and links, and has lost since: what is lacking is added again.

Only what a plan does not touch is looked at, and IPv4 addresses of which it only takes a lifetime away, in place. Of
the other NICs and addresses, the kernel derives everything anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.errors import RefusedError
from reconciler.formats.iproute2 import route_words
from reconciler.model.address import is_ipv6, last_address, link_local, network
from reconciler.model.derived import derived_routes, is_link_local, local_route
from reconciler.model.interface import KERNEL_LINK_LOCAL, Address, Interface, LinkState
from reconciler.model.route import IPV6_CONNECTED_METRIC, PROTOCOL_KERNEL, NextHop, Route
from reconciler.model.sandbox import Observed
from reconciler.operations.address import AddAddress, AddressOperation, DeleteAddress, ReplaceAddress
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute, RouteOperation
from reconciler.plan.address import NOT_LOCAL, AddressPlan, keeps_derived
from reconciler.plan.aftermath import with_names
from reconciler.plan.interface import LinkPlan
from reconciler.plan.route import serves
from reconciler.values import NamedTuple, replace


class DerivedPlan(NamedTuple):
    """Link-local addresses to add, and routes to add, replace or delete: these before all others."""

    addresses: tuple[AddressOperation, ...] = ()
    routes: tuple[RouteOperation, ...] = ()


class Lack(NamedTuple):
    """A derived route that is not there. `twins`: the foreign routes in its place.

    The routes that the kernel has derived of other NICs with the same network are none.
    """

    route: Route
    twins: tuple[Route, ...]


class Derived:
    """What of the objects that the kernel derives is lacking in an observed sandbox."""

    def __init__(self, wishes: Sequence[Route], observed: Observed) -> None:
        """Compare with what was observed. `wishes`: the desired routes; one may be in the place of a derived route."""
        self._wishes = wishes
        self._ours = observed.sandbox.routes or ()
        self._interfaces = observed.sandbox.interfaces or ()
        self._around = observed.around
        self._foreign = (*self._around.routes, *self._around.local_table)
        self._found = frozenset(self._foreign if self._around.states else ())

    def routes(self, nic: Interface) -> Iterator[Lack]:
        """Yield the routes that the kernel would derive of a NIC and its addresses, and that are not there."""
        state = self.state(nic)
        if state is None:
            return
        for route in derived_routes(nic, state, self.managed(nic)):
            if route in self._found or self._is_replaced(route):
                continue
            twins = [each for each in self._foreign if each.key == route.key]
            yield Lack(route, tuple(each for each in twins if not self._is_of_another_nic(each, route)))

    def _is_of_another_nic(self, twin: Route, route: Route) -> bool:
        """Return whether the kernel has derived `twin` of another NIC. Such an IPv4 route has a source."""
        if twin.protocol != PROTOCOL_KERNEL or twin.devices == route.devices:
            return False
        for nic in self._interfaces:
            state = self.state(nic)
            if state and twin.devices == {nic.name}:
                # What IPv6 derives of a NIC without a carrier, or of some tunnels, is not known.
                is_unknown = route.is_ipv6 and not state.ipv6
                return is_unknown or twin in derived_routes(nic, state, self.managed(nic))
        return route.is_ipv6 or twin.source is not None

    def _is_replaced(self, route: Route) -> bool:
        """Return whether another route serves as a derived one, or is desired in its place."""
        bare = replace(route, source=None)
        others = (each for each in (*self._foreign, *self._ours) if each.protocol != PROTOCOL_KERNEL)
        return any(wish.key == route.key and not serves(wish, route) for wish in self._wishes) or any(
            each.key == route.key and serves(bare, each) for each in others
        )

    def stale(self, nic: Interface) -> Iterator[Route]:
        """Yield the connected IPv6 routes that the kernel made while an address of the network had another metric.

        It keeps such a route for as long as the NIC has an address of that network.
        """
        own = [each for each in nic.addresses if is_ipv6(each.address)]
        networks = {dest for each in own for dest in each.networks}
        made_of = {(dest, each.metric or IPV6_CONNECTED_METRIC) for each in own for dest in each.connected}
        made_of |= {(network(each), IPV6_CONNECTED_METRIC) for each in self.managed(nic)}
        for route in self._around.routes if self.state(nic) else ():
            alike = Route(dest=route.dest, metric=route.metric, nexthops=(NextHop(device=nic.name),))
            made = route.protocol == PROTOCOL_KERNEL and (route.dest, route.metric) not in made_of
            if made and route.dest in networks and route == alike:
                yield route

    def lacks_link_local(self, nic: Interface) -> bool:
        """Return whether the kernel has given a link-local address to a NIC, and has lost it."""
        state = self.state(nic)
        if state is None or not (state.ipv6 and state.generation == "eui64"):
            return False
        return not any(map(is_link_local, (*self.managed(nic), *(each.address for each in nic.addresses))))

    def is_incomplete(self) -> bool:
        """Return whether an IPv6 address or a link lacks what the kernel adds a moment after it."""
        return any(
            self.lacks_link_local(nic)
            or any(self.is_lost(each, nic) for each in (*self.managed(nic), *(a.address for a in nic.addresses)))
            or self._lacks_peer(nic)
            for nic in self._interfaces
        )

    def _lacks_peer(self, nic: Interface) -> bool:
        """Return whether the route to the peer of an IPv6 address is not there."""
        peers = {dest for each in nic.addresses for dest in each.of_peer}
        return bool(peers) and any(lack.route.dest in peers for lack in self.routes(nic))

    def is_lost(self, address: str, nic: Interface) -> bool:
        """Return whether the table `local` has lost an IPv6 address of a NIC."""
        state = self.state(nic)
        if not is_ipv6(address) or state is None or address in state.unsettled:
            return False
        return local_route(nic.name, address.partition("/")[0], state.table) not in self._found

    def marked(self, nic: Interface) -> Interface:
        """Return a NIC in which each address that the table `local` has lost is marked as such.

        No message adds that entry as the kernel does, with metric 0. So such an address is deleted and added again.
        """
        marked = tuple(self._marked(each, nic) for each in nic.addresses)
        return nic if marked == nic.addresses else replace(nic, addresses=marked)

    def _marked(self, address: Address, nic: Interface) -> Address:
        lost = self.is_lost(address.address, nic)
        return replace(address, opaque=(*address.opaque, NOT_LOCAL)) if lost else address

    def managed(self, nic: Interface) -> list[str]:
        """Return the addresses of a NIC that the kernel manages."""
        return [address for name, address in self._around.addresses if name == nic.name]

    def state(self, nic: Interface) -> LinkState | None:
        """Return the state of a NIC's link; None if it is not known."""
        return self._around.states.get(nic.device)


def plan_derived(
    derived: Derived, wanted: Sequence[Interface], had: Sequence[Interface], links: LinkPlan, addresses: AddressPlan
) -> DerivedPlan:
    """Plan what is lacking.

    RefusedError if a foreign route is in the place of a derived one, or if a VRF has one of the NICs.
    """
    after = {wish.device: wish for wish in wanted}
    touched, anew = set[tuple[str, str]](), set[tuple[str, str]]()
    for operation in addresses.early:
        if isinstance(operation, ReplaceAddress) and operation.before:
            dests = _derived_anew(operation.before, operation.address)
            anew |= {(operation.device, dest) for dest in dests}
        else:
            touched.add((operation.device, operation.address.key))
    gone = links.gone_early | links.removed
    coming: list[AddressOperation] = []
    routes: list[RouteOperation] = []
    stale: list[RouteOperation] = []
    for nic in had:
        wish = after.get(nic.device)
        # Of a link that is set up again, the kernel derives everything anew.
        if wish is None or nic.name in gone or (wish.up and nic.name in links.downed):
            continue
        _refuse_vrf(nic, derived.state(nic))
        # The same of one that comes up.
        if wish.up and not nic.up:
            continue
        keys = {each.key for each in nic.addresses}
        kept = [each for each in wish.addresses if each.key in keys and (wish.name, each.key) not in touched]
        for route, twins in derived.routes(replace(nic, up=wish.up, addresses=tuple(kept))):
            if (wish.name, route.dest) not in anew:
                routes.append(_restored(with_names(route, links.renames), twins))
        # With a link that is set down, its link-local address and all other routes go.
        if nic.name not in links.downed:
            coming += _link_local(derived, nic, wish)
            for route in derived.stale(replace(nic, addresses=wish.addresses)):
                stale.append(DeleteRoute(route=with_names(route, links.renames), doubtful=True))
    # A connected route has a source, which must be an address of the sandbox already: the table `local` comes first.
    routes.sort(key=lambda each: each.route.table, reverse=True)
    return DerivedPlan(tuple(coming), (*routes, *stale))


def _derived_anew(before: Address, after: Address) -> set[str]:
    """Return the destinations of the routes that the kernel derives anew when an address is changed in place."""
    if keeps_derived(before, after):
        return set()
    subnet = before.subnet
    return {f"{before.host}/32", f"{last_address(subnet)}/32", subnet}


def _link_local(derived: Derived, nic: Interface, wish: Interface) -> Iterator[AddressOperation]:
    """Yield what gives a NIC its link-local address."""
    if derived.lacks_link_local(nic):
        state = derived.state(nic)
        hw_addr = wish.hw_addr or (state.hw_addr if state else "")
        made = Address(address=link_local(hw_addr), protocol=KERNEL_LINK_LOCAL)
        yield AddAddress(device=wish.name, address=made)
        return
    for address in filter(is_link_local, derived.managed(nic)):
        if derived.is_lost(address, nic):
            kept = Address(address=address, protocol=KERNEL_LINK_LOCAL)
            yield DeleteAddress(device=wish.name, address=kept)
            yield AddAddress(device=wish.name, address=kept)


def _restored(route: Route, twins: tuple[Route, ...]) -> AddRoute | ReplaceRoute:
    """Return what restores a derived route. RefusedError if one of another program is in its place."""
    if not twins:
        return AddRoute(route=route)
    if len(twins) == 1 and twins[0].protocol == PROTOCOL_KERNEL:
        return ReplaceRoute(route=route, before=twins[0])
    raise RefusedError(
        f"the route {route_words(twins[0])} is not ours, and is in the place of {route_words(route)}, which the "
        "kernel makes of an address; delete it in the sandbox"
    )


def _refuse_vrf(nic: Interface, state: LinkState | None) -> None:
    if state and state.vrf:
        raise RefusedError(
            f"{nic.name} is a port of the VRF {state.master}, in whose table its routes are now; "
            f"take it out in the sandbox: ip link set dev {nic.name} nomaster"
        )
