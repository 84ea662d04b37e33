"""NICs: which come, go, change their names, and what needs a link down.

A link that goes down loses its routes and IPv6 addresses, so it goes down only where the kernel insists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from reconciler.diff import diff
from reconciler.errors import HostError, RefusedError
from reconciler.model.interface import IPV6_MIN_MTU, Address, Interface, Origin
from reconciler.model.route import Route, connected_key
from reconciler.model.sandbox import DriverAddress, HostDevice, NetnsAddress, Surroundings
from reconciler.operations import AttachInterface, DetachInterface, Operation, RenameInterface, SetLink

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


def plan_links(
    wanted: tuple[Interface, ...],
    had: tuple[Interface, ...],
    routes: tuple[Route, ...],
    driver: DriverAddress,
    around: Surroundings,
) -> LinkPlan:
    """Plan the links: who goes, who is renamed, who comes, what is set. `routes` are those that may be written."""
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
    keys = {connected_key(address.address) for address in addresses}
    return bool(keys) and any(route.key in keys for route in routes)


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
    if not isinstance(driver, NetnsAddress):
        raise HostError(f"{interface.device}: NICs cannot be plugged into a virtual machine yet")
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
