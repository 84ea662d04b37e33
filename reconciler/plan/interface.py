"""NICs and their addresses: which come, go, change their names, and what needs a link down.

Traps: a link that goes down loses its routes and IPv6 addresses, so it goes down only where the kernel insists. Deleting
the first IPv4 address of a subnet deletes the others of that subnet on the NIC (unless promote_secondaries is set).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from reconciler.diff import diff
from reconciler.errors import HostError, RefusedError
from reconciler.model.address import is_ipv6, network
from reconciler.model.interface import Address, Interface, Origin
from reconciler.model.route import TABLE_MAIN, Route
from reconciler.model.sandbox import DriverAddress, HostDevice, Surroundings
from reconciler.operations import (
    AddAddress,
    AttachInterface,
    DeleteAddress,
    DetachInterface,
    Operation,
    RenameInterface,
    ReplaceAddress,
    SetLink,
)

# RFC 8200, 5: with less, the kernel takes IPv6 off a link.
IPV6_MIN_MTU = 1280
# IP6_RT_PRIO_ADDRCONF of net/ip6_route.h.
IPV6_CONNECTED_METRIC = 256
# Kernels from 6.2 on rename a link that is up (bd039b5ea2a9).
LIVE_RENAME = (6, 2)
# Kinds whose drivers set IFF_LIVE_ADDR_CHANGE; virtio_net sets it too, but has no kind.
LIVE_ADDRESS_KINDS = frozenset({"tun", "veth", "dummy", "macvlan", "ifb"})


@dataclass(slots=True)
class LinkPlan:
    """What happens to the links.

    All by the names that NICs have before. `renames`: old → new name; `removed`: those that go, `gone_early`: those of
    them that go first; `downed`: those that pass through down; `mtus`: name → (old, new MTU), `ipv6_off`: those whose MTU
    becomes too small for IPv6.
    """

    early: list[Operation] = field(default_factory=list)
    late: list[Operation] = field(default_factory=list)
    renames: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    gone_early: set[str] = field(default_factory=set)
    downed: set[str] = field(default_factory=set)
    mtus: dict[str, tuple[int, int]] = field(default_factory=dict)
    ipv6_off: set[str] = field(default_factory=set)


@dataclass(slots=True)
class AddressPlan:
    """What happens to the addresses.

    `gone`: addresses (without length) that no NIC has in the end; `dropped`: IPv4 addresses that go before routes are
    written, `doubtful`: those that may; `ipv4_off`: NICs,
    by the names they have before, that are without any IPv4 address for a moment, which costs them all their IPv4
    routes, `ipv4_doubtful`: those that may be; `ipv6`: NIC by its new name, address, and whether it is only just added.
    """

    early: list[Operation] = field(default_factory=list)
    late: list[Operation] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    ipv4_off: set[str] = field(default_factory=set)
    ipv4_doubtful: set[str] = field(default_factory=set)
    ipv6: list[tuple[str, Address, bool]] = field(default_factory=list)
    deletions: int = 0


def plan_links(
    wanted: tuple[Interface, ...],
    had: tuple[Interface, ...],
    routes: tuple[Route, ...],
    driver: DriverAddress,
    around: Surroundings,
) -> LinkPlan:
    """Plan the links: who goes, who is renamed, who comes, what is set. `routes` are the desired ones."""
    plan = LinkPlan()
    changes = diff(wanted, had)
    removed = [change.before for change in changes if change.before and not change.after]
    added = [change.after for change in changes if change.after and not change.before]
    kept = [(change.before, change.after) for change in changes if change.before and change.after]
    plan.renames = {before.name: after.name for before, after in kept if before.name != after.name}
    plan.removed = {interface.name for interface in removed}

    claimed = {*plan.renames.values(), *(interface.name for interface in added)}
    _refuse_foreign_names(claimed & around.links)
    for interface in removed:
        detach = DetachInterface(name=interface.name, origin=_origin(interface, around))
        if interface.name in claimed or _is_claimed(interface.addresses, routes):
            plan.early.append(detach)
            plan.gone_early.add(interface.name)
        else:
            plan.late.append(detach)

    needs_down = {before.name: _needs_down(before, after, around) for before, after in kept}
    plan.early += [SetLink(name=name, up=False) for name, down in needs_down.items() if down]
    plan.downed = {before.name for before, after in kept if needs_down[before.name] or (before.up and not after.up)}
    plan.early += order_renames(plan.renames, {each.name for each in (*wanted, *had)} | around.links)
    for interface in added:
        plan.early += _attach(interface, driver, around)
    for before, after in kept:
        if before.mtu != after.mtu:
            plan.mtus[before.name] = (before.mtu, after.mtu)
            plan.ipv6_off |= {before.name} if after.mtu < IPV6_MIN_MTU <= before.mtu else set()
        plan.early += _set_link(before, after, raise_again=before.name in plan.downed)
    return plan


def _is_claimed(addresses: Iterable[Address], routes: tuple[Route, ...]) -> bool:
    """Tell whether a desired route is to take the place of the connected route of one of these addresses."""
    keys = {connected_key(address) for address in addresses}
    return bool(keys) and any(route.key in keys for route in routes)


def connected_key(address: Address) -> tuple[int, str, int]:
    """Give the key of the route that the kernel adds for an address by itself."""
    dest = network(address.address)
    return (TABLE_MAIN, dest, IPV6_CONNECTED_METRIC if is_ipv6(dest) else 0)


def order_renames(renames: dict[str, str], taken: set[str] | frozenset[str]) -> list[Operation]:
    """Order renames so that each new name is free when its turn comes; a cycle goes through a name not `taken`."""
    pending = dict(renames)
    operations: list[Operation] = []
    while pending:
        free = next((old for old, new in pending.items() if new not in pending), None)
        if free is None:
            old, new = next(iter(pending.items()))
            free = next(name for number in range(len(taken) + 1) if (name := f"rename{number}") not in taken)
            operations.append(RenameInterface(name=old, new_name=free))
            del pending[old]
            pending[free] = new
        else:
            operations.append(RenameInterface(name=free, new_name=pending.pop(free)))
    return operations


def _refuse_foreign_names(names: frozenset[str] | set[str]) -> None:
    if names:
        listed = ", ".join(sorted(names))
        raise RefusedError(
            f"the name {listed} is taken in the sandbox by an interface that is not ours; "
            "rename or remove it there, or choose another name"
        )


def _origin(interface: Interface, around: Surroundings) -> Origin:
    # A saved state knows no origins: then the NIC goes back as it is.
    unknown = Origin(device=interface.device, hw_addr=interface.hw_addr, mtu=interface.mtu)
    return around.origins.get(interface.device, unknown)


def _needs_down(before: Interface, after: Interface, around: Surroundings) -> bool:
    # A saved state knows neither kernel nor kinds; nearly all of them change while they are up.
    if not before.up or around.devices is None:
        return False
    if before.name != after.name and around.kernel and around.kernel < LIVE_RENAME:
        return True
    return before.hw_addr != after.hw_addr and around.kinds.get(before.device) not in LIVE_ADDRESS_KINDS


def _attach(interface: Interface, driver: DriverAddress, around: Surroundings) -> list[Operation]:
    if around.devices is None:
        origin = Origin(device=interface.device, hw_addr=interface.hw_addr, mtu=interface.mtu)
        host = HostDevice(name=interface.device, queues=interface.queues, origin=origin)
    elif interface.device in around.devices:
        host = around.devices[interface.device]
    else:
        raise HostError(
            f"{interface.device}: no such device on this host, which interface {interface.name} needs; "
            "it has to exist before it is given to a sandbox"
        )
    check_queues(interface, host.queues)
    return [
        AttachInterface(host_name=host.name, namespace=driver.shell_word, name=interface.name, origin=host.origin),
        SetLink(name=interface.name, hw_addr=interface.hw_addr, mtu=interface.mtu, up=True, sign="+"),
    ]


def check_queues(interface: Interface, available: int) -> None:
    """Raise HostError if a device has fewer queues than its interface asks for."""
    if interface.queues > max(available, 1):
        has = "single-queue" if available <= 1 else f"limited to {available} queues"
        raise HostError(f"{interface.device} is {has}; interface {interface.name} asks for {interface.queues} queues")


def _set_link(before: Interface, after: Interface, *, raise_again: bool) -> list[Operation]:
    hw_addr = after.hw_addr if before.hw_addr != after.hw_addr else None
    mtu = after.mtu if before.mtu != after.mtu else None
    up = after.up if before.up != after.up or raise_again else None
    if hw_addr is None and mtu is None and up is None:
        return []
    was = [before.hw_addr] * (hw_addr is not None) + [f"mtu {before.mtu}"] * (mtu is not None)
    if before.up != after.up:
        was.append("up" if before.up else "down")
    return [SetLink(name=after.name, hw_addr=hw_addr, mtu=mtu, up=up, was=", ".join(was))]


def plan_addresses(
    wanted: tuple[Interface, ...],
    had: tuple[Interface, ...],
    routes: tuple[Route, ...],
    links: LinkPlan,
    around: Surroundings,
) -> AddressPlan:
    """Plan the addresses of all NICs that stay or come. `routes` are the desired ones."""
    plan = AddressPlan()
    before = {interface.device: interface for interface in had}
    for interface in wanted:
        old = before.get(interface.device)
        added: set[str] = set()
        if old is None or old.addresses != interface.addresses or old.name in links.downed:
            added = _plan_nic(plan, interface, old, routes, links, around)
        plan.ipv6 += [
            (interface.name, address, address.key in added)
            for address in interface.addresses
            if is_ipv6(address.address)
        ]
    for interface in had:
        if interface.name in links.gone_early:
            plan.dropped |= {_bare(address) for address in interface.addresses if not is_ipv6(address.address)}
    present = {_bare(address) for interface in had for address in interface.addresses}
    staying = present & {_bare(each) for interface in wanted for each in interface.addresses}
    plan.gone = present - staying
    # An address that another NIC has as well may take no routes along.
    plan.doubtful |= plan.dropped & staying
    plan.dropped -= staying
    return plan


def _bare(address: Address) -> str:
    return address.address.partition("/")[0]


def _plan_nic(
    plan: AddressPlan,
    interface: Interface,
    old: Interface | None,
    routes: tuple[Route, ...],
    links: LinkPlan,
    around: Surroundings,
) -> set[str]:
    """Plan the addresses of one NIC; give those that are added."""
    name = interface.name
    found = old.addresses if old else ()
    keys = {address.key for address in interface.addresses}
    plan.deletions += sum(address.key not in keys for address in found)
    if old and old.name in links.downed:
        found = tuple(address for address in found if not is_ipv6(address.address))
    given = {address for nic, address in around.addresses if old and nic == old.name}
    reordered = _wrong_primaries(found, interface.addresses)
    changes = diff(interface.addresses, [address for address in found if address not in reordered])
    added = [each.after for each in changes if each.after and not each.before and each.after.key not in given]
    deleted = [each.before for each in changes if each.before and not each.after]
    changed = [each.after for each in changes if each.before and each.after]
    first, rest = _must_go_first(deleted, interface.addresses, routes)
    first = [*reordered, *first]
    dropped = [each for each in _dropped_along(first, found, interface.addresses) if each not in added]
    plan.early += [DeleteAddress(device=name, address=address) for address in first]
    plan.early += [ReplaceAddress(device=name, address=address) for address in (*dropped, *changed)]
    plan.early += [AddAddress(device=name, address=address) for address in added]
    plan.late += [DeleteAddress(device=name, address=address) for address in rest]
    plan.dropped |= {_bare(address) for address in first if not is_ipv6(address.address)}
    plan.doubtful |= set(map(_bare, dropped))
    if old:
        had = {address.key for address in found if not is_ipv6(address.address)}
        _note_ipv4(plan, old.name, had, {address.key for address in first}, {address.key for address in dropped}, given)
    return {address.key for address in added}


def _note_ipv4(
    plan: AddressPlan, name: str, had: set[str], first: set[str], dropped: set[str], given: set[str]
) -> None:
    """Note whether a NIC is, or may be, without any IPv4 address for a moment."""
    if not had or any(not is_ipv6(address) for address in given):
        return
    if not had - first:
        plan.ipv4_off.add(name)
    elif not had - first - dropped:
        plan.ipv4_doubtful.add(name)


def _must_go_first(
    deleted: list[Address], wanted: tuple[Address, ...], routes: tuple[Route, ...]
) -> tuple[list[Address], list[Address]]:
    """Split deletions into those before everything else and those at the end.

    An IPv4 address goes before others of its subnet come, as it could take them along later; before a route comes that
    takes the place of its connected one; and where no other address comes, before routes are written, as the last one
    takes all IPv4 routes of its NIC along.
    """
    if not deleted:
        return [], []
    subnets = {network(address.address) for address in wanted if not is_ipv6(address.address)}
    claimed = {route.key for route in routes}
    first = [
        address
        for address in deleted
        if connected_key(address) in claimed
        or (not is_ipv6(address.address) and (not subnets or network(address.address) in subnets))
    ]
    return first, [address for address in deleted if address not in first]


def _wrong_primaries(found: tuple[Address, ...], wanted: tuple[Address, ...]) -> list[Address]:
    """Give the IPv4 addresses to remove and add again, so that the first one wanted of a subnet is its primary.

    The kernel makes the primary's address the source of the connected route. The first of those that stay becomes primary
    by itself.
    """
    by_subnet: dict[str, list[Address]] = {}
    for address in found:
        if not is_ipv6(address.address):
            by_subnet.setdefault(network(address.address), []).append(address)
    wrong = []
    for subnet, present in by_subnet.items():
        wishes = [address for address in wanted if network(address.address) == subnet]
        stay = [address for address in present if address in wishes]
        if stay and stay[0] != wishes[0]:
            wrong += stay
    return wrong


def _dropped_along(first: list[Address], found: tuple[Address, ...], wanted: tuple[Address, ...]) -> list[Address]:
    """Give the wanted addresses that may vanish with the first one of their subnet."""
    primaries: dict[str, str] = {}
    for address in found:
        primaries.setdefault(network(address.address), address.key)
    going = {address.key for address in first}
    present = {address.key for address in found}
    return [
        address for address in wanted if address.key in present and primaries.get(network(address.address)) in going
    ]
