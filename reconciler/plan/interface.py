"""NICs: which are added, removed and renamed, and which changes need the link down.

A link that is set down loses its routes and IPv6 addresses. So it is set down only if the kernel demands it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from reconciler.diff import diff
from reconciler.errors import RefusedError
from reconciler.model.attribute import changed, named, words
from reconciler.model.identity import Nic
from reconciler.model.interface import IPV6_MIN_MTU, Address, Interface
from reconciler.model.route import Route, connected_key
from reconciler.model.sandbox import DriverAddress, KataAddress, LibvirtAddress, NetnsAddress, Surroundings, VmAddress
from reconciler.operations.interface import RenameInterface, SetLink
from reconciler.operations.segment import Network, Segment, Settings
from reconciler.plan import altnames, made
from reconciler.plan.device import about, check_hw_addr
from reconciler.plan.sysctl import SysctlPlan, set_up
from reconciler.values import dataclass, field, replace

# Kernels from 6.2 on rename a link that is up (bd039b5ea2a9).
LIVE_RENAME = (6, 2)
# Kinds whose drivers set IFF_LIVE_ADDR_CHANGE. virtio_net has no kind in the kernel; the `vm` driver uses this name.
LIVE_ADDRESS_KINDS = frozenset({"tun", "veth", "dummy", "macvlan", "ifb", "virtio_net"})


class Host(Protocol):
    """How NICs are attached to a kind of sandbox, and detached again."""

    def attach(self, interface: Interface) -> list[Segment]:
        """Return what attaches a device, names it and sets it up. HostError if it does not exist or does not fit."""

    def detach(self, interface: Interface) -> list[Segment]:
        """Return what detaches a device and returns it to the host."""

    def must_be_reattached(self, before: Interface, after: Interface) -> bool:
        """Return whether a change is possible only if the device is detached and attached again."""

    def is_in_the_way(self, removed: Interface, added: Sequence[Interface]) -> bool:
        """Return whether a device has to be detached before others are attached."""

    def check(self, interface: Interface) -> None:
        """Raise HostError if the device of an interface that stays does not fit it."""


class GivenHost(Host, Protocol):
    """How devices of the host are."""

    def clear(self, wanted: Sequence[Interface]) -> list[Segment]:
        """Return what removes the half-done work of an earlier run."""


@dataclass(slots=True)
class LinkPlan:
    """What happens to the links. NICs have their names from before the plan.

    `renames`: old → new name. `removed`: NICs that are removed. `gone_early`: NICs that are detached first; they may be
    attached again. `downed`: links that are set down, at least for a moment. `mtus`: name → (old, new MTU).
    `mtus_along`: links to which the kernel may give another MTU. `ipv6_off`: links whose MTU gets too small for IPv6,
    or whose IPv6 is turned off. `ipv6_cut`: links that lose their IPv6 addresses and routes because IPv6 is turned off,
    at least for a moment.
    """

    early: list[Segment] = field(default_factory=list)
    late: list[Segment] = field(default_factory=list)
    renames: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    gone_early: set[str] = field(default_factory=set)
    downed: set[str] = field(default_factory=set)
    mtus: dict[str, tuple[int, int]] = field(default_factory=dict)
    mtus_along: set[str] = field(default_factory=set)
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
    hosts = _Hosts(driver, around)
    # What they lie on has the name that it gets, so that a rename alone changes nothing of what lies on it.
    settled = _with_new_names(had, wanted)
    changes = diff(wanted, settled)
    removed = [change.before for change in changes if change.before and not change.after]
    added = [change.after for change in changes if change.after and not change.before]
    kept = [(change.before, change.after) for change in changes if change.before and change.after]
    staying = _stay(wanted, settled) if managed else []
    again = _again(staying, had, {each.name for each in removed}, hosts)
    kept = [pair for pair in kept if pair not in again]
    plan.renames = {before.name: after.name for before, after in kept if before.name != after.name}
    plan.removed = {interface.name for interface in removed}
    # A NIC that is reattached is removed and added.
    removed += [before for before, _ in again]
    added += [after for _, after in again]

    claimed = {*plan.renames.values(), *(interface.name for interface in added)}
    if managed:
        plan.early += hosts.given.clear(wanted)
    _refuse_foreign_names(wanted, claimed & around.links, around.hw_addrs)
    early = {
        each.name
        for each in removed
        if each.name in claimed or hosts.of(each).is_in_the_way(each, added) or _is_claimed(each.addresses, routes)
    }
    # A link that becomes a port has nothing on it that takes its packets. What lies on it has its new name.
    joining = {after.name for before, after in kept if after.master and before.master != after.master}
    early |= {each.name for each in removed if each.made and each.made.link in joining}
    claimed |= altnames.wanted_names(wanted)
    early |= {each.name for each in removed if not claimed.isdisjoint((each.name, *(each.altnames or ())))}
    reasons = {pair[0].name: made.reason(pair) for pair in again}
    _remove(plan, removed, made.along(early, had, made.goes_away), hosts, reasons)

    needs_down = {
        before.name: _needs_down(before, after, around) or (before.up and _joins_down(before, after, plan, had, wanted))
        for before, after in kept
    }
    plan.early.append(Network(tuple(SetLink(name=name, up=False) for name, down in needs_down.items() if down)))
    down = {before.name for before, after in kept if needs_down[before.name] or (before.up and not after.up)}
    plan.downed = made.along(down, had, made.goes_down)
    # The kernel sets what lies on a link up along with it.
    going_up = {before.name for before, after in kept if after.up and (not before.up or before.name in down)}
    raised = made.along(going_up, had, made.goes_down) - going_up
    kept += [pair for pair in staying if pair[0].name in raised and not pair[1].up and pair not in [*kept, *again]]
    for before, after in kept:
        plan.early += altnames.going(before.name, before.altnames or (), after.altnames)
    taken = {each.name for each in (*wanted, *had)} | around.links
    plan.early.append(Network(tuple(order_renames(plan.renames, taken))))
    plan.renames |= {before.name: after.name for before, after in again if before.name != after.name}
    for pair in staying:
        if pair not in again:
            with about(pair[1], wanted):
                check_hw_addr(pair[1], pair[0].hw_addr)
                hosts.of(pair[1]).check(pair[1])
            if pair not in kept:
                plan.early.append(Settings(tuple(sysctls.of_nics.get(pair[1].device, ()))))
    before_of = {after.name: before for before, after in kept}
    # What lies on a link, or becomes a port, comes after that one is as it should be.
    for interface in made.ordered([*added, *(after for _, after in kept)]):
        if interface.name in before_of:
            _set_kept(plan, before_of[interface.name], interface, sysctls, raised)
            continue
        with about(interface, wanted):
            plan.early += hosts.of(interface).attach(interface)
    plan.mtus_along = made.mtus_along(plan.mtus, had, wanted)
    return plan


def _remove(
    plan: LinkPlan, removed: Sequence[Interface], early: set[str], hosts: _Hosts, reasons: Mapping[str, str]
) -> None:
    """Plan how NICs leave: some before all else, the others at the end. `reasons`: why some are made again."""
    # What lies on a link goes before it; the others in their order.
    for interface in reversed(made.ordered(removed[::-1])):
        detached = made.told(hosts.of(interface).detach(interface), reasons)
        if interface.name in early:
            plan.early += detached
            plan.gone_early.add(interface.name)
        else:
            plan.late += detached


def _set_kept(
    plan: LinkPlan, before: Interface, after: Interface, sysctls: SysctlPlan, raised: Collection[str]
) -> None:
    """Plan the settings of a NIC that stays. `raised`: those that the kernel may have set up with their link."""
    if before.mtu != after.mtu:
        plan.mtus[before.name] = (before.mtu, after.mtu)
        plan.ipv6_off |= {before.name} if after.mtu < IPV6_MIN_MTU <= before.mtu else set()
    again = before.name in plan.downed or before.name in raised
    link = _set_link(before, after, set_again=again, master=_new_master(before, after, plan))
    plan.early += made.changes(before, after)
    plan.early += set_up(link, sysctls.of_nics.get(after.device, ()))
    plan.early += altnames.coming(after.name, before.altnames or (), after.altnames)


class _Hosts:
    """How each NIC comes and goes: a device of the host, or a link that is made in the sandbox."""

    def __init__(self, driver: DriverAddress, around: Surroundings) -> None:
        self.given = _host(driver, around)
        self._maker = made.Maker(around)

    def of(self, interface: Interface) -> Host:
        """Return how a NIC comes and goes."""
        return self._maker if interface.made else self.given


def _with_new_names(had: Sequence[Interface], wanted: Sequence[Interface]) -> tuple[Interface, ...]:
    """Return NICs whose link and master have the names that these get."""
    if not any(each.beneath for each in had):
        return tuple(had)
    new = {before.name: after.name for before, after in _stay(tuple(wanted), tuple(had))}
    return tuple(
        replace(
            each,
            master=new.get(each.master, each.master),
            made=replace(each.made, link=new.get(each.made.link, each.made.link)) if each.made else None,
        )
        for each in had
    )


def _again(
    staying: Sequence[tuple[Interface, Interface]], had: Sequence[Interface], removed: set[str], hosts: _Hosts
) -> list[tuple[Interface, Interface]]:
    """Return the NICs that are removed and added again: they, or what they lie on, cannot be changed in place."""
    again = {before.name for before, after in staying if hosts.of(before).must_be_reattached(before, after)}
    gone = made.along(again | removed, had, made.goes_away)
    return [pair for pair in staying if pair[0].name in gone]


def _new_master(before: Interface, after: Interface, plan: LinkPlan) -> str | None:
    """Return the master that a NIC gets, "" for none; None if it keeps the one that it has."""
    old = "" if before.master in plan.gone_early else before.master
    return after.master if old != after.master else None


def _joins_down(
    before: Interface, after: Interface, plan: LinkPlan, had: Sequence[Interface], wanted: Sequence[Interface]
) -> bool:
    """Return whether a NIC leaves a master, or gets one, that takes a port only while the port is down."""
    if _new_master(before, after, plan) is None:
        return False
    return made.downs_ports(before.master, had) or made.downs_ports(after.master, wanted)


def _stay(wanted: tuple[Interface, ...], had: tuple[Interface, ...]) -> list[tuple[Interface, Interface]]:
    """Return (before, after) of the interfaces that are both desired and observed, unchanged or not."""
    before = {interface.key: interface for interface in had}
    return [(before[wish.key], wish) for wish in wanted if wish.key in before]


def _host(driver: DriverAddress, around: Surroundings) -> GivenHost:
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
    keys = {connected_key(dest, each.metric) for each in addresses for dest in each.connected}
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
    return (
        bool(after.hw_addr)
        and before.hw_addr != after.hw_addr
        and around.kinds.get(before.device) not in LIVE_ADDRESS_KINDS
    )


def _set_link(
    before: Interface, after: Interface, *, set_again: bool, master: str | None = None
) -> tuple[SetLink, ...]:
    # What a manifest leaves to the kernel is empty.
    hw_addr = after.hw_addr if before.hw_addr != after.hw_addr and after.hw_addr else None
    mtu = after.mtu if before.mtu != after.mtu and after.mtu else None
    up = after.up if before.up != after.up or set_again else None
    attributes = changed(before.attributes, after.attributes)
    if hw_addr is None and mtu is None and up is None and master is None and not attributes:
        return ()
    was = [before.hw_addr] * (hw_addr is not None) + [f"mtu {before.mtu}"] * (mtu is not None)
    was += [f"master {before.master}" if before.master else "no port"] * (master is not None)
    was += words(named(before.attributes, dict(attributes)))
    if before.up != after.up:
        was.append("up" if before.up else "down")
    return (
        SetLink(
            name=after.name,
            hw_addr=hw_addr,
            mtu=mtu,
            up=up,
            master=master,
            attributes=attributes,
            was=", ".join(was),
        ),
    )
