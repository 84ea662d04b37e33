"""NICs and their addresses: which come, go, change their names, and what needs a link down.

Traps: a link that goes down loses its routes and IPv6 addresses, so it goes down only where the kernel insists. Deleting
the first IPv4 address of a subnet deletes the others of that subnet on the NIC (unless promote_secondaries is set).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from reconciler.diff import Change, diff
from reconciler.errors import HostError, RefusedError
from reconciler.model.address import is_ipv6, network
from reconciler.model.interface import Address, Interface, Origin
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

# Kernels from 6.2 on rename a link that is up (bd039b5ea2a9).
LIVE_RENAME = (6, 2)
# Kinds whose drivers set IFF_LIVE_ADDR_CHANGE; virtio_net sets it too, but has no kind.
LIVE_ADDRESS_KINDS = frozenset({"tun", "veth", "dummy", "macvlan", "ifb"})


@dataclass(slots=True)
class LinkPlan:
    """What happens to the links.

    `renames`: old → new name; `removed`, `gone_early`: old names; `downed`: new names of
    links that pass through down; `mtus`: new name → (old, new MTU).
    """

    early: list[Operation] = field(default_factory=list)
    late: list[Operation] = field(default_factory=list)
    renames: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    gone_early: set[str] = field(default_factory=set)
    downed: set[str] = field(default_factory=set)
    mtus: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class AddressPlan:
    """What happens to the addresses.

    `dropped`: those (without length) that go for a moment at least before routes are
    written; `ipv4_off`: NICs that are without any IPv4 address for a moment, which costs them all their IPv4 routes;
    `ipv6`: NIC, address, and whether it is only just added.
    """

    early: list[Operation] = field(default_factory=list)
    late: list[Operation] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    ipv4_off: set[str] = field(default_factory=set)
    ipv6: list[tuple[str, Address, bool]] = field(default_factory=list)
    deletions: int = 0


def plan_links(changes: list[Change[Interface]], driver: DriverAddress, around: Surroundings) -> LinkPlan:
    """Plan the links: who goes, who is renamed, who comes, what is set."""
    plan = LinkPlan()
    removed = [change.before for change in changes if change.before and not change.after]
    added = [change.after for change in changes if change.after and not change.before]
    kept = [(change.before, change.after) for change in changes if change.before and change.after]
    plan.renames = {before.name: after.name for before, after in kept if before.name != after.name}
    plan.removed = {interface.name for interface in removed}

    claimed = {*plan.renames.values(), *(interface.name for interface in added)}
    _refuse_foreign_names(claimed & around.links)
    for interface in removed:
        detach = DetachInterface(name=interface.name, origin=_origin(interface, around))
        if interface.name in claimed:
            plan.early.append(detach)
            plan.gone_early.add(interface.name)
        else:
            plan.late.append(detach)

    needs_down = {before.name: _needs_down(before, after, around) for before, after in kept}
    plan.early += [SetLink(name=name, up=False) for name, down in needs_down.items() if down]
    plan.downed = {plan.renames.get(name, name) for name, down in needs_down.items() if down}
    plan.early += order_renames(plan.renames, around.links)
    for interface in added:
        plan.early += _attach(interface, driver, around)
    for before, after in kept:
        if before.mtu != after.mtu:
            plan.mtus[after.name] = (before.mtu, after.mtu)
        plan.early += _set_link(before, after, raise_again=after.name in plan.downed)
    return plan


def order_renames(renames: dict[str, str], foreign: Iterable[str]) -> list[Operation]:
    """Order renames so that each new name is free when its turn comes; a cycle goes through a temporary name."""
    pending = dict(renames)
    taken = {*renames, *renames.values(), *foreign}
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
    if not before.up:
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
    wanted: tuple[Interface, ...], had: tuple[Interface, ...], links: LinkPlan, around: Surroundings
) -> AddressPlan:
    """Plan the addresses of all NICs that stay or come."""
    plan = AddressPlan()
    before = {interface.device: interface for interface in had}
    for interface in wanted:
        old = before.get(interface.device)
        if old is not None and old.addresses == interface.addresses and interface.name not in links.downed:
            found = set()
        else:
            found = _plan_nic(plan, interface, old, links, around)
        plan.ipv6 += [
            (interface.name, address, address.key in found)
            for address in interface.addresses
            if is_ipv6(address.address)
        ]
    return plan


def _plan_nic(
    plan: AddressPlan, interface: Interface, old: Interface | None, links: LinkPlan, around: Surroundings
) -> set[str]:
    """Plan the addresses of one NIC; give those that are added."""
    name = interface.name
    observed = old.addresses if old else ()
    if name in links.downed:
        observed = tuple(address for address in observed if not is_ipv6(address.address))
    given = {address for nic, address in around.addresses if old and nic == old.name}
    changes = [
        change
        for change in diff(interface.addresses, observed)
        if change.before or (change.after and change.after.key not in given)
    ]
    plan.deletions += sum(change.after is None for change in changes)
    added = [change.after for change in changes if change.after and not change.before]
    deleted = [change.before for change in changes if change.before and not change.after]
    changed = [change.after for change in changes if change.before and change.after]
    first, rest = _must_go_first(deleted, interface.addresses)
    dropped = _dropped_along(first, observed, interface.addresses)
    had = {address.key for address in observed if not is_ipv6(address.address)}
    stays = had - {address.key for address in (*first, *dropped)} or {text for text in given if not is_ipv6(text)}
    if had and not stays:
        plan.ipv4_off.add(name)
    plan.early += [DeleteAddress(device=name, address=address) for address in first]
    plan.early += [ReplaceAddress(device=name, address=address) for address in (*dropped, *changed)]
    plan.early += [AddAddress(device=name, address=address) for address in added]
    plan.late += [DeleteAddress(device=name, address=address) for address in rest]
    plan.dropped |= {address.address.partition("/")[0] for address in (*first, *dropped)}
    return {address.key for address in added}


def _must_go_first(deleted: list[Address], wanted: tuple[Address, ...]) -> tuple[list[Address], list[Address]]:
    """Split deletions into those before everything else and those at the end.

    An IPv4 address goes before others of its subnet come, as it could take them along later; and where no other comes,
    before routes are written, as the last one takes all IPv4 routes of its NIC along.
    """
    subnets = {network(address.address) for address in wanted if not is_ipv6(address.address)}
    first = [
        address
        for address in deleted
        if not is_ipv6(address.address) and (not subnets or network(address.address) in subnets)
    ]
    return first, [address for address in deleted if address not in first]


def _dropped_along(first: list[Address], observed: tuple[Address, ...], wanted: tuple[Address, ...]) -> list[Address]:
    """Give the wanted addresses that may vanish with the first one of their subnet."""
    primaries: dict[str, str] = {}
    for address in observed:
        primaries.setdefault(network(address.address), address.key)
    going = {address.key for address in first}
    present = {address.key for address in observed}
    return [
        address for address in wanted if address.key in present and primaries.get(network(address.address)) in going
    ]
