"""Sysctls: which are set, and when.

Some change others (`model.sysctl.effects`): these are set first, and what they changed is set again. Those of a NIC are
set before it goes up: with that, the kernel makes its link-local address and asks routers. IPv6 that is turned off
deletes the IPv6 addresses and routes of a NIC, as if its link was set down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from reconciler.model.interface import Interface
from reconciler.model.sandbox import Observed, Sandbox
from reconciler.model.sysctl import OF_SANDBOX, effects, full_name, order
from reconciler.operations.interface import SetLink
from reconciler.operations.segment import Network, Segment, Settings
from reconciler.operations.sysctl import SetNetworkSysctl
from reconciler.values import dataclass, field, replace


@dataclass(slots=True)
class SysctlPlan:
    """What is set before the links change, and what after: that of single links.

    `of_nics`: what is set of NICs that stay, by device. `ipv6_cut`: NICs that lose their IPv6 addresses and routes on
    the way, by the names that they have before; `ipv6_off`: those of them that have no IPv6 in the end.
    """

    early: list[SetNetworkSysctl] = field(default_factory=list)
    late: list[SetNetworkSysctl] = field(default_factory=list)
    of_nics: dict[str, list[SetNetworkSysctl]] = field(default_factory=dict)
    ipv6_cut: set[str] = field(default_factory=set)
    ipv6_off: set[str] = field(default_factory=set)


def plan_sysctls(desired: Sandbox, observed: Observed) -> SysctlPlan:
    """Plan the sysctls of the sandbox, and those of NICs that stay. `new_sysctls` has those of others."""
    plan = SysctlPlan()
    had = observed.sandbox.interfaces or ()
    links = [*(each.name for each in had), *observed.around.links]
    known = dict((*(observed.sandbox.sysctls or ()), *observed.around.sysctls))
    for each in had:
        known |= {full_name(each.name, name): value for name, value in each.sysctls}
    now: dict[str, int | None] = {**known}
    for name, value in sorted(desired.sysctls or (), key=lambda each: order(each[0])):
        if now.get(name) == value:
            continue
        operation = SetNetworkSysctl(name=name, value=value, before=known.get(name))
        # Only an undo sets those of single links in this way.
        (plan.early if name in OF_SANDBOX else plan.late).append(operation)
        now[name] = value
        for effect in effects(name, value, links):
            same = now.get(effect.name, effect.value) == effect.value
            now[effect.name] = effect.value if effect.sure or same else None
    before = {each.device: each for each in had}
    wanted = had if desired.interfaces is None else desired.interfaces
    for after in wanted:
        if (old := before.get(after.device)) is not None:
            _plan_nic(plan, old, after, known, now)
    return plan


def _plan_nic(
    plan: SysctlPlan, before: Interface, after: Interface, known: Mapping[str, int], now: Mapping[str, int | None]
) -> None:
    for name, value in after.sysctls:
        old = full_name(before.name, name)
        if now.get(old) != value:
            new = full_name(after.name, name)
            operation = SetNetworkSysctl(name=new, value=value, before=known.get(old), nic=after.name)
            plan.of_nics.setdefault(after.device, []).append(operation)
    disable = full_name(before.name, "disable_ipv6")
    turned = now.get(disable)
    last = dict(after.sysctls).get("disable_ipv6", turned)
    if not known.get(disable) and 1 in (turned, last):
        plan.ipv6_cut.add(before.name)
        if last == 1:
            plan.ipv6_off.add(before.name)


def new_sysctls(interface: Interface) -> list[SetNetworkSysctl]:
    """Return what is set of a NIC that is attached: all, as the kernel's defaults are not known."""
    return [
        SetNetworkSysctl(name=full_name(interface.name, name), value=value, nic=interface.name)
        for name, value in interface.sysctls
    ]


def set_up(links: Sequence[SetLink], sysctls: Iterable[SetNetworkSysctl]) -> list[Segment]:
    """Return the changes of a link and of its sysctls, which come after the MTU and before it goes up."""
    settings = tuple(sysctls)
    if not settings and not any(link.up and link.master is not None for link in links):
        return [Network(tuple(links))]
    return [Network(tuple(_halves(links, up=False))), Settings(settings), Network(tuple(_halves(links, up=True)))]


def _halves(links: Iterable[SetLink], *, up: bool) -> Iterator[SetLink]:
    for link in links:
        changed = any(each is not None for each in (link.hw_addr, link.mtu, link.master)) or link.attributes
        if not up and (changed or link.up is False):
            yield replace(link, up=None if link.up else link.up)
        elif up and link.up:
            yield SetLink(name=link.name, up=True, sign=link.sign)
