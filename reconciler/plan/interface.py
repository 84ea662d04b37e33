"""NICs: which are added, removed and renamed, and which changes need the link down.

A link that is set down loses its routes and IPv6 addresses. So it is set down only if the kernel demands it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from reconciler.diff import diff
from reconciler.errors import RefusedError
from reconciler.model.identity import Nic
from reconciler.model.interface import IPV6_MIN_MTU, Address, Interface
from reconciler.model.route import Route, connected_key
from reconciler.model.sandbox import DriverAddress, KataAddress, LibvirtAddress, NetnsAddress, Surroundings, VmAddress
from reconciler.operations.interface import RenameInterface, SetLink
from reconciler.operations.segment import Network, Segment, Settings
from reconciler.plan.device import about
from reconciler.plan.sysctl import SysctlPlan, set_up

# Kernels from 6.2 on rename a link that is up (bd039b5ea2a9).
LIVE_RENAME = (6, 2)
# Kinds whose drivers set IFF_LIVE_ADDR_CHANGE. virtio_net has no kind in the kernel; the `vm` driver uses this name.
LIVE_ADDRESS_KINDS = frozenset({"tun", "veth", "dummy", "macvlan", "ifb", "virtio_net"})


class Host(Protocol):
    """How devices of the host are attached to a kind of sandbox, and detached again."""

    def attach(self, interface: Interface) -> list[Segment]:
        """Return what attaches a device, names it and sets it up. HostError if it does not exist or does not fit."""

    def detach(self, interface: Interface) -> list[Segment]:
        """Return what detaches a device and returns it to the host."""

    def must_be_reattached(self, before: Interface, after: Interface) -> bool:
        """Return whether a change is possible only if the device is detached and attached again."""

    def is_in_the_way(self, removed: Interface, added: Sequence[Interface]) -> bool:
        """Return whether a device has to be detached before others are attached."""

    def clear(self, wanted: Sequence[Interface]) -> list[Segment]:
        """Return what removes the half-done work of an earlier run."""

    def check(self, interface: Interface) -> None:
        """Raise HostError if the device of an interface that stays does not fit it."""


@dataclass(slots=True)
class LinkPlan:
    """What happens to the links. NICs have their names from before the plan.

    `renames`: old → new name. `removed`: NICs that are removed. `gone_early`: NICs that are detached first; they may be
    attached again. `downed`: links that are set down, at least for a moment. `mtus`: name → (old, new MTU). `ipv6_off`:
    links whose MTU becomes too small for IPv6, or whose IPv6 is turned off. `ipv6_cut`: links that lose their IPv6
    addresses and routes because IPv6 is turned off, at least for a moment.
    """

    early: list[Segment] = field(default_factory=list)
    late: list[Segment] = field(default_factory=list)
    renames: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    gone_early: set[str] = field(default_factory=set)
    downed: set[str] = field(default_factory=set)
    mtus: dict[str, tuple[int, int]] = field(default_factory=dict)
    ipv6_off: set[str] = field(default_factory=set)
    ipv6_cut: set[str] = field(default_factory=set)


def plan_links(
    wanted: tuple[Interface, ...],
    had: tuple[Interface, ...],
    routes: tuple[Route, ...],
    driver: DriverAddress,
    around: Surroundings,
    sysctls: SysctlPlan,
    *,
    managed: bool,
) -> LinkPlan:
    """Plan the links: which are removed, renamed, added, set. `routes` are those that may be written.

    `managed`: the manifest has the section `interfaces`. Otherwise all are left alone, half-done ones as well.
    """
    plan = LinkPlan(ipv6_off=set(sysctls.ipv6_off), ipv6_cut=set(sysctls.ipv6_cut))
    changes = diff(wanted, had)
    removed = [change.before for change in changes if change.before and not change.after]
    added = [change.after for change in changes if change.after and not change.before]
    kept = [(change.before, change.after) for change in changes if change.before and change.after]
    host = _host(driver, around)
    staying = _stay(wanted, had) if managed else []
    again = [pair for pair in staying if host.must_be_reattached(*pair)]
    kept = [pair for pair in kept if pair not in again]
    plan.renames = {before.name: after.name for before, after in kept if before.name != after.name}
    plan.removed = {interface.name for interface in removed}
    # A NIC that is reattached is removed and added.
    removed += [before for before, _ in again]
    added += [after for _, after in again]

    claimed = {*plan.renames.values(), *(interface.name for interface in added)}
    if managed:
        plan.early += host.clear(wanted)
    _refuse_foreign_names(wanted, claimed & around.links, around.hw_addrs)
    for interface in removed:
        detached = host.detach(interface)
        if (
            interface.name in claimed
            or host.is_in_the_way(interface, added)
            or _is_claimed(interface.addresses, routes)
        ):
            plan.early += detached
            plan.gone_early.add(interface.name)
        else:
            plan.late += detached

    needs_down = {before.name: _needs_down(before, after, around) for before, after in kept}
    plan.early.append(Network(tuple(SetLink(name=name, up=False) for name, down in needs_down.items() if down)))
    plan.downed = {before.name for before, after in kept if needs_down[before.name] or (before.up and not after.up)}
    taken = {each.name for each in (*wanted, *had)} | around.links
    plan.early.append(Network(tuple(order_renames(plan.renames, taken))))
    plan.renames |= {before.name: after.name for before, after in again if before.name != after.name}
    for interface in added:
        with about(interface, wanted):
            plan.early += host.attach(interface)
    for pair in staying:
        if pair not in again:
            with about(pair[1], wanted):
                host.check(pair[1])
            if pair not in kept:
                plan.early.append(Settings(tuple(sysctls.of_nics.get(pair[1].device, ()))))
    for before, after in kept:
        if before.mtu != after.mtu:
            plan.mtus[before.name] = (before.mtu, after.mtu)
            plan.ipv6_off |= {before.name} if after.mtu < IPV6_MIN_MTU <= before.mtu else set()
        link = _set_link(before, after, raise_again=before.name in plan.downed)
        plan.early += set_up(link, sysctls.of_nics.get(after.device, ()))
    return plan


def _stay(wanted: tuple[Interface, ...], had: tuple[Interface, ...]) -> list[tuple[Interface, Interface]]:
    """Return (before, after) of the interfaces that are both desired and observed, unchanged or not."""
    before = {interface.key: interface for interface in had}
    return [(before[wish.key], wish) for wish in wanted if wish.key in before]


def _host(driver: DriverAddress, around: Surroundings) -> Host:
    match driver:
        case NetnsAddress():
            from reconciler.plan.namespace import NamespaceHost

            return NamespaceHost(driver, around)
        case KataAddress():
            raise TypeError("plan.kata plans the commands of a runtime")
        case VmAddress():
            from reconciler.plan.machine import MachineHost

            return MachineHost(around, has_monitor=driver.monitor is not None)
        case LibvirtAddress():
            from reconciler.plan.domain import DomainHost

            return DomainHost(driver, around)


def _is_claimed(addresses: Iterable[Address], routes: tuple[Route, ...]) -> bool:
    """Return whether a desired route replaces the connected route of one of these addresses."""
    keys = {connected_key(each.address, each.metric) for each in addresses if not each.noprefixroute}
    return bool(keys) and any(route.key in keys for route in routes)


def order_renames(renames: dict[str, str], taken: set[str] | frozenset[str]) -> list[RenameInterface]:
    """Order renames so that each new name is free when its turn comes; a cycle uses a name that is not `taken`."""
    pending = dict(renames)
    operations: list[RenameInterface] = []
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


def _refuse_foreign_names(
    wanted: Sequence[Interface], names: frozenset[str] | set[str], hw_addrs: frozenset[str]
) -> None:
    """Raise RefusedError if foreign links have these names. `hw_addrs`: the MAC addresses of foreign links."""
    if names:
        listed = ", ".join(sorted(names))
        named = {each.hw_addr for each in wanted if each.name in names}
        index = next(index for index, interface in enumerate(wanted) if interface.name in names)
        raise RefusedError(
            f"the name {listed} is taken in the sandbox by an interface that is not ours; "
            "rename or remove it there, or choose another name",
            about=Nic(min(names)),
            more=["If it is the interface of the manifest: --adopt (docs/adoption.md)"] * (named <= hw_addrs),
            path=("interfaces", index, "name"),
        )


def _needs_down(before: Interface, after: Interface, around: Surroundings) -> bool:
    # A saved state has neither the kernel nor the kinds of links. Nearly all links can be changed while they are up.
    if not before.up or around.devices is None:
        return False
    if before.name != after.name and around.kernel and around.kernel < LIVE_RENAME:
        return True
    return before.hw_addr != after.hw_addr and around.kinds.get(before.device) not in LIVE_ADDRESS_KINDS


def _set_link(before: Interface, after: Interface, *, raise_again: bool) -> tuple[SetLink, ...]:
    hw_addr = after.hw_addr if before.hw_addr != after.hw_addr else None
    mtu = after.mtu if before.mtu != after.mtu else None
    up = after.up if before.up != after.up or raise_again else None
    if hw_addr is None and mtu is None and up is None:
        return ()
    was = [before.hw_addr] * (hw_addr is not None) + [f"mtu {before.mtu}"] * (mtu is not None)
    if before.up != after.up:
        was.append("up" if before.up else "down")
    return (SetLink(name=after.name, hw_addr=hw_addr, mtu=mtu, up=up, was=", ".join(was)),)
